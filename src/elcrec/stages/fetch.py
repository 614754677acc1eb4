"""Stage fetch: get the raw log: the sample, your own file, or a public data set, checked by its md5."""

import http.client
import shutil
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet as pq

from elcrec.artifacts import SCHEMA_VERSION, md5_of, write_json
from elcrec.config import FetchConfig, LogFormat, RemoteFile
from elcrec.custody import stage_output
from elcrec.data.many_files import join_parts, parts_of, root_of
from elcrec.data.synthetic import generate
from elcrec.errors import UserError
from elcrec.masking import mask

Metrics = dict[str, float | int | str]

_SUFFIX: dict[LogFormat, str] = {"csv": ".csv", "parquet": ".parquet", "jsonl": ".jsonl", "benchmark": ".txt"}
_TIMEOUT_SECONDS = 60
_BLOCK_BYTES = 1 << 20


def fetch(
    config: FetchConfig, out: Path, *, mirror: Path | None = None, provenance: Mapping[str, str] | None = None
) -> Metrics:
    """Write `data.<ext>` and `source.json`, and for the sample its planted intents.

    Args:
        config: which data set.
        out: the folder to write.
        mirror: a folder that is searched for public files before their URL is used.
        provenance: further facts on the file's origin (`dvc_repository`, `dvc_revision`, `dvc_path`; `data_location`,
            `data_version`), or a better `origin`; written into `source.json` unchanged.

    Raises:
        UserError: the file is not available, or its md5 differs from the configuration.
    """
    with stage_output(out) as folder:
        if config.dataset == "sample":
            origin, data = _make_sample(config, folder)
        elif config.dataset == "file":
            origin, data = _copy_file(config, folder)
        else:
            origin, data = _fetch_public(config.dataset, config.sources[config.dataset], folder, mirror)
        source = _describe(config, data, origin) | {name: mask(value) for name, value in (provenance or {}).items()}
        write_json(folder / "source.json", source)
        size = data.stat().st_size
    return {"dataset": config.dataset, "bytes": size, "md5": source["md5"], "origin": source["origin"]}


def _describe(config: FetchConfig, data: Path, origin: str) -> dict[str, int | str]:
    return {
        "schema_version": SCHEMA_VERSION,
        "dataset": config.file.name if config.dataset == "file" else config.dataset,
        "format": next(layout for layout, suffix in _SUFFIX.items() if suffix == data.suffix),
        **({"layout": config.file.layout} if config.dataset == "file" and config.file.layout else {}),
        "file": data.name,
        "md5": md5_of(data),
        "origin": mask(origin),
    }


def _make_sample(config: FetchConfig, folder: Path) -> tuple[str, Path]:
    sample = generate(config.synthetic)
    data = folder / "data.csv"
    pyarrow.csv.write_csv(sample.log, data)
    pq.write_table(sample.items, folder / "truth_items.parquet")
    pq.write_table(sample.users, folder / "truth_users.parquet")
    return "synthetic", data


def _copy_file(config: FetchConfig, folder: Path) -> tuple[str, Path]:
    data, parts = folder / f"data{_SUFFIX[config.file.laid_out]}", parts_of(config.file.path)
    if len(parts) == 1:
        _copy(parts[0], data, fix="set fetch.file.path")
    else:
        join_parts(parts, config.file.laid_out, data, root=root_of(config.file.path))
    _check_md5(data, config.file.md5, origin=config.file.path)
    return config.file.path, data


def _fetch_public(name: str, source: RemoteFile, folder: Path, mirror: Path | None) -> tuple[str, Path]:
    data = folder / f"data{_SUFFIX[source.format]}"
    ending = Path(urllib.parse.urlsplit(source.url).path).suffix
    mirrored = mirror / (source.mirror_name or f"{name}{ending}") if mirror else None
    if mirrored is not None and mirrored.is_file():
        origin = str(mirrored)
        _copy(mirrored, data, fix="check the mirror folder")
    else:
        origin = source.url
        _download(source.url, data)
    _check_md5(data, source.md5, origin=origin)
    return source.url, data


def _copy(path: Path, data: Path, *, fix: str) -> None:
    try:
        shutil.copyfile(path, data)
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=path, fix=fix) from error


def _download(url: str, data: Path) -> None:
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise UserError("only http and https URLs are fetched", where=url)
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "elcrec"})  # noqa: S310 - scheme checked above
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response, data.open("wb") as file:  # noqa: S310 - same
            shutil.copyfileobj(response, file, _BLOCK_BYTES)
            if response.length:  # bytes still missing, if the connection ended without an error
                raise http.client.IncompleteRead(b"", response.length)
    except (OSError, http.client.HTTPException, ValueError) as error:
        fix = "check the network; without a network, set ELCREC_MIRROR to a folder with the file, or read your own copy"
        raise UserError(f"download failed ({error})", where=url, fix=fix) from error


def _check_md5(data: Path, expected: str | None, *, origin: str) -> None:
    found = md5_of(data)
    if expected is not None and found != expected:
        fix = "the file is damaged or changed; if the change is intended, set its md5 in the parameters"
        raise UserError(f"md5 is {found}, expected {expected}", where=origin, fix=fix)
