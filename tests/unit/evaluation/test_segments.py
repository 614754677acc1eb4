import numpy as np
import pandas as pd
import pytest

from elcrec.evaluation.metrics import mean_metrics
from elcrec.evaluation.segments import Segmentation, by_history_length, by_target_popularity, segment_table


def names(segmentation: Segmentation) -> list[str]:
    return [segmentation.groups[index] for index in segmentation.member]


def test_history_lengths_fall_into_their_bins() -> None:
    found = names(by_history_length(np.array([0, 1, 2, 3, 5, 6, 10, 11, 20, 21, 500])))
    assert found == ["0", "1-2", "1-2", "3-5", "3-5", "6-10", "6-10", "11-20", "11-20", "21+", "21+"]


def test_targets_are_unseen_tail_torso_or_head_by_the_counts_of_seen_items() -> None:
    counts = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 90])
    found = names(by_target_popularity(np.array([1, 2, 6, 7, 8, 9, 10]), counts))
    assert found == ["unseen (0)", *["tail (1-5)"] * 2, *["torso (6-7)"] * 2, *["head (8+)"] * 2]


@pytest.fixture
def table() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    ranks = {"model": generator.integers(1, 40, 300), "popularity": generator.integers(1, 90, 300)}
    parts = [by_history_length(generator.integers(1, 30, 300))]
    return segment_table(parts, ranks, samples=200, confidence=0.9, seed=1).assign(
        overall=mean_metrics(ranks["model"])["ndcg@20"]
    )


def test_groups_average_to_the_whole(table: pd.DataFrame) -> None:
    assert table["users"].sum() == 300
    assert np.average(table["ndcg@20"], weights=table["users"]) == pytest.approx(table["overall"][0])


def test_every_ranking_has_its_columns_and_the_model_an_interval(table: pd.DataFrame) -> None:
    assert {"hr@20", "ndcg@20", "popularity_hr@20", "popularity_ndcg@20"} <= set(table.columns)
    assert (table["ndcg@20_low"] <= table["ndcg@20"]).all()
    assert (table["ndcg@20"] <= table["ndcg@20_high"]).all()
