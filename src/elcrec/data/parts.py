"""A part of all users, to divide work between machines."""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from elcrec.errors import UserError


@dataclass(frozen=True)
class Part:
    """Part `index` (from 1) of `count` parts of all users; the hash of a user's id determines the part."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read `2/4`.

        Raises:
            UserError: the text does not have this form.
        """
        found = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", text)
        part = cls(*map(int, found.groups())) if found else None
        if part is None or part.index > part.count:
            raise UserError(
                f"{text!r} is not a part of the users",
                fix="write the part's number and the number of parts, such as 1/4",
            )
        return part

    def holds(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Return for each user whether they belong to this part."""
        belongs: npt.NDArray[np.bool_] = hashes % np.uint64(self.count) == self.index - 1
        return belongs


WHOLE = Part()
