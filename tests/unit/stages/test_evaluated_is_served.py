"""What is evaluated is what is served: nothing that a user met, and what is left of a small catalogue."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elcrec.config import SequencesConfig
from elcrec.serving.recommender import Query, Recommender
from elcrec.stages.recommend import read_users
from tests.support.logs import case, written
from tests.support.small_run import SmallRun, run_on

pytestmark = pytest.mark.slow

ITEMS = 90


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """Users who have met 3, 6, 9 … items, the last ones all of them, more than a history's window."""
    folder = tmp_path_factory.mktemp("heavy")
    rows = [
        f"u{user},i{(user * 7 + step) % ITEMS},{1_709_272_104 + 60 * step}"
        for user in range(1, 41)
        for step in range(min(3 * user, ITEMS))
    ]
    return run_on(written(folder, rows), folder)


@pytest.mark.parametrize("k", [10, 90, 1000])
def test_nothing_that_a_user_met_is_recommended_whatever_the_length_of_the_history(heavy: SmallRun, k: int) -> None:
    answers = heavy.answers(k)
    assert len(answers) == 40
    for user, items in answers.items():
        assert not set(items) & set(heavy.met[user])
        assert len(items) == min(k, ITEMS - len(heavy.met[user]))
    assert answers["u40"] == answers["u30"] == []


def test_the_server_answers_what_the_batch_does(heavy: SmallRun) -> None:
    recommender, together = Recommender.load(heavy.bundle), heavy.answers(12)
    for row in pq.read_table(heavy.histories).to_pylist():
        query = Query(history=row["item_ids"], seen=row["seen_items"], k=12)
        (answer,) = recommender.recommend([query])
        assert set(answer.item_ids) == set(together[row["user_id"]])


def test_items_met_in_any_order_are_not_recommended(heavy: SmallRun) -> None:
    recommender = Recommender.load(heavy.bundle)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.integers(0, ITEMS - 1), max_size=3 * ITEMS), st.integers(1, 2 * ITEMS), st.integers(1, 60))
    def ask(met: list[int], k: int, window: int) -> None:
        items = [f"i{item}" for item in met]
        (answer,) = recommender.recommend([Query(history=items[-window:], seen=items[:-window], k=k)])
        assert not set(answer.item_ids) & set(items)
        assert len(answer.item_ids) == min(k, ITEMS - len(set(items)))

    ask()


def test_a_target_that_was_met_is_a_miss_however_few_items_there_are(tmp_path: Path) -> None:
    rows = [f"u{user},{'ab'[step % 2]},{1_709_272_104 + 60 * step}" for user in range(20) for step in range(6)]
    run = run_on(written(tmp_path, rows), tmp_path)
    assert run.metrics["hr@20"] == 0
    assert run.metrics["repeat_target_share"] == 1
    assert set(map(tuple, run.answers(10).values())) == {()}


def test_the_case_of_a_catalogue_that_was_seen_as_a_whole(tmp_path: Path) -> None:
    run = run_on(case("12_whole_catalogue_seen.csv"), tmp_path)
    every = set().union(*run.met.values())
    for user, items in run.answers(10).items():
        assert len(items) == min(10, len(every) - len(run.met[user]))
    assert [] in run.answers(10).values()


def test_the_case_of_always_the_same_item(tmp_path: Path) -> None:
    assert run_on(case("13_always_the_same_item.csv"), tmp_path).metrics["hr@20"] == 0


def test_the_case_of_long_histories(tmp_path: Path) -> None:
    run = run_on(case("15_long_histories.csv"), tmp_path)
    assert sum(len(set(items) & set(run.met[user])) for user, items in run.answers(20).items()) == 0


def test_the_case_of_eight_items_shows_what_there_is(tmp_path: Path) -> None:
    allow = SequencesConfig(repeats="allow")
    run = run_on(case("30_eight_items.csv"), tmp_path, allow, min_items=5)
    assert {len(items) for items in run.answers(10).values()} == {8}


def test_a_log_of_music_warns_of_repeats_and_can_allow_them(tmp_path: Path) -> None:
    refused = run_on(case("32_music_repeats.csv"), tmp_path / "exclude")
    allowed = run_on(case("32_music_repeats.csv"), tmp_path / "allow", SequencesConfig(repeats="allow"))
    assert refused.metrics["repeat_target_share"] > 0.9
    assert allowed.metrics["hr@20"] > refused.metrics["hr@20"]
    assert any(set(items) & set(allowed.met[user]) for user, items in allowed.answers(20).items())


def test_the_case_of_ids_with_blanks_has_an_id_a_line() -> None:
    assert len(read_users(case("14_users.txt"))) == 2
