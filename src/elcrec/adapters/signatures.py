"""Signatures of bundles with a key, in the format of OpenSSF Model Signing; `model_signing verify key` reads them too.

docs/serving.md#signed-bundles has the commands.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from elcrec.errors import UserError
from elcrec.serving.bundle import SIGNATURE

_PEM = "-----BEGIN"
_INSTALL = "install the extra signing (pip install 'elcrec[signing]')"
_KEY = "set ELCREC_SIGNING_KEY to a private key of an elliptic curve in PEM, or its file (openssl ecparam -genkey)"


def signer(key: str, password: str | None) -> Callable[[Path], None]:
    """Return a function that signs a bundle folder.

    Args:
        key: the private key in PEM, or its file.
        password: password of the key, if it is encrypted.
    """

    def sign(folder: Path) -> None:
        """Write the signature into the folder.

        Raises:
            UserError: the key cannot be used, or the extra `signing` is not installed.
        """
        signing, _, hashing = _library()
        with _file_of(key) as file:
            try:
                signs = signing.Config().use_elliptic_key_signer(
                    private_key=file, password=None if password is None else password.encode()
                )
            except Exception as error:
                # The library's message may hold a part of the key.
                raise UserError("the key for signing bundles cannot be used", fix=_KEY) from error
        signs.set_hashing_config(_all_files(hashing)).sign(folder, folder / SIGNATURE)

    return sign


def require_signature(public_key: Path) -> Callable[[Path], None]:
    """Return a function that checks that a bundle folder was signed with a key and not changed since.

    Raises:
        UserError: the key cannot be used, or the extra `signing` is not installed.
    """
    _, verifying, hashing = _library()
    try:
        verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except Exception as error:
        fix = "set serve.verify_key to a public key of an elliptic curve in PEM (openssl ec -pubout)"
        raise UserError(f"not a public key ({_line(error)})", where=public_key, fix=fix) from error

    def check(folder: Path) -> None:
        """Check a bundle.

        Raises:
            UserError: it is not signed, signed with another key, or changed after signing.
        """
        fix = f"serve.verify_key is {public_key}: push again with its private key in ELCREC_SIGNING_KEY"
        if not (folder / SIGNATURE).is_file():
            raise UserError("the bundle is not signed", where=folder, fix=fix)
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
        try:
            config.set_hashing_config(_all_files(hashing)).verify(folder, folder / SIGNATURE)
        except Exception as error:
            raise UserError("the signature does not match this key and these files", where=folder, fix=fix) from error

    return check


def _library() -> tuple[Any, Any, Any]:
    try:
        from model_signing import hashing, signing, verifying  # noqa: PLC0415 - the extra `signing`
    except ImportError as error:
        raise UserError("signatures need model-signing", fix=_INSTALL) from error
    return signing, verifying, hashing


def _all_files(hashing: Any) -> Any:
    return hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


@contextmanager
def _file_of(key: str) -> Iterator[Path]:
    """Yield the file of a key; a key given as text gets a temporary file, because the library reads only files."""
    if not key.lstrip().startswith(_PEM):
        yield Path(key)
        return
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # only its owner may read it
        file.write(key)
        file.flush()
        yield Path(file.name)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
