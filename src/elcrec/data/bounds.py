"""Limits on numbers, checked by Great Expectations."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from elcrec.errors import UserError

Severity = Literal["critical", "warning", "info"]

# The second logger has its own level.
_CHATTY = ("great_expectations", "great_expectations.data_context.types.base")


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A column's values must lie within limits.

    Attributes:
        name: name, unique among the bounds that are checked together.
        expected: the limit in words.
    """

    name: str
    column: str
    expected: str
    severity: Severity = "critical"
    minimum: float | None = None
    maximum: float | None = None


def judge(table: pd.DataFrame, bounds: Sequence[Bound]) -> dict[str, bool]:
    """Let Great Expectations check a table of numbers; return by name whether each bound holds.

    Raises:
        UserError: Great Expectations is not installed, or could not evaluate a bound.
    """
    gx = _great_expectations()
    suite = gx.ExpectationSuite(name="bounds", expectations=[_expectation(gx, bound) for bound in bounds])
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("memory").add_dataframe_asset("table")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": table})
    outcome = batch.validate(suite, result_format={"result_format": "BASIC", "partial_unexpected_count": 0})
    return dict(_verdict(result) for result in outcome.results)


def _great_expectations() -> Any:
    try:
        import great_expectations  # noqa: PLC0415 - takes seconds to import, and only this function needs it
    except ModuleNotFoundError as error:
        fix = "install it with `pip install elcrec[validate]`"
        raise UserError("validation needs Great Expectations", fix=fix) from error
    except ImportError as error:  # one of its libraries cannot be loaded, for example for lack of memory
        fix = "give the process more memory, or install it again"
        raise UserError(f"Great Expectations cannot be loaded ({error})", fix=fix) from error
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    return great_expectations


def _expectation(gx: Any, bound: Bound) -> Any:
    about = {"column": bound.column, "severity": bound.severity, "meta": {"name": bound.name}}
    limits = {"min_value": bound.minimum, "max_value": bound.maximum}
    return gx.expectations.ExpectColumnValuesToBeBetween(**about, **limits)


def _verdict(result: Any) -> tuple[str, bool]:
    name = result.expectation_config.meta["name"]
    if result.exception_info.get("raised_exception"):
        raise UserError(f"check {name!r} could not be evaluated ({result.exception_info})")
    return name, bool(result.success)
