"""Keys for users in files outside the store: salted hashes of raw ids."""

import hashlib
import os
import secrets
from pathlib import Path

from elcrec.artifacts import SCHEMA_VERSION, read_json, write_json
from elcrec.errors import UserError

SALT_FILE = "user_salt.json"
"""File of the salt in a store folder."""
KEY_LENGTH = 32
"""Number of hex digits of a key: 128 bits."""
_SALT_BYTES = 16


def user_key(user_id: str, salt: str) -> str:
    """Return the key of a user: the same for all servers and commands with the same salt."""
    return hashlib.sha256(f"{salt}{user_id}".encode()).hexdigest()[:KEY_LENGTH]


def load_salt(path: Path) -> str:
    """Return the salt in a file; the first caller creates it.

    Raises:
        UserError: the file is damaged or cannot be written. It is not replaced, because a new salt would change all
            keys.
    """
    if not path.exists():
        _make(path)
    salt = read_json(path).get("salt")
    if not isinstance(salt, str) or not salt:
        raise UserError("holds no salt", where=path, fix="restore it: with another salt, every user gets another key")
    return salt


def _make(path: Path) -> None:
    """Write a new salt, unless another process or thread is faster."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(draft, {"schema_version": SCHEMA_VERSION, "salt": secrets.token_hex(_SALT_BYTES)})
        draft.chmod(0o600)
        if not path.exists():
            os.link(draft, path)
    except FileExistsError:
        pass
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror})", where=path) from error
    finally:
        draft.unlink(missing_ok=True)
