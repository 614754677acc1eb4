"""Parameters of a run: those that replace a field of the configuration, and what a run asks for beside it."""

from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

import msgspec

from elcrec.config import Config, NextItemConfig, merge, parse_config, to_dict
from elcrec.errors import UserError
from elcrec.registry import OBJECTIVES

PARAMETERS = {
    "dataset": "fetch.dataset",
    "file_location": "fetch.file.path",
    "objective": "train.objective",
    "loss": "train.next_item.loss",
    "num_intents": "train.intents.num_intents",
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
    "learning_rate": "train.learning_rate",
    "seed": "train.seed",
    "min_ndcg": "push.gate.floors.ndcg@20",
    "max_regression": "push.gate.max_regression",
}
"""A run's own parameters, and the field that each replaces."""


def values_of(config: Config) -> dict[str, Any]:
    """Return what each of `PARAMETERS` has in a configuration; a floor that it does not have is 0."""
    values = {}
    for name, path in PARAMETERS.items():
        value: Any = to_dict(config)
        for key in path.split("."):
            value = value.get(key, 0.0)
        values[name] = value
    return values


def choices_of(config: Config) -> dict[str, list[str]]:
    """Return the values that some of `PARAMETERS` may have, where they are few."""
    return {
        "dataset": ["sample", "file", *config.fetch.sources],
        "objective": [*dict.fromkeys((*OBJECTIVES, config.train.objective))],
        "loss": [*get_args(get_type_hints(NextItemConfig)["loss"])],
    }


def apply(defaults: str, parameters: Mapping[str, object], overrides: str) -> Config:
    """Lay some of `PARAMETERS`, then a JSON object of sections, over the JSON of all sections.

    Raises:
        UserError: `overrides` is not a JSON object, or the result breaks the schema.
    """
    try:
        changes = msgspec.json.decode(overrides, type=dict[str, Any])
    except (msgspec.DecodeError, ValueError) as error:
        fix = 'write e.g. {"train": {"epochs": 5}}'
        raise UserError(f"not a JSON object ({error})", where="parameter overrides", fix=fix) from error
    document = msgspec.json.decode(defaults)
    for name, value in parameters.items():
        document = merge(document, _nested(PARAMETERS[name], value))
    return parse_config(merge(document, changes), source="pipeline parameters")


def _nested(path: str, value: object) -> dict[str, Any]:
    head, _, rest = path.partition(".")
    return {head: _nested(rest, value) if rest else value}


def read_users(text: str) -> list[str] | None:
    """Read a JSON list of raw ids; `None`, which is all, of nothing.

    Raises:
        UserError: it is something else.
    """
    try:
        return msgspec.json.decode(text, type=list[str]) if text else None
    except (msgspec.DecodeError, ValueError) as error:
        fix = 'write e.g. ["u1", "u2"], or nothing for all'
        raise UserError(f"not a JSON list of ids ({error})", where="parameter users", fix=fix) from error


def read_count(k: int) -> int:
    """Return how many items to recommend; only the model knows whether it has as many.

    Raises:
        UserError: it is not positive.
    """
    if k < 1:
        raise UserError(f"{k} is not positive", where="parameter k", fix="ask for at least one item")
    return k
