from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from support.push_inputs import Inputs, make_inputs

from elcrec.data.ragged import Ragged
from elcrec.errors import UserError
from elcrec.model.io import load_model
from elcrec.serving.bundle import BundleSource, describe_bundle, write_bundle
from elcrec.serving.recommender import Recommender


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def recommender(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    source = BundleSource(model=inputs.model, sequences=inputs.sequences, evaluation=inputs.evaluation)
    bundle = tmp_path_factory.mktemp("bundle") / "bundle"
    write_bundle(source, describe_bundle(source, name="m", feature_service="s"), bundle)
    return Recommender.load(bundle)


def histories_of(inputs: Inputs) -> list[list[str]]:
    return pq.read_table(inputs.sequences / "histories.parquet")["item_ids"].to_pylist()


def test_equals_scoring_every_item_by_hand(inputs: Inputs, recommender: Recommender) -> None:
    model = load_model(inputs.model)
    histories = histories_of(inputs)

    answers = recommender.recommend(histories, 5)

    for history, answer in zip(histories, answers, strict=True):
        row = [int(item.removeprefix("item-")) for item in history]
        state = model.encode(Ragged.from_rows([row])).vectors[0]
        with torch.inference_mode():
            scores = (model.item_vectors() @ state).numpy()
        order = [i for i in np.argsort(-scores, kind="stable") if i not in row and i != 0][:5]
        assert answer.item_ids == [f"item-{index}" for index in order]
        np.testing.assert_allclose(answer.scores, scores[order], rtol=1e-5)
        assert answer.intent in range(3)
        assert (answer.known, answer.skipped, answer.fallback) == (len(row), 0, False)


def test_blocks_change_no_answer(inputs: Inputs, recommender: Recommender) -> None:
    histories = [*histories_of(inputs), [], ["nobody"]]

    whole, blocks = (recommender.recommend(histories, 4, block_users=size) for size in (1024, 5))

    assert [answer.item_ids for answer in whole] == [answer.item_ids for answer in blocks]


def test_unknown_items_are_skipped_and_counted(recommender: Recommender) -> None:
    plain, mixed = recommender.recommend([["item-1", "item-2"], ["item-1", "lost", "item-2", "gone"]], 3)

    assert mixed.item_ids == plain.item_ids
    assert (mixed.known, mixed.skipped) == (2, 2)


@pytest.mark.parametrize("history", [[], ["lost"]])
def test_no_known_history_falls_back_to_popular_items(
    inputs: Inputs, recommender: Recommender, history: list[str]
) -> None:
    items = pq.read_table(inputs.sequences / "items.parquet").to_pandas()
    popular = items.sort_values(["count", "item_index"], ascending=[False, True])["item_id"].head(4)

    (answer,) = recommender.recommend([history], 4)

    assert answer.fallback
    assert answer.intent is None
    assert answer.item_ids == popular.tolist()
    assert answer.scores == sorted(answer.scores, reverse=True)


def test_a_history_of_almost_everything_leaves_fewer_than_k(recommender: Recommender) -> None:
    (answer,) = recommender.recommend([[f"item-{index}" for index in range(1, 14)]], 10)

    assert set(answer.item_ids) == {"item-14", "item-15"}


@pytest.mark.parametrize("k", [0, -1, 16])
def test_k_outside_the_catalogue_is_refused(recommender: Recommender, k: int) -> None:
    with pytest.raises(UserError, match="ask for 1 to 15"):
        recommender.recommend([[]], k)


def test_an_intent_is_explained_by_its_typical_items_where_the_evaluation_met_it(recommender: Recommender) -> None:
    assert recommender.typical_items(1) == ["typical-1"]
    assert recommender.typical_items(2) == []


def test_no_request_gives_no_answer(recommender: Recommender) -> None:
    assert recommender.recommend([], 3) == []


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
    write_bundle(mixed, describe_bundle(mixed, name="m", feature_service="s"), tmp_path / "bundle")

    with pytest.raises(UserError, match=r"knows 15 items, items\.parquet 16"):
        Recommender.load(tmp_path / "bundle")
