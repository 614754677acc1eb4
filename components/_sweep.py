"""The members of a sweep: their sections, and their comparison."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import msgspec

from components._sections import read_section, write_section
from elcrec.artifacts import read_json
from elcrec.config import Section, merge, to_dict
from elcrec.errors import UserError

logger = logging.getLogger("elcrec.sweep")

_MOST_MEMBERS = 64


@dataclass(frozen=True, kw_only=True)
class Member:
    """A trained member of a sweep: its folder, its section `train`, its validation metrics."""

    folder: Path
    section: dict[str, Any]
    valid: dict[str, float]


def spread(section: str, grid: str) -> list[str]:
    """Return the JSON of a section `train` for each combination of the grid's values.

    Raises:
        UserError: the grid is not a JSON object of lists, is too large, or a combination violates the schema.
    """
    try:
        axes = msgspec.json.decode(grid, type=dict[str, list[Any]])
    except (msgspec.DecodeError, ValueError) as error:
        fix = 'write e.g. {"seed": [1, 2, 3]}'
        raise UserError(f"not a JSON object of lists ({error})", where="parameter grid", fix=fix) from error
    combinations = list(product(*axes.values()))
    if not 1 <= len(combinations) <= _MOST_MEMBERS:
        raise UserError(
            f"{len(combinations)} combinations", where="parameter grid", fix=f"name 1 to {_MOST_MEMBERS} combinations"
        )
    base = msgspec.json.decode(section)
    documents = [_set(base, dict(zip(axes, values, strict=True))) for values in combinations]
    return [write_section(read_section("train", msgspec.json.encode(document).decode())) for document in documents]


def by_validation(folders: Sequence[Path]) -> list[Member]:
    """Read the members of a sweep, best validation NDCG@20 first; ties keep their order."""
    members = []
    for folder in folders:
        document = read_json(folder / "config.json")
        members.append(Member(folder=folder, section=document["train"], valid=document["valid"]))
    return sorted(members, key=lambda member: -member.valid["ndcg@20"])


def describe_members(members: Sequence[Member]) -> str:
    """Return a Markdown table of the members: the fields in which they differ, and their validation metrics."""
    flat = [_flatten(member.section) for member in members]
    varied = [name for name in flat[0] if len({str(fields.get(name)) for fields in flat}) > 1]
    names = [*varied, "validation NDCG@20", "HR@20"]
    lines = ["| " + " | ".join(names) + " |", "|-" * len(names) + "|"]
    for fields, member in zip(flat, members, strict=True):
        scores = [f"{member.valid[name]:.4f}" for name in ("ndcg@20", "hr@20")]
        lines.append("| " + " | ".join([*(str(fields.get(name, "")) for name in varied), *scores]) + " |")
    return "\n".join(lines) + "\n"


def log_settings(section: Section) -> None:
    """Log every field of a section, because nothing else in the UI distinguishes the members of a sweep."""
    fields = _flatten(to_dict(section))
    logger.info("settings: %s", ", ".join(f"{name}={value}" for name, value in fields.items()))


def _set(document: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    for path, value in values.items():
        nested = value
        for key in reversed(path.split(".")):
            nested = {key: nested}
        document = merge(document, nested)
    return document


def _flatten(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in document.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
