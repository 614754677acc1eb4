"""Read params.yaml: presets and overrides laid over it, and all of it checked against the schema."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from elcrec.config.schema import Config
from elcrec.config.section import Section
from elcrec.documents import parse_yaml, require_plain
from elcrec.errors import UserError

_DESCRIBED_IN = "src/elcrec/config"
T = TypeVar("T")


def parse_part(name: str, document: Mapping[str, Any], *, source: object = "configuration") -> Any:
    """Check one section of `Config` alone, without conditions between sections.

    Raises:
        UserError: a key is unknown, or a value has the wrong type or range.
    """
    kind = next(field.type for field in msgspec.structs.fields(Config) if field.name == name)
    whole = msgspec.defstruct("Part", [(name, kind)])
    return getattr(parse_section({name: document}, whole, source=source, described_in=_DESCRIBED_IN), name)


def load_config(params: Path, *, presets: Sequence[Path] = (), overrides: Sequence[str] = ()) -> Config:
    """Read `params`, then apply `presets` in their order, then `overrides` such as `train.epochs=5`.

    Raises:
        UserError: a file is missing or not YAML, a key is unknown, or a value has the wrong type or range.
    """
    document = read_mapping(params)
    for preset in presets:
        document = merge(document, read_mapping(preset))
    for override in overrides:
        document = merge(document, _parse_override(override))
    return parse_config(document, source=params)


def parse_config(document: Mapping[str, Any], *, source: object = "configuration") -> Config:
    """Check a nested mapping against the schema.

    Raises:
        UserError: a key is unknown, or a value has the wrong type or range.
    """
    return parse_section(document, Config, source=source, described_in=_DESCRIBED_IN)


def parse_section(document: Mapping[str, Any], kind: type[T], *, source: object, described_in: str) -> T:
    """Check a nested mapping against a section's type; `described_in` is the file that explains its fields.

    Raises:
        UserError: a key is unknown, or a value has the wrong type or range or is not plain.
    """
    require_plain(document, source=source)
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        fix = f"see the fields and their ranges in {described_in}"
        raise UserError(_explain(str(error)), where=source, fix=fix) from error


def to_dict(section: Section) -> dict[str, Any]:
    """Return a section as plain nested dicts, ready for JSON or YAML."""
    plain: dict[str, Any] = msgspec.to_builtins(section)
    return plain


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge one nested mapping into another; mappings are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _explain(message: str) -> str:
    """Turn msgspec's `… - at `$.train.epochs`` into `parameter train.epochs: …`."""
    text, _, path = message.partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    return f"parameter {path}: {text}" if path else text


def _parse_override(override: str) -> dict[str, Any]:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise UserError(f"override {override[:80]!r} is not section.key=value", fix="write e.g. train.epochs=5")
    value: Any = parse_yaml(text, source=f"override {override[:80]!r}")
    for key in reversed(path.split(".")):
        value = {key: value}
    nested: dict[str, Any] = value
    return nested


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        UserError: the file is missing, cannot be read, or does not hold a mapping.
    """
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"), source=path)
    except FileNotFoundError as error:
        raise UserError("no such file", where=path, fix="name the parameters with --params") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"not readable ({error})", where=path) from error
    if not isinstance(document, dict):
        raise UserError("expected a mapping of sections", where=path)
    return document
