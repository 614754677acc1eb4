"""A run's parameters, checked before anything runs: by name, by type, and by the schema of the configuration."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from components._support import PARAMETERS, apply
from components._sweep import spread
from elcrec.config import Config, to_dict
from elcrec.errors import UserError

_TYPES = {"Integer": int, "Float": float, "Boolean": bool, "String": str}


def read_arguments(given: Sequence[str], pipeline: Any) -> dict[str, Any]:
    """Turn `NAME=VALUE` texts into the arguments of a pipeline.

    Raises:
        UserError: a text has another form, or the pipeline has no such parameter, or of another type.
    """
    inputs = pipeline.component_spec.inputs
    arguments = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"parameter {text!r} is not NAME=VALUE", fix="write e.g. --set epochs=5")
        if name not in inputs:
            raise UserError(f"no parameter {name!r}", where=pipeline.name, fix=f"there are {', '.join(sorted(inputs))}")
        arguments[name] = _read(name, value, inputs[name].type)
    return arguments


def check_arguments(arguments: Mapping[str, Any], config: Config) -> None:
    """Do what components configure and plan will do, so that a wrong value fails here and not in the run.

    Raises:
        UserError: a value is out of range, or `overrides` or `grid` breaks the schema.
    """
    defaults = msgspec.json.encode(to_dict(config)).decode()
    own = {name: value for name, value in arguments.items() if name in PARAMETERS}
    checked = apply(defaults, own, arguments.get("overrides", "{}"))
    if "grid" in arguments:
        spread(msgspec.json.encode(to_dict(checked.train)).decode(), arguments["grid"])


def _read(name: str, text: str, kind: str) -> Any:
    wanted = _TYPES[kind]
    try:
        return msgspec.convert(text, wanted, strict=False)
    except msgspec.ValidationError as error:
        raise UserError(f"parameter {name}: {text!r} is no {wanted.__name__}") from error
