"""The columns of history.csv, a row an epoch: the terms of the loss stand between what every training has."""

from collections.abc import Iterable, Sequence

_BEFORE = ("epoch", "loss")
_AFTER = ("valid_ndcg@20", "valid_hr@20", "effective_intents")
SECONDS = "seconds"
"""How long an epoch took: measured.json has it, and the history.csv of earlier versions."""


def columns_for(terms: Sequence[str]) -> list[str]:
    """Return the columns for a loss of these terms."""
    return [*_BEFORE, *terms, *_AFTER]


def terms_among(columns: Iterable[str]) -> list[str]:
    """Return those columns that are terms of the loss."""
    return [name for name in columns if name not in (*_BEFORE, *_AFTER, SECONDS)]
