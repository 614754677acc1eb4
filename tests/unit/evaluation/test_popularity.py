import numpy as np
import pytest

from elcrec.data.dataset import SequenceData
from elcrec.data.ragged import Ragged
from elcrec.evaluation.popularity import exposure, gini, popularity_percentile, rank_by_popularity, training_counts


def test_ties_in_popularity_count_against_the_target() -> None:
    ranks = rank_by_popularity(np.array([0, 5, 5, 1]), Ragged.from_rows([[], [1]]), np.array([1, 2]))
    assert ranks.tolist() == [2, 1]


def test_repeated_history_items_are_excluded_once() -> None:
    ranks = rank_by_popularity(np.array([0, 9, 8, 1]), Ragged.from_rows([[1, 1, 1]]), np.array([3]))
    assert ranks.tolist() == [2]


def test_training_counts_include_items_without_interactions() -> None:
    data = SequenceData(
        sequences=Ragged.from_rows([[1, 3, 4], [3, 2]]),
        train_end=np.array([2, 1], np.int32),
        targets={},
        num_items=4,
        md5="",
    )
    assert training_counts(data).tolist() == [0, 1, 0, 2, 0]


def test_exposure_leaves_missing_items_out() -> None:
    shown = exposure(np.array([[1, 2], [1, 0]]), np.array([0, 10, 4, 1, 1]))
    assert shown.coverage == 0.5
    assert shown.mean_count == 8


def test_gini_is_zero_for_equal_shares_and_near_one_for_a_single_item() -> None:
    assert gini(np.array([3, 3, 3])) == pytest.approx(0)
    assert gini(np.array([0] * 99 + [7])) == pytest.approx(0.99)
    assert gini(np.zeros(4, np.int64)) == 0


def test_percentiles_average_a_half_whatever_the_ties() -> None:
    percentile = popularity_percentile(np.array([0, 1, 1, 1, 7, 2]))
    assert percentile[1:].mean() == pytest.approx(0.5)
    assert percentile[4] == pytest.approx(0.9)
