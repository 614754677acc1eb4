"""Your own log at an address that every pod can reach: a bucket of S3 or Google Cloud Storage, or a web server.

A file is read at one version, given by the server: the ETag of S3 and HTTP (or Last-Modified if there is no ETag), or
Google's generation. For a file on a volume the md5 serves this purpose. So two runs with the same version read the same
bytes.

| variable | meaning |
|-|-|
| `AWS_…` | as boto3 reads them, `AWS_ENDPOINT_URL` too |
| `GOOGLE_SERVICE_ACCOUNT_KEY` | JSON of a service account's key; without it the pod's own identity is used |
"""

import http.client
import json
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import msgspec

from elcrec.artifacts import md5_of
from elcrec.config import FetchConfig
from elcrec.errors import UserError

_TIMEOUT_SECONDS = 60
_BLOCK_BYTES = 1 << 20
_MEANING = {401: "no permission to read it", 403: "no permission to read it", 404: "the file does not exist"}
_CHANGED = http.HTTPStatus.PRECONDITION_FAILED


class _Place(Protocol):
    """The place of one file."""

    errors: tuple[type[Exception], ...]
    """Exceptions that its library raises."""

    def version(self) -> str:
        """Return the present version of the file; empty if the server gives none."""

    def download(self, version: str, target: Path) -> None:
        """Copy exactly that version to `target`."""


def pinned(section: FetchConfig) -> FetchConfig:
    """Return the section with the present version of your own log, unless it already names one.

    Raises:
        UserError: the file is missing, must not be read, or has no version.
    """
    file = section.file
    if section.dataset != "file" or file.version or file.md5:
        return section
    if is_remote(file.path):
        return _with_file(section, version=find_version(file.path))
    try:
        return _with_file(section, md5=md5_of(Path(file.path)))
    except OSError as error:
        fix = "name a file on a mounted claim, or use s3://, gs:// or https://"
        raise UserError(f"cannot be read ({error.strerror})", where=file.path, fix=fix) from error


@contextmanager
def local_copy(section: FetchConfig) -> Iterator[tuple[FetchConfig, dict[str, str]]]:
    """Yield a section that reads a copy on this machine, and facts about its origin for `source.json`.

    Raises:
        UserError: the file is not available at the version that the section names.
    """
    file = section.file
    if section.dataset != "file" or not is_remote(file.path):
        yield section, {}
        return
    version = pinned(section).file.version
    with TemporaryDirectory() as scratch:
        target = Path(scratch, "log")
        download(file.path, version, target)
        origin = {"origin": shown(file.path), "data_location": shown(file.path), "data_version": version}
        yield _with_file(section, path=str(target)), origin


def is_remote(path: str) -> bool:
    """Whether a path is an address that this module reads."""
    return urllib.parse.urlsplit(path).scheme in _PLACES


def find_version(address: str) -> str:
    """Return the present version of a file.

    Raises:
        UserError: it is missing, must not be read, or the server gives no version.
    """
    with _explained(address) as place:
        version = place.version()
    if not version:
        fix = 'give its md5: {"fetch": {"file": {"md5": …}}} in overrides'
        raise UserError("the server gives no version (ETag or Last-Modified)", where=shown(address), fix=fix)
    return version


def download(address: str, version: str, target: Path) -> None:
    """Copy a version of a file to `target`; without a version, the present one.

    Raises:
        UserError: it is missing, must not be read, or has another version now.
    """
    with _explained(address, version) as place:
        place.download(version, target)


def shown(address: str) -> str:
    """Return an address without its query string, which may hold a signature."""
    parts = urllib.parse.urlsplit(address)
    return parts._replace(query="", fragment="").geturl() if parts.scheme.startswith("http") else address


class _ChangedError(Exception):
    """The file no longer has the requested version."""

    status = _CHANGED


class _S3:
    def __init__(self, address: str) -> None:
        import boto3  # noqa: PLC0415 - half a second
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as above

        bucket, key = _bucket_and_key(address)
        self.errors: tuple[type[Exception], ...] = (BotoCoreError, ClientError)
        self._client, self._object = boto3.client, {"Bucket": bucket, "Key": key}

    def version(self) -> str:
        with closing(self._client("s3")) as client:
            return str(client.head_object(**self._object)["ETag"])

    def download(self, version: str, target: Path) -> None:
        wanted = self._object | ({"IfMatch": version} if version else {})
        with closing(self._client("s3")) as client, closing(client.get_object(**wanted)["Body"]) as body:
            _write(body, target)


