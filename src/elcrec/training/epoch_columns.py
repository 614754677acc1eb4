"""The columns of history.csv, which has one row per epoch: the loss terms are between the common columns."""

from collections.abc import Iterable, Sequence

_BEFORE = ("epoch", "loss")
_AFTER = ("valid_ndcg@20", "valid_hr@20", "effective_intents")
SECONDS = "seconds"
"""Column of the seconds of an epoch, now in measured.json, in earlier versions in history.csv."""


def columns_for(terms: Sequence[str]) -> list[str]:
    """Return the columns for a loss of these terms."""
    return [*_BEFORE, *terms, *_AFTER]


def terms_among(columns: Iterable[str]) -> list[str]:
    """Return those columns that are terms of the loss."""
    return [name for name in columns if name not in (*_BEFORE, *_AFTER, SECONDS)]
