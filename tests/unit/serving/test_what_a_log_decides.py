"""What the sequences stage decided of a log reaches the server with the bundle: repeats, dislikes, merged events."""

import pyarrow as pa
import pytest

from elcrec.artifacts import read_json, write_json
from elcrec.data.ragged import Ragged
from elcrec.data.split_points import DISLIKED
from elcrec.serving.recommender import Query, Recommender
from tests.support.push_inputs import bundle_of, make_inputs

EVERY = {f"item-{number}" for number in range(1, 16)}
SEEN = ["item-4", f"{DISLIKED}item-5"]


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    root = tmp_path_factory.mktemp("inputs")
    inputs = make_inputs(root)
    split = inputs.sequences / "split.json"
    more = {"repeats": "allow", "consecutive": "merge", "kinds": {"dislikes": ["no"]}}
    write_json(split, read_json(split) | more)
    return Recommender.load(bundle_of(inputs, root / "bundle"))


@pytest.mark.parametrize("history", [[], ["item-3"]])
def test_where_repeats_are_allowed_dislikes_alone_are_left_out(recommender: Recommender, history: list[str]) -> None:
    (answer,) = recommender.recommend([Query(history=history, seen=SEEN, k=15)])
    assert set(answer.item_ids) == EVERY - {"item-5"}


def test_the_bundle_names_the_kinds_of_dislikes(recommender: Recommender) -> None:
    assert list(recommender.dislikes) == ["no"]


def test_a_batch_leaves_out_the_same(recommender: Recommender) -> None:
    lists = pa.array([["item-1"], SEEN, [f"{DISLIKED}item-6", f"{DISLIKED}item-7"], []], pa.list_(pa.string()))
    assert recommender.unwanted(lists).to_pylist() == [[], ["item-5"], ["item-6", "item-7"], []]
    assert recommender.unwanted(lists.slice(1, 2)).to_pylist() == [["item-5"], ["item-6", "item-7"]]
    (ranked,) = recommender.rank(Ragged.from_rows([[3], [3]]), 15, Ragged.from_rows([[], [5]]))
    left = [
        {int(item) for item, score in zip(*row, strict=True) if score > -1e30}
        for row in zip(ranked.items, ranked.scores, strict=True)
    ]
    assert left == [set(range(1, 16)), set(range(1, 16)) - {5}]


def test_live_events_that_repeat_the_one_before_are_merged_as_in_training(recommender: Recommender) -> None:
    once, twice, apart = recommender.recommend(
        [
            Query(history=history, k=15)
            for history in (["item-3", "item-4"], ["item-3", "item-3", "item-4"], ["item-3", "item-4", "item-3"])
        ]
    )
    assert twice.scores == pytest.approx(once.scores, rel=1e-5)
    assert apart.scores != pytest.approx(once.scores, rel=1e-5)


@pytest.mark.parametrize("history", [["item-3", "item-3", "item-4"], ["item-3", "item-4", "item-4", "item-3"]])
def test_reasons_are_falls_of_the_scores_that_were_given(recommender: Recommender, history: list[str]) -> None:
    rest = {item: [other for other in history if other != item] for item in set(history)}
    full, *without = recommender.recommend(
        [Query(history=history, k=15, explain=True), *(Query(history=left, k=15) for left in rest.values())]
    )
    scores = dict(zip(full.item_ids, full.scores, strict=True))
    assert full.reasons is not None
    found = {
        (item, each.item_id): each.contribution for item, why in zip(scores, full.reasons, strict=True) for each in why
    }
    for left_out, answer in zip(rest, without, strict=True):
        for item, score in zip(answer.item_ids, answer.scores, strict=True):
            fall = scores[item] - score
            assert found.get((item, left_out), 0) == pytest.approx(max(fall, 0), abs=1e-4)
    assert found


def test_rows_without_repeats() -> None:
    rows = Ragged.from_rows([[1, 1, 2], [], [2, 2], [3, 4, 3]]).without_repeats()
    assert [rows.row(index).tolist() for index in range(4)] == [[1, 2], [], [2], [3, 4, 3]]
    joined = rows.followed_by(Ragged.from_rows([[9], [8], [], [7, 6]]))
    assert [joined.row(index).tolist() for index in range(4)] == [[1, 2, 9], [8], [2], [3, 4, 3, 7, 6]]
