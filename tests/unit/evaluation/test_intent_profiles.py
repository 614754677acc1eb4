import numpy as np
import pytest

from elcrec.evaluation.intent_profiles import mean_cosines, moves, profile_intents


def test_profiles_are_means_over_the_users_of_an_intent_and_empty_where_it_has_none() -> None:
    intents, ranks = np.array([0, 0, 2]), np.array([1, 21, 3])
    table = profile_intents(intents, ranks, np.array([4, 8, 5]), 4)
    assert table.index.tolist() == [0, 1, 2, 3]
    assert table["hr@20"].tolist()[::2] == [0.5, 1.0]
    assert table["ndcg@20"].tolist()[::2] == [0.5, 1 / np.log2(4)]
    assert table["history_length"].tolist()[::2] == [6.0, 5.0]
    assert table.loc[0, "ndcg@20_error"] == pytest.approx(np.std([1, 0], ddof=1) / np.sqrt(2))
    assert table.loc[[1, 3]].isna().all().all()


def test_moves_between_intents_are_shares_and_the_last_column_holds_the_rest() -> None:
    before, after = np.array([7, 7, 7, 7, 3, 5]), np.array([7, 7, 3, 5, 3, 7])
    shares = moves(before, after, [3, 7, 9])
    assert shares[:2].tolist() == [[1, 0, 0, 0], [0.25, 0.5, 0, 0.25]]
    assert np.isnan(shares[2]).all()


def test_moves_of_an_intent_without_users_are_unknown() -> None:
    nobody = np.empty(0, np.int32)
    assert np.isnan(moves(nobody, nobody, [1, 2])).all()


def test_cosines_are_those_of_the_mean_vectors() -> None:
    vectors = np.array([[1, 0], [0, 1], [3, 0], [-1, 0]], np.float32)
    cosines = mean_cosines(vectors, np.array([0, 0, 1, 2]), [0, 1, 2, 5])
    assert cosines[0, 1] == pytest.approx(1 / np.sqrt(2))
    assert cosines[1, 2] == pytest.approx(-1)
    assert np.diag(cosines)[:3] == pytest.approx(1)
    assert np.isnan(cosines[3]).all()
