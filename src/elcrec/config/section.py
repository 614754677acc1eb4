"""What the sections of the configuration are made of: their base and the types of their values."""

from typing import Annotated

import msgspec
from msgspec import Meta

Positive = Annotated[int, Meta(ge=1)]
NonNegative = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Weight = Annotated[float, Meta(ge=0)]
PositiveFloat = Annotated[float, Meta(gt=0)]
Name = Annotated[str, Meta(pattern=r"^(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=200)]
"""Text for file names and addresses: without slashes, spaces or two consecutive dots."""
Md5 = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
Day = Annotated[str, Meta(pattern="^(19[7-9][0-9]|20[0-9]{2})-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])$")]

FAULT_STATUSES = (1, 2, 130, 143)
"""Exit statuses of a command that failed or was ended."""


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the configuration: immutable, keyword-only, strict."""
