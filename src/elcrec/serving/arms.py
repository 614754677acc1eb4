"""The two arms of a test: which users the champion answers, and which the challenger."""

import hashlib
from typing import Literal

Arm = Literal["champion", "challenger"]

_PURPOSE = b"elcrec.arm"
_BYTES = 8


def arm_of(user_id: str, *, test: str, share: float) -> Arm:
    """Return the arm of a user: the same on every server, and independent of the user's arm in any other test.

    Args:
        user_id: the raw id.
        test: salts the hash, so that each test draws its own users; servers take model and version of the challenger.
        share: part of the users that belong to the challenger. The users of a small share are also in every larger one.
    """
    digest = hashlib.blake2b(f"{test}\n{user_id}".encode(), digest_size=_BYTES, person=_PURPOSE).digest()
    return "challenger" if int.from_bytes(digest) < share * 2 ** (8 * _BYTES) else "champion"
