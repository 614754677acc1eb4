"""The normal form of ids, common to logs, events and requests, so that ids that look the same are the same."""

import re
import unicodedata
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

LARGEST_WHOLE_FLOAT = 2**53
"""Above this, a float may represent several integers."""

_SPACES = "".join(map(chr, range(0x2000, 0x200B)))
_BLANKS = f" \t\n\r\v\f\x85\xa0\u1680{_SPACES}\u202f\u205f\u3000\ufeff"
_WHOLE_FLOAT = r"^([+-]?[0-9]{1,15})\.0+$"
_IS_WHOLE_FLOAT = re.compile(_WHOLE_FLOAT)


def normal_id(text: str) -> str:
    """Return an id without surrounding white space, in Unicode's composed form (NFC); `37.0` becomes `37`."""
    composed = text if text.isascii() else unicodedata.normalize("NFC", text)
    trimmed = composed.strip(_BLANKS)
    return trimmed.partition(".")[0] if trimmed.endswith("0") and _IS_WHOLE_FLOAT.match(trimmed) else trimmed


def normal_ids(text: pa.ChunkedArray, null_tokens: Sequence[str] = ()) -> pa.ChunkedArray:
    """Return `normal_id` of each text; an empty result, or a token for "no id", becomes null."""
    if not pc.all(pc.string_is_ascii(text)).as_py():
        text = _composed(text)
    text = pc.utf8_trim(text, characters=_BLANKS)
    if pc.any(pc.match_substring(text, ".0")).as_py():
        text = pc.replace_substring_regex(text, pattern=_WHOLE_FLOAT, replacement=r"\1")
    absent = pc.is_in(text, value_set=pa.array(["", *null_tokens], pa.string()))
    return pc.if_else(absent, pa.scalar(None, pa.string()), text) if pc.any(absent).as_py() else text


def spellings_of(text: pa.ChunkedArray, ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the texts that differ from their ids by `normal_ids`; null elsewhere."""
    return pc.if_else(pc.not_equal(text, ids), text, pa.scalar(None, pa.string()))


def _composed(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Compose each distinct text once, in Python, because Arrow's `utf8_normalize` leaves text decomposed (25.0)."""
    encoded = pc.dictionary_encode(text.combine_chunks())
    distinct = [unicodedata.normalize("NFC", value) for value in encoded.dictionary.to_pylist()]
    return pa.chunked_array([pa.array(distinct, pa.string()).take(encoded.indices)])
