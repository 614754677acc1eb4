"""What is added to scores: neighbours of all items of a history, followers of the last, and popularity."""

from pathlib import Path

import numpy as np
import pytest
import torch

from elcrec.config import EncoderConfig, TrainConfig
from elcrec.data.ragged import Ragged
from elcrec.model.io import load_model, save_model
from elcrec.model.neighbours import Neighbours
from elcrec.model.sequence_model import SequenceModel
from elcrec.ranking.new_items import with_vectors
from tests.support.additions import know_at_random, scores_by_hand

NUM_ITEMS = 9
CONFIG = TrainConfig(encoder=EncoderConfig(window=4, hidden_size=8, num_blocks=1), objective="sasrec")
ROWS = [[1, 2, 3], [5], [4, 4, 6, 4], [7, 8, 9, 1, 2, 3]]


@pytest.fixture
def model() -> SequenceModel:
    torch.manual_seed(0)
    made = SequenceModel(CONFIG.model, NUM_ITEMS).eval()
    know_at_random(made)
    return made


def _scores(model: SequenceModel, rows: list[list[int]]) -> torch.Tensor:
    histories = Ragged.from_rows(rows)
    with torch.inference_mode():
        scores = model.encode(histories).vectors @ model.item_vectors().T
        model.add_to(scores, histories)
    return scores


def test_a_score_is_the_product_and_all_that_is_added_an_item_of_the_window_once(model: SequenceModel) -> None:
    for row, scores in zip(ROWS, _scores(model, ROWS), strict=True):
        np.testing.assert_allclose(scores[1:], scores_by_hand(model, row)[1:], rtol=1e-5, atol=1e-6)


def test_a_range_of_rows_is_added_as_all_at_once(model: SequenceModel) -> None:
    scores, histories = torch.zeros(len(ROWS), NUM_ITEMS + 1), Ragged.from_rows(ROWS)
    model.add_to(scores, histories)
    part = torch.zeros(2, NUM_ITEMS + 1)
    model.adder(histories)(part, slice(1, 3))
    torch.testing.assert_close(part, scores[1:3])


def test_a_row_alone_is_added_as_among_others(model: SequenceModel) -> None:
    scores = torch.zeros(len(ROWS), NUM_ITEMS + 1)
    model.add_to(scores, Ragged.from_rows(ROWS))
    for row, expected in zip(ROWS, scores, strict=True):
        alone = np.zeros(NUM_ITEMS + 1, np.float32)
        model.add_alone(alone, np.array(row[-CONFIG.encoder.window :]))
        np.testing.assert_allclose(alone, expected, rtol=1e-6)


def test_sums_for_some_items_are_those_of_all(model: SequenceModel) -> None:
    histories, some = Ragged.from_rows(ROWS), torch.tensor([3, 1, 8])
    scores = torch.zeros(len(ROWS), NUM_ITEMS + 1)
    additions = model.additions(histories)
    assert additions is not None
    additions.onto(scores)
    torch.testing.assert_close(additions.of(some, len(ROWS)), scores[:, some])


def test_to_rows_without_items_only_popularity_is_added(model: SequenceModel) -> None:
    scores = torch.zeros(3, NUM_ITEMS + 1)
    model.add_to(scores, Ragged.empty(3))
    assert model.popularity_V is not None
    assert torch.equal(scores, model.popularity_V.expand(3, -1))


def test_a_model_that_knows_nothing_adds_nothing() -> None:
    model, scores = SequenceModel(CONFIG.model, NUM_ITEMS), torch.zeros(1, NUM_ITEMS + 1)
    model.add_to(scores, Ragged.from_rows([[1]]))
    assert model.additions(Ragged.from_rows([[1]])) is None
    assert not scores.any()


def test_a_saved_model_adds_the_same(model: SequenceModel, tmp_path: Path) -> None:
    save_model(model, tmp_path, CONFIG)
    torch.testing.assert_close(_scores(load_model(tmp_path), ROWS), _scores(model, ROWS), rtol=0, atol=0)


def test_what_is_known_is_told_part_by_part(model: SequenceModel) -> None:
    other = SequenceModel(CONFIG.model, NUM_ITEMS)
    other.load_state_dict({name: value for name, value in model.state_dict().items() if name in other.state_dict()})
    other.know(popularity_V=model.popularity_V)
    other.know(followers=model.followers)
    assert other.neighbours is None
    other.know(neighbours=model.neighbours)
    assert other.config == model.config
    assert torch.equal(_scores(other.eval(), ROWS), _scores(model, ROWS))


@pytest.mark.parametrize("part", ["neighbours", "followers"])
def test_in_a_larger_catalogue_new_items_have_no_neighbours_and_the_others_keep_theirs(
    model: SequenceModel, part: str
) -> None:
    vectors = np.random.default_rng(0).normal(size=(NUM_ITEMS + 3, 8)).astype(np.float32)
    before = getattr(model, part)

    after = getattr(with_vectors(model, vectors, np.array([2, 10, 11])), part)

    assert isinstance(after, Neighbours)
    assert len(after.items_VK) == NUM_ITEMS + 3
    for item in range(NUM_ITEMS + 3):
        expected = (
            {
                int(other): float(weight)
                for other, weight in zip(before.items_VK[item], before.weights_VK[item], strict=True)
                if other and other != 2
            }
            if item <= NUM_ITEMS and item != 2
            else {}
        )
        found = {
            int(other): float(weight)
            for other, weight in zip(after.items_VK[item], after.weights_VK[item], strict=True)
            if weight
        }
        assert found == expected


def test_in_a_larger_catalogue_new_items_are_of_mean_popularity(model: SequenceModel) -> None:
    vectors = np.zeros((NUM_ITEMS + 3, 8), np.float32)
    after = with_vectors(model, vectors, np.array([2, 10, 11])).popularity_V
    assert after is not None
    assert model.popularity_V is not None
    expected = [*model.popularity_V.tolist(), 0, 0]
    expected[2] = 0
    assert after.tolist() == expected
