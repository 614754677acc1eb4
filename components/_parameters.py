"""Parameters of a run: those that replace a field of the configuration, and others."""

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
"""The parameters of a run, and the field that each replaces."""


def values_of(config: Config) -> dict[str, Any]:
    """Return the value of each of `PARAMETERS` in a configuration; a missing floor is 0."""
    values = {}
    for name, path in PARAMETERS.items():
        value: Any = to_dict(config)
        for key in path.split("."):
            value = value.get(key, 0.0)
        values[name] = value
    return values


def choices_of(config: Config) -> dict[str, list[str]]:
    """Return the possible values of those of `PARAMETERS` that have only a few."""
    return {
        "dataset": ["sample", "file", *config.fetch.sources],
        "objective": [*dict.fromkeys((*OBJECTIVES, config.train.objective))],
        "loss": [*get_args(get_type_hints(NextItemConfig)["loss"])],
    }


def apply(defaults: str, parameters: Mapping[str, object], overrides: str) -> Config:
    """Apply some of `PARAMETERS`, then a JSON object of sections, to the JSON of all sections.

    Raises:
        UserError: `overrides` is not a JSON object, or the result violates the schema.
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
    """Read a JSON list of raw ids; return `None`, which means all, for an empty text.

    Raises:
        UserError: it is not such a list.
    """
    try:
        return msgspec.json.decode(text, type=list[str]) if text else None
    except (msgspec.DecodeError, ValueError) as error:
        fix = 'write e.g. ["u1", "u2"], or nothing for all'
        raise UserError(f"not a JSON list of ids ({error})", where="parameter users", fix=fix) from error


def read_count(k: int) -> int:
    """Check and return the number of items to recommend; whether the model has so many is checked later.

    Raises:
        UserError: it is not positive.
    """
    if k < 1:
        raise UserError(f"{k} is not positive", where="parameter k", fix="ask for at least one item")
    return k
