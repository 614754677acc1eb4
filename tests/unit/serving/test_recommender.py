from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from elcrec.errors import UserError
from elcrec.model.io import load_model
from elcrec.serving.bundle import BundleSource, describe_bundle, write_bundle
from elcrec.serving.recommender import Query, Recommendation, Recommender
from tests.support.additions import scores_by_hand
from tests.support.push_inputs import Inputs, bundle_of, make_inputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def recommender(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return Recommender.load(bundle_of(inputs, tmp_path_factory.mktemp("bundle") / "bundle"))


def ask(recommender: Recommender, histories: list[list[str]], k: int) -> list[Recommendation]:
    return recommender.recommend([Query(history=history, k=k) for history in histories])


def histories_of(inputs: Inputs) -> list[list[str]]:
    return pq.read_table(inputs.sequences / "histories.parquet")["item_ids"].to_pylist()


def test_equals_scoring_every_item_by_hand(inputs: Inputs, recommender: Recommender) -> None:
    model = load_model(inputs.model)
    histories = histories_of(inputs)

    answers = ask(recommender, histories, 5)

    for history, answer in zip(histories, answers, strict=True):
        row = [int(item.removeprefix("item-")) for item in history]
        scores = scores_by_hand(model, row)
        order = [i for i in np.argsort(-scores, kind="stable") if i not in row and i != 0][:5]
        assert answer.item_ids == [f"item-{index}" for index in order]
        np.testing.assert_allclose(answer.scores, scores[order], rtol=1e-5)
        assert answer.intent in range(3)
        assert (answer.known, answer.skipped, answer.fallback) == (len(row), 0, False)


def test_a_batch_of_different_queries_is_answered_as_each_alone(inputs: Inputs, recommender: Recommender) -> None:
    histories = [*histories_of(inputs), [], ["nobody"]]
    filters: list[dict[str, object]] = [
        {},
        {"allow": {"item-3", "item-4", "item-5", "nothing"}},
        {"deny": ["item-1", "item-2"]},
        {"allow": ["item-6", "item-7"], "deny": ["item-7"]},
        {"allow": []},
    ]
    queries = [
        Query(history=history, k=1 + row % 15, **filters[row % len(filters)])  # type: ignore[arg-type]
        for row, history in enumerate(histories * 12)
    ]

    together = recommender.recommend(queries)

    for query, answer in zip(queries, together, strict=True):
        (alone,) = recommender.recommend([query])
        assert answer.item_ids == alone.item_ids
        assert (answer.intent, answer.known, answer.fallback) == (alone.intent, alone.known, alone.fallback)
        np.testing.assert_allclose(answer.scores, alone.scores, rtol=1e-5)
        allowed = {f"item-{index}" for index in range(1, 16)} if query.allow is None else set(query.allow)
        assert set(answer.item_ids) <= allowed - set(query.deny) - set(query.history)
        left = (allowed & {f"item-{index}" for index in range(1, 16)}) - set(query.deny) - set(query.history)
        assert len(answer.item_ids) == min(query.k, len(left))


def test_filters_keep_the_order_of_what_they_leave(inputs: Inputs, recommender: Recommender) -> None:
    history = histories_of(inputs)[0]
    (whole,) = ask(recommender, [history], 15)
    allow = whole.item_ids[1::2]

    (filtered,) = recommender.recommend([Query(history=history, k=15, allow=allow, deny=allow[:1])])

    assert filtered.item_ids == allow[1:]


def test_the_fallback_is_popular_within_the_filters(recommender: Recommender) -> None:
    (popular,) = ask(recommender, [[]], 15)
    allow = set(popular.item_ids[3:9])

    (answer,) = recommender.recommend([Query(history=[], k=3, allow=allow, deny=popular.item_ids[3:4])])

    assert answer.fallback
    assert answer.item_ids == popular.item_ids[4:7]


def test_unknown_items_are_skipped_and_counted(recommender: Recommender) -> None:
    plain, mixed = ask(recommender, [["item-1", "item-2"], ["item-1", "lost", "item-2", "gone"]], 3)

    assert mixed.item_ids == plain.item_ids
    assert (mixed.known, mixed.skipped) == (2, 2)


@pytest.mark.parametrize("history", [[], ["lost"]])
def test_no_known_history_falls_back_to_popular_items(
    inputs: Inputs, recommender: Recommender, history: list[str]
) -> None:
    items = pq.read_table(inputs.sequences / "items.parquet").to_pandas()
    popular = items.sort_values(["count", "item_index"], ascending=[False, True])["item_id"].head(4)

    (answer,) = ask(recommender, [history], 4)

    assert answer.fallback
    assert answer.intent is None
    assert answer.item_ids == popular.tolist()
    assert answer.scores == sorted(answer.scores, reverse=True)


def test_a_history_of_nearly_all_items_leaves_fewer_than_k_recommendations(recommender: Recommender) -> None:
    (answer,) = ask(recommender, [[f"item-{index}" for index in range(1, 14)]], 10)

    assert set(answer.item_ids) == {"item-14", "item-15"}


def test_an_intent_is_explained_by_typical_items_if_the_evaluation_found_it(recommender: Recommender) -> None:
    assert recommender.typical_items(1) == ["typical-1"]
    assert recommender.typical_items(2) == []


def test_no_request_gives_no_answer(recommender: Recommender) -> None:
    assert recommender.recommend([]) == []


def test_a_bundle_whose_parts_do_not_fit_is_refused(inputs: Inputs, tmp_path: Path) -> None:
    other = make_inputs(tmp_path, items=16)
    # The same md5 claim, another catalogue.
    items = pq.read_table(other.sequences / "items.parquet")
    source = BundleSource(model=inputs.model, sequences=inputs.sequences, evaluation=inputs.evaluation)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in inputs.sequences.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    pq.write_table(items, copy / "items.parquet")
    mixed = BundleSource(model=source.model, sequences=copy, evaluation=source.evaluation)
    write_bundle(mixed, describe_bundle(mixed, name="m", feature_service="s", feature_schema="d"), tmp_path / "bundle")

    with pytest.raises(UserError, match=r"knows 15 items, but items\.parquet has 16"):
        Recommender.load(tmp_path / "bundle")
