from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elcrec.data import dataset
from elcrec.data.dataset import SequenceData, load_user_ids, user_ids_of
from elcrec.data.ragged import Ragged
from elcrec.evaluation.sampling import asked_users

NAMES = [f"user {number}" for number in range(1000)]


def write(folder: Path, names: list[str], *, without: set[int] = frozenset()) -> SequenceData:
    """Users whose history is their number, once to three times, and whose target is one more."""
    rows = [[user + 1] * (1 + user % 3) + [user + 2] for user in range(len(names))]
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"user_id": names}), folder / "sequences.parquet", row_group_size=300)
    test = [-1 if user in without else len(row) - 1 for user, row in enumerate(rows)]
    return SequenceData(
        sequences=Ragged.from_rows(rows),
        train_end=np.zeros(len(rows), np.int32),
        targets={"test": np.array(test, np.int32)},
        num_items=len(names) + 1,
        md5="",
    )


def test_a_sample_holds_histories_and_targets_of_its_own_users(tmp_path: Path) -> None:
    odd = set(range(1, 1000, 2))
    chosen = asked_users(write(tmp_path, NAMES, without=odd), "test", 100, tmp_path)
    assert len(chosen.users) == 100
    assert not set(chosen.users.tolist()) & odd
    assert (np.diff(chosen.users) > 0).all()
    assert (chosen.target_items == chosen.users + 2).all()
    assert chosen.histories.lengths.tolist() == [1 + user % 3 for user in chosen.users]


def test_the_chosen_users_do_not_depend_on_other_users_or_the_order_of_the_log(tmp_path: Path) -> None:
    others = [*reversed(NAMES), *(f"another {number}" for number in range(50))]
    chosen = asked_users(write(tmp_path / "one", NAMES), "test", 100, tmp_path / "one")
    again = asked_users(write(tmp_path / "other", others), "test", 100, tmp_path / "other")
    ours, theirs = {NAMES[user] for user in chosen.users}, {others[user] for user in again.users}
    assert len(ours & theirs) >= 85


def test_a_sample_is_not_a_part_of_the_log_in_its_order(tmp_path: Path) -> None:
    chosen = asked_users(write(tmp_path, NAMES), "test", 200, tmp_path)
    assert 60 < (chosen.users < 500).sum() < 140


@pytest.mark.parametrize("count", [4, 5, None])
def test_as_many_as_there_are_means_all(tmp_path: Path, count: int | None) -> None:
    data = write(tmp_path, NAMES[:5], without={2})
    assert asked_users(data, "test", count, tmp_path).users.tolist() == [0, 1, 3, 4]


def test_ids_that_are_read_in_parts_give_the_same_sample_and_the_same_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path, NAMES)
    whole = asked_users(data, "test", 100, tmp_path).users
    monkeypatch.setattr(dataset, "_ROWS_AT_ONCE", 7)
    parts = asked_users(data, "test", 100, tmp_path).users
    assert parts.tolist() == whole.tolist()
    assert user_ids_of(tmp_path, parts).to_pylist() == load_user_ids(tmp_path).take(pa.array(whole)).to_pylist()
