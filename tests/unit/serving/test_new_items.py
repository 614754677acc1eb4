"""New items, from the bundle to the answer: ranked, read, masked, capped and marked."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from elcrec.config import EncoderConfig, GroupRule, ModelConfig, RulesConfig
from elcrec.data.ragged import Ragged
from elcrec.errors import UserError
from elcrec.model.io import load_model
from elcrec.model.sequence_model import SequenceModel
from elcrec.ranking.new_items import NewItems, read_new_items
from elcrec.serving.catalogue import Catalogue
from elcrec.serving.new_items import with_new_items
from elcrec.serving.recommender import Query, Recommender
from elcrec.stages.recommend_all import recommend_all
from tests.support.additions import scores_by_hand
from tests.support.new_items import TWINS, add_new_items
from tests.support.push_inputs import Inputs, bundle_of, make_inputs

ITEMS = 15


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("new") / "inputs")


@pytest.fixture(scope="module")
def plain(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return Recommender.load(bundle_of(inputs, tmp_path_factory.mktemp("plain") / "bundle"))


@pytest.fixture(scope="module")
def bundle(inputs: Inputs, plain: Recommender, tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert plain.new_V is None
    return bundle_of(add_new_items(inputs), tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="module")
def recommender(bundle: Path) -> Recommender:
    return Recommender.load(bundle)


def _of_vectors(inputs: Inputs, *, popularity: bool) -> SequenceModel:
    """The model without neighbours and followers, which new items have not, and perhaps without popularity."""
    model = load_model(inputs.model)
    model.neighbours = model.followers = None
    if not popularity:
        model.popularity_V = None
    return model


def test_a_new_item_scores_what_the_vector_of_its_twin_does(inputs: Inputs, recommender: Recommender) -> None:
    products = scores_by_hand(_of_vectors(inputs, popularity=False), [1, 2])

    (answer,) = recommender.recommend([Query(history=["item-1", "item-2"], k=ITEMS)])

    scores = dict(zip(answer.item_ids, answer.scores, strict=True))
    assert len(scores) == ITEMS, "the catalogue is wider by two, and two items were met"
    for item, twin in TWINS.items():
        assert scores[item] == pytest.approx(products[twin], abs=1e-5)
    assert answer.new == [item in TWINS for item in answer.item_ids]


def test_a_history_of_new_items_is_read_like_that_of_their_twins(inputs: Inputs, recommender: Recommender) -> None:
    shown = ["item-1", "item-2", "item-4"]
    products = scores_by_hand(_of_vectors(inputs, popularity=True), [3, 7, 5])

    answer, twins = recommender.recommend(
        [
            Query(history=history, k=3, allow=shown)
            for history in (["new-1", "item-9", "new-2"], ["item-3", "item-7", "item-5"])
        ]
    )

    assert (answer.known, answer.skipped, answer.fallback) == (3, 0, False)
    assert dict(zip(answer.item_ids, answer.scores, strict=True)) == pytest.approx(
        {item_id: products[int(item_id.removeprefix("item-"))] for item_id in shown}, abs=1e-5
    )
    assert answer.intent == twins.intent


def test_a_new_item_that_was_met_or_denied_is_not_shown_and_one_that_is_allowed_is(recommender: Recommender) -> None:
    met, denied, allowed = recommender.recommend(
        [
            Query(history=["item-1", "new-1"], k=20, seen=["new-2"]),
            Query(history=["item-1"], k=20, deny=["new-1", "item-9"]),
            Query(history=["item-1"], k=20, allow=["new-2"]),
        ]
    )

    assert not {"new-1", "new-2"} & set(met.item_ids)
    assert not {"new-1", "item-9"} & set(denied.item_ids)
    assert allowed.item_ids == ["new-2"]


def _with_twins_as_one(item_ids: list[str]) -> list[str]:
    """A new item and its twin score alike up to rounding, which differs between one row and many on some processors."""
    return [f"item-{TWINS[item]}" if item in TWINS else item for item in item_ids]


def test_a_query_alone_gets_the_same_answer_as_in_a_batch(recommender: Recommender) -> None:
    queries = [Query(history=["new-1", f"item-{item}"], k=6) for item in range(1, 13)]

    batch = recommender.recommend(queries)
    for query, expected in zip(queries, batch, strict=True):
        (alone,) = recommender.recommend([query])
        assert _with_twins_as_one(alone.item_ids) == _with_twins_as_one(expected.item_ids)
        np.testing.assert_allclose(alone.scores, expected.scores, atol=1e-5)


def test_the_model_s_other_items_score_as_before(plain: Recommender, recommender: Recommender) -> None:
    query = Query(history=["item-1", "item-2"], k=ITEMS, deny=list(TWINS))

    (before,), (after,) = plain.recommend([query]), recommender.recommend([query])

    assert after.item_ids == before.item_ids
    np.testing.assert_allclose(after.scores, before.scores, atol=1e-5)


def test_users_without_a_history_meet_new_items_last(recommender: Recommender) -> None:
    (answer,) = recommender.recommend([Query(history=[], k=ITEMS + 2)])

    assert answer.item_ids[-2:] == ["new-1", "new-2"]
    assert answer.scores[-2:] == [0, 0]


@pytest.mark.parametrize("cap", [0, 1, 2])
def test_a_cap_on_new_items_holds_and_leaves_the_order_of_the_others(
    inputs: Inputs, recommender: Recommender, tmp_path: Path, cap: int
) -> None:
    add_new_items(inputs, RulesConfig(new_items=GroupRule(cap=cap)))
    capped = Recommender.load(bundle_of(inputs, tmp_path / "bundle"))

    for item in range(1, ITEMS + 1):
        query = Query(history=[f"item-{item}"], k=20)
        (free,), (held,) = recommender.recommend([query]), capped.recommend([query])
        assert held.new is not None
        assert sum(held.new) == min(cap, sum(free.new or []))
        assert [each for each in held.item_ids if each not in TWINS] == [
            each for each in free.item_ids if each not in TWINS
        ]


def test_a_boost_lifts_new_items_and_leaves_their_scores(
    inputs: Inputs, recommender: Recommender, tmp_path: Path
) -> None:
    add_new_items(inputs, RulesConfig(new_items=GroupRule(boost=20)))
    query = Query(history=["item-1"], k=3)

    (lifted,) = Recommender.load(bundle_of(inputs, tmp_path / "bundle")).recommend([query])

    assert set(lifted.item_ids) == set(TWINS)
    (plain,) = recommender.recommend([Query(history=["item-1"], k=20, allow=list(TWINS))])
    assert sorted(lifted.scores) == pytest.approx(sorted(plain.scores))


def test_recommending_for_all_users_ranks_and_marks_new_items(
    bundle: Path, recommender: Recommender, tmp_path: Path
) -> None:
    histories = {"ann": ["item-1", "new-1"], "bob": ["item-2"]}
    columns = {"user_id": list(histories), "item_ids": pa.array(histories.values(), pa.list_(pa.string()))}
    pq.write_table(pa.table(columns), tmp_path / "histories.parquet")

    recommend_all(bundle, tmp_path / "histories.parquet", tmp_path / "out.parquet", 8)

    found = pq.read_table(tmp_path / "out.parquet")
    expected = recommender.recommend([Query(history=each, k=8) for each in histories.values()])
    assert found["item_ids"].to_pylist() == [each.item_ids for each in expected]
    assert found["new"].to_pylist() == [each.new for each in expected]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.replace_schema_metadata({"schema_version": "9"}), "schema version 9"),
        (lambda table: table.replace_schema_metadata(None), "schema version unknown"),
        (lambda table: table.drop_columns("vector"), "not readable"),
        (lambda table: pa.concat_tables([table, table]), "occurs twice"),
    ],
)
def test_a_file_that_is_not_sound_is_refused(bundle: Path, tmp_path: Path, change: object, message: str) -> None:
    assert callable(change)
    shutil.copyfile(bundle / "new_items.parquet", tmp_path / "new_items.parquet")
    pq.write_table(change(pq.read_table(tmp_path / "new_items.parquet")), tmp_path / "new_items.parquet")

    with pytest.raises(UserError, match=message):
        read_new_items(tmp_path, 8)


def test_vectors_of_another_width_are_refused(bundle: Path) -> None:
    with pytest.raises(UserError, match="not of 16 numbers"):
        read_new_items(bundle, 16)


def test_a_model_that_scores_by_the_cosine_reads_and_ranks_trained_items_as_without_new_ones() -> None:
    torch.manual_seed(0)
    encoder = EncoderConfig(window=5, hidden_size=8, num_blocks=1)
    model = SequenceModel(ModelConfig(encoder=encoder, head="cosine"), num_items=4).eval()
    catalogue = Catalogue(item_ids=pa.array(["a", "b", "c", "d"]), counts=np.array([4, 3, 2, 1]))
    new = NewItems(item_ids=pa.array(["e"]), vectors_WD=np.full((1, 8), 2.0, np.float32), sources=pa.array(["co_seen"]))
    history = Ragged.from_rows([[1, 2, 3]])

    served = with_new_items(model, catalogue, new).model

    torch.testing.assert_close(served.encode(history).vectors, model.encode(history).vectors)
    torch.testing.assert_close(served.item_vectors()[:5], model.item_vectors())
    torch.testing.assert_close(served.item_vectors()[5].norm(), torch.ones(()))
