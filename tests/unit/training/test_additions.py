"""What is added to scores: found from training items alone, and as strong as the validation split wants."""

from pathlib import Path

import numpy as np
import pytest
import torch

from elcrec.config import CountConfig, NeighbourConfig
from elcrec.data.dataset import SequenceData
from elcrec.data.ragged import Ragged
from elcrec.evaluation.ranking import rank_targets
from elcrec.training import additions as module
from elcrec.training.loop import fit, validate
from tests.support.additions import scores_by_hand
from tests.unit.training.helpers import ring_data, tiny_config

KEPT = NeighbourConfig(kept=3, candidates=6, penalty=1.0)
COUNTED = CountConfig(followers=3, popularity=True)


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
    assert without.additions == {}
    assert without.model.neighbours is None
    assert having.additions["neighbours"].strength > 0
    assert having.valid["ndcg@5"] > without.valid["ndcg@5"] + 0.2
    for name, tensor in without.model.state_dict().items():
        assert torch.equal(tensor, having.model.state_dict()[name])


def test_the_validation_is_a_ranking_by_all_that_is_added(tmp_path: Path) -> None:
    data = _pairs()
    fitted = fit(data, tiny_config(objective="elcrec2", neighbours=KEPT, counts=COUNTED), tmp_path)
    valid, gains = data.evaluation("valid"), []
    for row, target in enumerate(valid.target_items.tolist()):
        history = valid.histories.row(row).tolist()
        scores = scores_by_hand(fitted.model, history)
        scores[[0, *history]] = -np.inf
        place = int((scores >= scores[target] - 1e-5).sum())
        gains.append(1 / np.log2(place + 1) if place <= 20 else 0.0)
    assert fitted.valid["ndcg@20"] == pytest.approx(np.mean(gains), abs=0.003)
    assert [*fitted.additions] == ["neighbours", "followers", "popularity"]
    assert fitted.additions["popularity"].ndcg == pytest.approx(fitted.valid["ndcg@20"])


def test_after_the_last_item_comes_what_followed_it_most_often(tmp_path: Path) -> None:
    """Ascending runs in any order: only the last item of a history tells the next."""
    random = np.random.default_rng(0)
    rows = [
        np.concatenate([np.arange(start, start + 3) for start in random.permutation(10) * 3 + 1]) for _ in range(60)
    ]
    ends = np.array([30 - random.integers(1, 3) for _ in rows], np.int32)
    data = SequenceData(
        sequences=Ragged.from_rows([row[:end].tolist() for row, end in zip(rows, ends, strict=True)]),
        train_end=ends - 1,
        targets={"valid": ends - 1, "test": np.full(len(rows), -1, np.int32)},
        num_items=30,
        md5="runs",
    )
    config = tiny_config(objective="sasrec", counts=CountConfig(followers=2), epochs=1)
    fitted = fit(data, config, tmp_path)
    assert fitted.additions["followers"].strength > 0
    assert fitted.valid["hr@5"] > 0.9
    followers = fitted.model.followers
    assert followers is not None
    assert [followers.items_VK[item, 0] for item in (1, 2, 4, 5)] == [2, 3, 5, 6]


def test_items_at_the_ends_of_histories_score_higher(tmp_path: Path) -> None:
    """At random but for time: the first half of every history is of old items, the second of new ones."""
    random = np.random.default_rng(0)
    rows = [
        [*(random.permutation(15)[:5] + 1).tolist(), *(random.permutation(15)[:5] + 16).tolist()] for _ in range(99)
    ]
    ends = np.full(len(rows), 10, np.int32)
    data = SequenceData(
        sequences=Ragged.from_rows(rows),
        train_end=ends - 2,
        targets={"valid": ends - 2, "test": ends - 1},
        num_items=30,
        md5="time",
    )
    config = tiny_config(objective="sasrec", counts=CountConfig(popularity=True), epochs=1)
    fitted = fit(data, config, tmp_path)
    assert fitted.additions["popularity"].strength > 0
    assert fitted.model.popularity_V is not None
    assert fitted.model.popularity_V[16:].min() > fitted.model.popularity_V[1:16].max()


def test_held_out_items_change_nothing_that_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NEIGHBOUR_STRENGTHS", (8,))
    monkeypatch.setattr(module, "_COUNT_STRENGTHS", (1,))
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
    config = tiny_config(objective="sasrec", neighbours=KEPT, counts=COUNTED, epochs=1)
    first, second = (fit(each, config, tmp_path / each.md5).model.state_dict() for each in (data, other))
    added = [name for name in first if name.startswith(("neighbours", "followers", "popularity"))]
    assert len(added) == 5
    for name in added:
        assert torch.equal(first[name], second[name])


def test_what_only_does_harm_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NEIGHBOUR_STRENGTHS", (0, -8))
    monkeypatch.setattr(module, "_COUNT_STRENGTHS", (0,))
    fitted = fit(_pairs(), tiny_config(objective="sasrec", neighbours=KEPT, counts=COUNTED), tmp_path)
    assert [chosen.strength for chosen in fitted.additions.values()] == [0, 0, 0]
    assert fitted.model.config == tiny_config(objective="sasrec").model
    assert not [name for name in fitted.model.state_dict() if name.startswith(("neighbours", "followers", "popul"))]


def test_only_some_users_are_asked_for_the_strength(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def watching(users: torch.Tensor, *args: object, **options: object) -> object:
        asked.append(len(users))
        return rank_targets(users, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "rank_targets", watching)
    monkeypatch.setattr(module, "_MOST_ASKED", 50)
    fit(_pairs(), tiny_config(objective="sasrec", neighbours=KEPT, epochs=1), tmp_path)
    assert asked == [50] * len(module._NEIGHBOUR_STRENGTHS)


def test_rings_are_still_learned_with_neighbours(tmp_path: Path) -> None:
    config = tiny_config(objective="elcrec2", neighbours=KEPT, epochs=5)
    fitted = fit(ring_data(), config, tmp_path)
    assert fitted.valid == validate(fitted.model, ring_data().evaluation("valid"))
