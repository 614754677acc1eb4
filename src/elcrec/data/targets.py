"""The split of each user's sequence: training part, validation target, test target.

Axes: `N` events, `U` users.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from elcrec.data.sequences import Cuts

NO_TARGET = -1

Ints = npt.NDArray[np.int64]


class Parts(NamedTuple):
    """The parts of each sequence, [U] each.

    Attributes:
        train_end: the first `train_end` items are for training.
        valid, test: position of the target, NO_TARGET if there is none.
    """

    train_end: Ints
    valid: Ints
    test: Ints


def split(offsets: Ints, micros: Ints, cuts: Cuts | None, wanted: npt.NDArray[np.bool_] | None = None) -> Parts:
    """Split each sequence into its parts.

    Without cuts, the last item is the test target and the one before it the validation target. Sequences with fewer
    than 3 items are only for training, because a target needs a history that was trained on.

    With cuts, the training part is strictly before the first cut. A user's target is their first item from a cut on, if
    it has a history; a validation target is before the second cut.

    If only some events are `wanted` as targets, [N], targets are the last two wanted ones, or the first from a cut on.
    """
    if wanted is not None:
        return _split_at_wanted(offsets, micros, cuts, wanted)
    lengths = np.diff(offsets)
    if cuts is None:
        long = lengths >= 3  # noqa: PLR2004 - two targets and one item to train on
        ends = np.where(long, lengths - 2, lengths)
        return Parts(ends, np.where(long, lengths - 2, NO_TARGET), np.where(long, lengths - 1, NO_TARGET))
    before_valid, before_test = (np.add.reduceat(micros < cut, offsets[:-1], dtype=np.int64) for cut in cuts)
    valid = (before_valid > 0) & (before_valid < before_test)
    test = (before_test > 0) & (before_test < lengths)
    return Parts(
        train_end=before_valid,
        valid=np.where(valid, before_valid, NO_TARGET),
        test=np.where(test, before_test, NO_TARGET),
    )


def _split_at_wanted(offsets: Ints, micros: Ints, cuts: Cuts | None, wanted: npt.NDArray[np.bool_]) -> Parts:
    places, lengths = positions(offsets), np.diff(offsets)
    if cuts is None:
        test = _last(places, wanted, offsets)
        valid = _last(places, wanted & (places < np.repeat(test, lengths)), offsets)
        enough = valid > 0
        return Parts(np.where(enough, valid, lengths), *(np.where(enough, part, NO_TARGET) for part in (valid, test)))
    before = [np.add.reduceat(micros < cut, offsets[:-1], dtype=np.int64) for cut in cuts]
    ends = (cuts.test, np.iinfo(np.int64).max)
    found = [
        _first(places, wanted & (micros >= cut) & (micros < end), offsets) for cut, end in zip(cuts, ends, strict=True)
    ]
    known = before[0] > 0, before[1] > 0
    return Parts(before[0], *(np.where(has, part, NO_TARGET) for has, part in zip(known, found, strict=True)))


def _last(places: Ints, wanted: npt.NDArray[np.bool_], offsets: Ints) -> Ints:
    """Return the last wanted position of each user, NO_TARGET if there is none, [U]."""
    return np.maximum.reduceat(np.where(wanted, places, NO_TARGET), offsets[:-1])


def _first(places: Ints, wanted: npt.NDArray[np.bool_], offsets: Ints) -> Ints:
    """Return the first wanted position of each user, NO_TARGET if there is none, [U]."""
    none = np.iinfo(np.int64).max
    found = np.minimum.reduceat(np.where(wanted, places, none), offsets[:-1])
    return np.where(found == none, NO_TARGET, found)


def positions(offsets: Ints) -> Ints:
    """Return the position of each event in its user's sequence, [N]."""
    return np.arange(offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets))
