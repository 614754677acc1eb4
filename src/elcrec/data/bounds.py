"""Limits on numbers: Great Expectations judges them, and the same limits pick the faulty rows."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from elcrec.errors import UserError

Severity = Literal["critical", "warning", "info"]

# The second sets a level of its own.
_CHATTY = ("great_expectations", "great_expectations.data_context.types.base")


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A column's values must be present (`required`), or lie within limits; an absent value breaks no limit.

    Attributes:
        name: unique among the bounds that are judged together.
        expected: the limit in words.
    """

    name: str
    column: str
    expected: str
    severity: Severity = "critical"
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None

    def broken_by(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Say for each value whether it breaks the bound; NaN is an absent value."""
        if self.required:
            return np.isnan(values)
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        broken: npt.NDArray[np.bool_] = (values < low) | (values > high)
        return broken


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What Great Expectations found: whether a bound holds, and how many values break it."""

    passed: bool
    broken: int


def judge(table: pd.DataFrame, bounds: Sequence[Bound]) -> dict[str, Verdict]:
    """Let Great Expectations check `bounds` on a table of numbers that has a row at least.

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
    except ImportError as error:
        fix = "install it with `pip install elcrec[validate]`"
        raise UserError("validation needs Great Expectations", fix=fix) from error
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    return great_expectations


def _expectation(gx: Any, bound: Bound) -> Any:
    about = {"column": bound.column, "severity": bound.severity, "meta": {"name": bound.name}}
    if bound.required:
        return gx.expectations.ExpectColumnValuesToNotBeNull(**about)
    limits = {"min_value": bound.minimum, "max_value": bound.maximum}
    return gx.expectations.ExpectColumnValuesToBeBetween(**about, **limits)


def _verdict(result: Any) -> tuple[str, Verdict]:
    name = result.expectation_config.meta["name"]
    if result.exception_info.get("raised_exception"):
        raise UserError(f"check {name!r} could not be evaluated ({result.exception_info})")
    return name, Verdict(passed=bool(result.success), broken=int(result.result["unexpected_count"]))
