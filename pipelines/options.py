"""Checks of combinations of options: an option that would be ignored is refused."""

import argparse
from collections.abc import Iterable

from elcrec.errors import UserError

COMPILED = (
    "pipeline",
    "params",
    "presets",
    "platform",
    "image",
    "accelerators",
    "nodes",
    "store_claim",
    "workspace_claim",
)
"""Options that a compiled package already contains."""

_WRITTEN = {"pipeline": "PIPELINE", "presets": "--preset"}
"""Spelling of options, if it is not the name after two dashes."""


def refuse(options: argparse.Namespace, names: Iterable[str], *, because: str) -> None:
    """Refuse options that are given but would be ignored; options not given are `None`, `False` or empty.

    Raises:
        UserError: one of `names` is given.
    """
    values = {name: getattr(options, name, None) for name in names}
    given = [name for name, value in values.items() if value not in (None, []) and value is not False]
    if given:
        written = ", ".join(_WRITTEN.get(name, f"--{name.replace('_', '-')}") for name in given)
        raise UserError(f"{written}: {because}", fix="leave it out" if len(given) == 1 else "leave them out")


def arguments_of(options: argparse.Namespace) -> dict[str, str]:
    """Return the parameters of a run by name.

    Raises:
        UserError: a parameter is given twice.
    """
    names = [name for name, _ in options.arguments]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"parameter {twice} is given twice", fix="give one value")
    return dict(options.arguments)
