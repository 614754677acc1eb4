"""Neighbours in training: found from training items alone, and as strong as the validation split wants."""

from pathlib import Path

import numpy as np
import pytest
import torch

from elcrec.config import NeighbourConfig
from elcrec.data.dataset import SequenceData
from elcrec.data.ragged import Ragged
from elcrec.evaluation.ranking import rank_targets
from elcrec.training import neighbours as module
from elcrec.training.loop import fit, validate
from tests.support.neighbours import scores_by_hand
from tests.unit.training.helpers import ring_data, tiny_config

KEPT = NeighbourConfig(kept=3, candidates=6, penalty=1.0)


def _pairs(users: int = 300) -> SequenceData:
    """Histories of pairs at random: after an odd item, now or later, comes the even one that belongs to it."""
    random = np.random.default_rng(0)
    rows = []
    for _ in range(users):
        odd = random.permutation(20)[:4] * 2 + 1
        rows.append([*odd.tolist(), *(random.permutation(odd) + 1).tolist()])
    ends = np.full(users, 8, np.int32)
    targets = {"valid": ends - 2, "test": ends - 1}
    return SequenceData(
        sequences=Ragged.from_rows(rows), train_end=ends - 2, targets=targets, num_items=40, md5="pairs"
    )


def test_a_model_with_neighbours_knows_pairs_that_it_had_no_time_to_learn(tmp_path: Path) -> None:
    without, having = (
        fit(_pairs(), tiny_config(objective="sasrec", neighbours=config), tmp_path / str(config.kept))
        for config in (NeighbourConfig(), KEPT)
    )
    assert without.neighbours is None
    assert without.model.neighbours is None
    assert having.neighbours is not None
    assert having.neighbours.strength > 0
    assert having.valid["ndcg@5"] > without.valid["ndcg@5"] + 0.2
    for name, tensor in without.model.state_dict().items():
        assert torch.equal(tensor, having.model.state_dict()[name])


def test_the_validation_is_a_ranking_by_all_that_is_added(tmp_path: Path) -> None:
    data = _pairs()
    fitted = fit(data, tiny_config(objective="elcrec2", neighbours=KEPT), tmp_path)
    valid, gains = data.evaluation("valid"), []
    for row, target in enumerate(valid.target_items.tolist()):
        history = valid.histories.row(row).tolist()
        scores = scores_by_hand(fitted.model, history)
        scores[[0, *history]] = -np.inf
        place = int((scores >= scores[target] - 1e-5).sum())
        gains.append(1 / np.log2(place + 1) if place <= 20 else 0.0)
    assert fitted.valid["ndcg@20"] == pytest.approx(np.mean(gains), abs=0.003)
    assert fitted.neighbours is not None
    assert fitted.neighbours.ndcg == pytest.approx(fitted.valid["ndcg@20"])


def test_held_out_items_change_no_neighbour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STRENGTHS", (8,))
    data = _pairs()
    changed = data.sequences.values.copy()
    held_out = np.concatenate([data.sequences.offsets[1:] - 1, data.sequences.offsets[1:] - 2])
    changed[held_out] = changed[held_out[::-1]]
    other = SequenceData(
        sequences=Ragged(values=changed, offsets=data.sequences.offsets),
        train_end=data.train_end,
        targets=data.targets,
        num_items=data.num_items,
        md5="other",
    )
    first, second = (
        fit(each, tiny_config(objective="sasrec", neighbours=KEPT, epochs=1), tmp_path / each.md5).model.neighbours
        for each in (data, other)
    )
    assert first is not None
    assert second is not None
    assert torch.equal(first.items_VK, second.items_VK)


def test_neighbours_that_only_do_harm_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STRENGTHS", (0, -8))
    fitted = fit(_pairs(), tiny_config(objective="sasrec", neighbours=KEPT), tmp_path)
    assert fitted.neighbours is not None
    assert fitted.neighbours.strength == 0
    assert fitted.model.neighbours is None
    assert fitted.model.config.neighbours == 0


def test_only_some_users_are_asked_for_the_strength(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def watching(users: torch.Tensor, *args: object, **options: object) -> object:
        asked.append(len(users))
        return rank_targets(users, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "rank_targets", watching)
    monkeypatch.setattr(module, "_MOST_ASKED", 50)
    fit(_pairs(), tiny_config(objective="sasrec", neighbours=KEPT, epochs=1), tmp_path)
    assert asked == [50] * len(module._STRENGTHS)


def test_rings_are_still_learned_with_neighbours(tmp_path: Path) -> None:
    config = tiny_config(objective="elcrec2", neighbours=KEPT, epochs=5)
    fitted = fit(ring_data(), config, tmp_path)
    assert fitted.valid == validate(fitted.model, ring_data().evaluation("valid"))
