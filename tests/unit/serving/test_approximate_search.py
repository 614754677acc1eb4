from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import torch

from elcrec.config import EncoderConfig, GroupRule, RulesConfig, SearchConfig, TrainConfig
from elcrec.data.ragged import Ragged
from elcrec.errors import UserError
from elcrec.evaluation.search import recall_of
from elcrec.model.sequence_model import SequenceModel
from elcrec.ranking.item_facts import ItemFacts, align
from elcrec.serving.bundle import Manifest
from elcrec.serving.catalogue import Catalogue
from elcrec.serving.recommender import Query, Recommender
from tests.support.additions import know_at_random

ITEMS, USERS = 900, 40
WIDE = SearchConfig(kind="approximate", probes=1000, oversampling=1000)
NARROW = SearchConfig(kind="approximate", probes=2, oversampling=2)
CAPS = RulesConfig(category_cap=2, categories={"c1": GroupRule(boost=0.5), "c2": GroupRule(cap=0)})
MIXED = RulesConfig(diversity=0.3, calibration=0.2, candidates=60)


@pytest.fixture(scope="module", params=[False, True], ids=["vectors alone", "and what is added"])
def model(request: pytest.FixtureRequest) -> SequenceModel:
    torch.manual_seed(3)
    settings = msgspec.structs.replace(TrainConfig().model, encoder=EncoderConfig(hidden_size=16, window=10))
    made = SequenceModel(settings, ITEMS)
    if request.param:
        know_at_random(made)
    return made


def facts() -> ItemFacts:
    table = pa.table(
        {
            "item_id": [f"i{item}" for item in range(ITEMS)],
            "category": [f"c{item % 7}" for item in range(ITEMS)],
            "available": [item % 5 != 0 for item in range(ITEMS)],
            "available_until": pa.nulls(ITEMS, pa.timestamp("us", tz="UTC")),
        }
    )
    return align(table, pa.array(table["item_id"].to_pylist()))


def recommender(model: SequenceModel, search: SearchConfig | None, rules: RulesConfig | None = None) -> Recommender:
    catalogue = Catalogue(
        item_ids=pa.array([f"i{item}" for item in range(ITEMS)]), counts=np.arange(ITEMS, dtype=np.int64)
    )
    manifest = Manifest(name="random", feature_service="none", sequences_md5="", split={}, files={})
    return Recommender(model, catalogue, manifest, {}, rules=rules, facts=facts(), search=search, seed=1)


def histories() -> Ragged:
    random = np.random.default_rng(5)
    return Ragged.from_rows([random.permutation(ITEMS)[: random.integers(1, 12)] + 1 for _ in range(USERS)])


def queries() -> list[Query]:
    filters: list[dict[str, Any]] = [
        {},
        {"deny": [f"i{item}" for item in range(0, ITEMS, 2)]},
        {"seen": [f"i{item}" for item in range(0, ITEMS, 3)]},
        {"allow": ["i1", "i2", "i3", "i5"]},
        {"categories": ["c3"]},
        {"deny_categories": ["c3", "c4"]},
    ]
    ids = [[f"i{item - 1}" for item in row] for row in iter_rows(histories())]
    return [Query(history=row, k=5 + number, **filters[number % len(filters)]) for number, row in enumerate(ids)]


def iter_rows(rows: Ragged) -> Iterator[list[int]]:
    return (rows.row(row).tolist() for row in range(len(rows)))


@pytest.mark.parametrize("rules", [None, CAPS, MIXED], ids=["no rules", "caps and boosts", "diversity, calibration"])
def test_candidates_that_cover_the_catalogue_give_the_exact_answers(
    model: SequenceModel, rules: RulesConfig | None
) -> None:
    found = recommender(model, WIDE, rules).recommend(queries())
    exact = recommender(model, None, rules).recommend(queries())

    assert [answer.item_ids for answer in found] == [answer.item_ids for answer in exact]
    assert [answer.intent for answer in found] == [answer.intent for answer in exact]
    for one, other in zip(found, exact, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rules", [None, CAPS, MIXED], ids=["no rules", "caps and boosts", "diversity, calibration"])
def test_excluded_items_are_not_shown_and_answers_are_complete(model: SequenceModel, rules: RulesConfig | None) -> None:
    asked = queries()
    exact = recommender(model, None, rules).recommend(asked)
    for query, answer, whole in zip(asked, recommender(model, NARROW, rules).recommend(asked), exact, strict=True):
        shown = {int(item[1:]) for item in answer.item_ids}
        assert not shown & {int(item[1:]) for item in (*query.history, *query.deny, *query.seen)}
        assert not {item for item in shown if item % 5 == 0}, "not available"
        assert query.allow is None or set(answer.item_ids) <= set(query.allow)
        assert query.categories is None or {item % 7 for item in shown} == {3}
        assert not (query.deny_categories and {item % 7 for item in shown} & {3, 4})
        assert len(answer.item_ids) == len(whole.item_ids)
        if rules is CAPS:
            groups = [item % 7 for item in shown]
            assert 2 not in groups
            assert max(map(groups.count, groups), default=0) <= 2


def test_a_user_gets_the_same_answer_alone_and_in_a_batch(model: SequenceModel) -> None:
    near, asked = recommender(model, NARROW), queries()

    together = near.recommend(asked)

    assert [near.recommend([query])[0].item_ids for query in asked] == [answer.item_ids for answer in together]


def test_fewer_probes_find_less_and_what_is_found_is_scored_exactly(model: SequenceModel) -> None:
    narrow, exact = recommender(model, NARROW), recommender(model, None)

    found, whole = next(iter(narrow.rank(histories(), 20))), next(iter(exact.rank(histories(), 20)))

    recall = recall_of(found.items, whole.items)
    by_hand = [len(set(a) & set(b)) / 20 for a, b in zip(found.items.tolist(), whole.items.tolist(), strict=True)]
    assert recall.tolist() == by_hand
    assert 0 < recall.mean() < 1
    scores = dict(zip(whole.items[0], whole.scores[0], strict=True))
    for item, score in zip(found.items[0], found.scores[0], strict=True):
        assert item not in scores or score == pytest.approx(scores[item], rel=1e-4)


def test_recall_counts_items_not_places_and_ignores_users_without_an_answer() -> None:
    exact, found = np.array([[3, 1, 2], [4, 5, 0], [0, 0, 0]]), np.array([[2, 3, 9], [0, 0, 0], [0, 0, 0]])

    assert recall_of(found, exact).tolist() == [pytest.approx(2 / 3), 0.0, 1.0]


def test_without_the_extra_one_line_says_what_to_do(model: SequenceModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)

    with pytest.raises(UserError, match=r"needs the extra index") as raised:
        recommender(model, NARROW)

    assert "\n" not in str(raised.value)
    assert recommender(model, None).index is None
