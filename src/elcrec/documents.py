"""Reading YAML written by hand: only plain values, with errors that name the faulty entry."""

import math
import re
from collections.abc import Iterator
from datetime import date
from typing import Any

import yaml

from elcrec.errors import UserError

_DEEPEST = 32
"""Largest depth; no schema has as many levels."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_LARGEST = 2**63
_PLAIN_FIX = "write text, a number, true or false, null, a list or a mapping"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A YAML loader that reads 1e-3 as a number, like DVC (PyYAML needs 1.0e-3)."""


_FLOAT = re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))


def parse_yaml(text: str, *, source: object) -> Any:
    """Read a YAML document.

    Raises:
        UserError: it is not YAML, has tags, or holds a value that its type cannot have.
    """
    try:
        _check_form(text, source)
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of the safe loader
    except yaml.YAMLError as error:
        raise UserError(f"not valid YAML ({error})", where=source) from error
    except RecursionError as error:
        raise UserError("nested too deeply", where=source) from error
    except ValueError as error:  # such as 2026-13-01, or an integer of ten thousand digits
        raise UserError(f"a value that cannot be read ({error})", where=source, fix="put text into quotes") from error


def _check_form(text: str, source: object) -> None:
    """Refuse tags, with some of which PyYAML fails in many ways, and depths beyond Python's recursion limit."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise UserError(f"the YAML tag {tag!r} is not allowed", where=source, fix=_PLAIN_FIX)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise UserError("nested too deeply", where=source)


def require_plain(document: object, *, source: object) -> None:
    """Check that a document holds only plain, finite values.

    Raises:
        UserError: it holds another value; the message names its path.
    """
    for path, fault in _faults(document, "", 0):
        where = f"parameter {path}: " if path else ""
        raise UserError(f"{where}{fault}", where=source)


def _faults(value: object, path: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth > _DEEPEST:
        yield path[:200], "nested too deeply"
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) or _CONTROL.search(key):
                yield path, f"the key {_shown(key)} is not plain text; put it into quotes"
            else:
                yield from _faults(item, f"{path}.{key}" if path else key, depth + 1)
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _faults(item, f"{path}[{place}]", depth + 1)
    elif (fault := _fault(value)) is not None:
        yield path, fault


def _fault(value: object) -> str | None:
    """Return what is wrong with one scalar value."""
    match value:
        case None | bool():
            return None
        case int():
            return None if -_LARGEST <= value < _LARGEST else f"{_shown(value)} is beyond 64 bits"
        case float():
            return None if math.isfinite(value) else f"{value} is not a finite number"
        case str():
            found = _CONTROL.search(value)
            return None if found is None else f"{_shown(value)} holds the control character {found[0]!r}"
        case date():
            return f"{value} is a date; put it into quotes if text is meant"
        case _:
            return f"a value of type {type(value).__name__}; {_PLAIN_FIX}"


def _shown(value: object) -> str:
    """Return a value as text that fits in a line."""
    if isinstance(value, int) and value.bit_length() > 256:  # noqa: PLR2004 - the length of a readable line
        return f"a number of {value.bit_length()} bits"
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}…"  # noqa: PLR2004 - as above