class _Google:
    def __init__(self, address: str) -> None:
        from google.api_core.exceptions import GoogleAPIError  # noqa: PLC0415 - a second
        from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 - as above

        self.errors: tuple[type[Exception], ...] = (GoogleAPIError, GoogleAuthError, OSError, ValueError)
        self._bucket, self._key = _bucket_and_key(address)

    def version(self) -> str:
        with self._blob() as blob:
            blob.reload()
            return str(blob.generation)

    def download(self, version: str, target: Path) -> None:
        condition = {"if_generation_match": int(version)} if version else {}
        with self._blob() as blob:
            blob.download_to_filename(str(target), **condition)

    @contextmanager
    def _blob(self) -> Iterator[Any]:
        from google.cloud import storage  # noqa: PLC0415 - as above

        key = os.environ.get("GOOGLE_SERVICE_ACCOUNT_KEY")
        make = storage.Client.from_service_account_info if key else storage.Client
        with closing(make(json.loads(key)) if key else make()) as client:
            yield client.bucket(self._bucket).blob(self._key)


class _Web:
    errors: tuple[type[Exception], ...] = (OSError, http.client.HTTPException, ValueError)

    def __init__(self, address: str) -> None:
        if "@" in urllib.parse.urlsplit(address).netloc:
            raise UserError(
                "an address with a password would be visible to everyone who sees the run",
                fix="give an address without a password",
            )
        self._address = address

    def version(self) -> str:
        with closing(self._open("HEAD")) as answer:
            return _version_of(answer)

    def download(self, version: str, target: Path) -> None:
        strong = version.startswith('"')  # only a strong ETag can be a condition
        with closing(self._open("GET", **({"If-Match": version} if strong else {}))) as answer:
            found = _version_of(answer)
            if version not in {"", found}:
                raise _ChangedError
            _write(answer, target)
            if answer.length:  # bytes still missing, if the connection ended without an error
                raise http.client.IncompleteRead(b"", answer.length)
        if version and self.version() != version:
            raise _ChangedError

    def _open(self, method: str, **headers: str) -> Any:
        headers = {"User-Agent": "elcrec", **headers}
        request = urllib.request.Request(self._address, headers=headers, method=method)  # noqa: S310 - only http and https
        try:
            return urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)  # noqa: S310 - as above
        except urllib.error.HTTPError as error:
            error.close()  # the error is an answer with an open connection
            raise


_PLACES: dict[str, Callable[[str], _Place]] = {"s3": _S3, "gs": _Google, "http": _Web, "https": _Web}


@contextmanager
def _explained(address: str, version: str = "") -> Iterator[_Place]:
    """Yield the place of a file; turn exceptions of its library into an error of one line."""
    place = _PLACES[urllib.parse.urlsplit(address).scheme](address)
    errors: tuple[type[Exception], ...] = (*place.errors, _ChangedError)
    try:
        yield place
    except errors as error:
        status = _status(error)
        if status == _CHANGED:
            what, fix = f"it no longer has version {version}", "the file was replaced meanwhile: start a new run"
        else:
            what = _MEANING.get(status, f"cannot be read ({type(error).__name__}: {error})")
            fix = "check the address, and the credentials that steps resolve and fetch get (docs/kubeflow.md)"
        raise UserError(what, where=shown(address), fix=fix) from error


def _status(error: Any) -> int:
    """Return the HTTP status of an error; 0 if there was no answer."""
    response = getattr(error, "response", None)  # botocore's `response` is a mapping
    if isinstance(response, dict):
        return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    status = getattr(error, "status", None) or getattr(error, "code", None)
    return int(status) if isinstance(status, int) else 0


def _bucket_and_key(address: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(address, allow_fragments=False)
    bucket, key = parts.netloc, parts.path.removeprefix("/")
    if not bucket or not key:
        raise UserError("not a bucket and a file in it", where=address, fix=f"write {parts.scheme}://BUCKET/PATH")
    return bucket, key


def _version_of(answer: Any) -> str:
    return str(answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")


def _write(source: Any, target: Path) -> None:
    with target.open("wb") as file:
        shutil.copyfileobj(source, file, _BLOCK_BYTES)


def _with_file(section: FetchConfig, **changes: str) -> FetchConfig:
    return msgspec.structs.replace(section, file=msgspec.structs.replace(section.file, **changes))
