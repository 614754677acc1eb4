from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elcrec.data.ragged import Ragged
from elcrec.errors import UserError
from elcrec.evaluation.intents import (
    RECENT,
    Truth,
    agreement,
    dominant_labels,
    effective_number,
    load_truth,
    nmi,
    typical_items,
)

labellings = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


def test_the_effective_number_counts_equal_intents_and_ignores_empty_ones() -> None:
    assert effective_number(np.array([7, 7, 7, 0])) == pytest.approx(3)
    assert effective_number(np.array([0, 50])) == pytest.approx(1)


@settings(deadline=None)
@given(labellings)
def test_nmi_equals_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    labels, truth = np.array(pairs).T
    assert nmi(labels, truth) == pytest.approx(metrics.normalized_mutual_info_score(truth, labels), abs=1e-9)


def test_nmi_ignores_the_names_of_the_labels() -> None:
    labels = np.array([0, 0, 1, 2, 2])
    assert nmi(labels, np.array([9, 9, 4, 7, 7])) == pytest.approx(1)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=14), min_size=1, max_size=5))
def test_the_dominant_label_is_the_most_frequent_recent_one_the_last_of_equals(rows: list[list[int]]) -> None:
    labels = np.array([-1, 0, 1, 2, 0, 1, 2])
    expected = []
    for row in rows:
        recent = [int(labels[item]) for item in row[-RECENT:]]
        times = Counter(recent)
        expected.append(max(times, key=lambda label: (times[label], len(recent) - recent[::-1].index(label))))
    assert dominant_labels(Ragged.from_rows(rows), labels).tolist() == expected


def test_typical_items_are_ordered_by_lift_and_need_enough_users() -> None:
    histories = Ragged.from_rows([[1, 2, 2]] * 4 + [[1, 3]] * 3 + [[1, 4], [1, 4], [1]])
    intents = np.array([0] * 4 + [1] * 6)
    first, second, empty = typical_items(intents, histories, 3, 5, 8)
    assert first == [{"item": 2, "users": 4, "lift": 2.5}, {"item": 1, "users": 4, "lift": 1.0}]
    assert [entry["item"] for entry in second] == [3, 1]
    assert second[0]["lift"] == pytest.approx((3 / 6) / (3 / 10))
    assert empty == []
    assert len(typical_items(intents, histories, 3, 5, 1)[0]) == 1


def test_perfect_intents_agree_with_the_truth_and_shuffled_ones_do_not() -> None:
    intents = np.arange(300) % 3
    histories = Ragged.from_rows([[1 + intent] * 2 for intent in intents])
    truth = Truth(items=np.array([-1, 2, 0, 1]), users=np.where(intents == 0, -1, intents))
    found = agreement(intents, histories, truth, seed=1)
    assert found["intent_nmi"] == pytest.approx(1)
    assert found["intent_nmi_single"] == pytest.approx(1)
    assert found["intent_nmi_chance"] < 0.05


def write_truth(folder: Path) -> Path:
    pq.write_table(
        pa.table({"item_id": ["a", "b"], "intent": pa.array([0, 1], pa.int32())}), folder / "truth_items.parquet"
    )
    users = pa.table({"user_id": ["u", "v"], "intents": pa.array([[1], [0, 1]], pa.list_(pa.int32()))})
    pq.write_table(users, folder / "truth_users.parquet")
    return folder


def test_the_truth_follows_the_order_of_indices_and_users(tmp_path: Path) -> None:
    truth = load_truth(write_truth(tmp_path), ["b", "a"], ["v", "u"])
    assert truth is not None
    assert truth.items.tolist() == [-1, 1, 0]
    assert truth.users.tolist() == [-1, 1]


def test_a_folder_without_truth_gives_none(tmp_path: Path) -> None:
    assert load_truth(tmp_path, ["a"], ["u"]) is None


def test_a_truth_about_other_items_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not know 'c'"):
        load_truth(write_truth(tmp_path), ["a", "c"], ["u"])


def test_a_damaged_truth_is_refused(tmp_path: Path) -> None:
    write_truth(tmp_path)
    (tmp_path / "truth_users.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="not readable"):
        load_truth(tmp_path, ["a"], ["u"])
