import numpy as np
import pyarrow as pa

from elcrec.data.dataset import EvaluationSet
from elcrec.data.ragged import Ragged
from elcrec.evaluation.sampling import sample_users


def _asked(users: list[int]) -> EvaluationSet:
    rows = [[user + 1] * (1 + user % 3) for user in users]
    return EvaluationSet(users=np.array(users), histories=Ragged.from_rows(rows), target_items=np.array(users) + 1)


def _ids(names: list[str]) -> pa.ChunkedArray:
    return pa.chunked_array([names[:3], names[3:]])


NAMES = [f"user {number}" for number in range(1000)]


def test_a_sample_holds_histories_and_targets_of_its_own_users() -> None:
    users = list(range(0, 1000, 2))
    chosen = sample_users(_asked(users), 100, _ids(NAMES))
    assert len(chosen.users) == 100
    assert set(chosen.users) <= set(users)
    assert (np.diff(chosen.users) > 0).all()
    assert (chosen.target_items == chosen.users + 1).all()
    assert chosen.histories.lengths.tolist() == [1 + user % 3 for user in chosen.users]


def test_the_same_users_are_chosen_whatever_else_the_log_holds_and_however_it_is_ordered() -> None:
    chosen = sample_users(_asked(list(range(1000))), 100, _ids(NAMES))
    others = [*reversed(NAMES), *(f"another {number}" for number in range(50))]
    again = sample_users(_asked(list(range(1050))), 100, _ids(others))
    ours, theirs = {NAMES[user] for user in chosen.users}, {others[user] for user in again.users}
    assert len(ours & theirs) >= 85


def test_a_sample_is_not_a_part_of_the_log_in_its_order() -> None:
    chosen = sample_users(_asked(list(range(1000))), 200, _ids(NAMES))
    assert 60 < (chosen.users < 500).sum() < 140


def test_as_many_as_there_are_means_all() -> None:
    asked = _asked([1, 2, 3, 5])
    assert sample_users(asked, 4, _ids(NAMES)) is asked
