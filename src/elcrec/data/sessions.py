"""Ids of earlier sessions, each of which is its own sequence; the newest session has the user's own id."""

import pyarrow as pa
import pyarrow.compute as pc

SESSION_MARK = "\u241f"
"""Separator between the user's id and the number of the session."""


def is_earlier_session(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return which ids are those of earlier sessions."""
    return pc.match_substring(ids.cast(pa.string()), SESSION_MARK)


def user_of(ids: pa.Array) -> pa.Array:
    """Return the users of these sessions."""
    return pc.replace_substring_regex(ids, f"{SESSION_MARK}[0-9]+$", "")
