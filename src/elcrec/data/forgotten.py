"""The list of forgotten users, as salted hashes with a moment each; their earlier events are left out of logs."""

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from elcrec.artifacts import SCHEMA_VERSION, read_json, write_json
from elcrec.data.ids import normal_id
from elcrec.errors import UserError

_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """A list of users whose events up to a moment must not be used.

    An id is looked up both as given and in its normal form, because lists of earlier versions have ids as in the log.

    Attributes:
        salt: salt of the hashes, so that they do not reveal the users.
        until: the moment, by the hash of the user's id.
    """

    salt: str = field(default_factory=lambda: secrets.token_hex(_BYTES), repr=False)
    until: Mapping[str, datetime] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the list; without a file, no user was forgotten.

        Raises:
            UserError: the file is damaged.
        """
        if not path.exists():
            return cls()
        document = read_json(path)
        try:
            until = {name: datetime.fromisoformat(moment) for name, moment in document["users"].items()}
            return cls(salt=str(document["salt"]), until=until)
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise UserError(f"not a list of forgotten users ({error})", where=path, fix="restore it") from error

    def write(self, path: Path) -> None:
        """Replace the list."""
        users = {name: moment.isoformat() for name, moment in self.until.items()}
        write_json(path, {"schema_version": SCHEMA_VERSION, "salt": self.salt, "users": users})

    def adding(self, user_id: str, moment: datetime) -> Self:
        """Return the list with one more user, or with a later moment for a user."""
        return type(self)(salt=self.salt, until={**self.until, self._name(normal_id(user_id)): moment})

    def holds(self, user_id: str, moment: datetime) -> bool:
        """Return whether a user's event at this moment must not be used."""
        until = self._until(user_id)
        return until is not None and moment <= until

    def among(self, user_ids: Iterable[str]) -> dict[str, datetime]:
        """Return the moments of the users on the list, by raw id."""
        moments = ((user_id, self._until(user_id)) for user_id in user_ids) if self.until else ()
        return {user_id: moment for user_id, moment in moments if moment is not None}

    def rows(self, user_ids: pa.ChunkedArray, times: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
        """Return which rows must not be used; this includes a forgotten user's rows without a time.

        Args:
            user_ids: raw ids as text.
            times: timestamp[us, UTC].
        """
        found = np.zeros(len(user_ids), bool)
        if not self.until:
            return found
        for user, moment in self.among(pc.unique(user_ids).drop_null().to_pylist()).items():
            until = pa.scalar(moment, pa.timestamp("us", tz="UTC"))
            early = pc.fill_null(pc.less_equal(times, until), fill_value=True)
            found |= pc.fill_null(pc.and_(pc.equal(user_ids, user), early), fill_value=False).to_numpy()
        return found

    def _until(self, user_id: str) -> datetime | None:
        spellings = {user_id, normal_id(user_id)} if self.until else ()
        moments = (self.until.get(self._name(spelling)) for spelling in spellings)
        return max((moment for moment in moments if moment is not None), default=None)

    def _name(self, user_id: str) -> str:
        return hashlib.blake2b(user_id.encode(), key=bytes.fromhex(self.salt), digest_size=_BYTES).hexdigest()
