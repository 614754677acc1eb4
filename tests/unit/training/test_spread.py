"""Spreading what items learn: against the same sums by hand, their gradient, and a training."""

from pathlib import Path

import numpy as np
import pytest
import torch

from elcrec.config import IntentConfig, NextItemConfig
from elcrec.data.ragged import Ragged
from elcrec.training.loop import Run, fit
from elcrec.training.spread import Spread
from tests.unit.training.helpers import ring_data, tiny_config

CPU = torch.device("cpu")
NUM_ITEMS, SHARE, MOST = 40, 0.5, 7


def _rows() -> list[list[int]]:
    """Histories of items 1 to 38; item 39 is always alone, item 40 never met."""
    random = np.random.default_rng(0)
    return [*((random.permutation(38)[: random.integers(1, 6)] + 1).tolist() for _ in range(200)), [39]]


def _by_hand(own_VD: torch.Tensor) -> torch.Tensor:
    met = np.zeros((len(_rows()), NUM_ITEMS + 1))
    for row, items in enumerate(_rows()):
        met[row, items] = 1
    gram, expected = met.T @ met, own_VD.clone()
    for item in range(1, NUM_ITEMS + 1):
        others = [other for other in range(1, NUM_ITEMS + 1) if other != item and gram[item, other]]
        cosines = {other: gram[item, other] / np.sqrt(gram[item, item] * gram[other, other]) for other in others}
        chosen = sorted(others, key=lambda other: (-cosines[other], other))[:MOST]
        total = sum(cosines[other] for other in chosen)
        for other in chosen:
            expected[item] += SHARE * cosines[other] / total * own_VD[other]
    return expected


def test_an_item_gets_a_share_of_the_mean_of_the_items_most_similar_to_it() -> None:
    own_VD = torch.randn(NUM_ITEMS + 1, 8, dtype=torch.float64).float()
    found = Spread.over(Ragged.from_rows(_rows()), NUM_ITEMS, SHARE, MOST)(own_VD)
    torch.testing.assert_close(found, _by_hand(own_VD), rtol=1e-4, atol=1e-5)
    assert torch.equal(found[[0, 39, 40]], own_VD[[0, 39, 40]])


def test_what_an_item_learns_these_learn_in_part() -> None:
    spread = Spread.over(Ragged.from_rows(_rows()), NUM_ITEMS, SHARE, MOST)
    ours, theirs = (torch.randn(NUM_ITEMS + 1, 8, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    weights = torch.randn(NUM_ITEMS + 1, 8)
    for own_VD, sums in ((ours.requires_grad_(), spread), (theirs.requires_grad_(), _by_hand)):
        (sums(own_VD) * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_own_vectors_are_found_for_given_sums(share: float) -> None:
    spread = Spread.over(Ragged.from_rows(_rows()), NUM_ITEMS, share, MOST)
    draw = torch.Generator().manual_seed(2)
    own_VD, wanted_VD = (torch.randn(NUM_ITEMS + 1, 6, generator=draw, dtype=torch.float64).float() for _ in range(2))
    rows = torch.arange(1, NUM_ITEMS + 1)[torch.randperm(NUM_ITEMS, generator=draw)[: NUM_ITEMS - 3]]
    reachable_RD = spread(wanted_VD)[rows]
    found_VD = spread.with_sums(own_VD, rows, reachable_RD)
    torch.testing.assert_close(spread(found_VD)[rows], reachable_RD, rtol=0.01, atol=0.01)
    kept = torch.ones(NUM_ITEMS + 1, dtype=torch.bool).index_fill_(0, rows, False)
    assert torch.equal(found_VD[kept], own_VD[kept])


def test_items_are_found_in_blocks_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    histories, own_VD = Ragged.from_rows(_rows()), torch.randn(NUM_ITEMS + 1, 4)
    whole = Spread.over(histories, NUM_ITEMS, SHARE, MOST)(own_VD)
    monkeypatch.setattr("elcrec.training.spread._ITEMS_AT_ONCE", 7)
    torch.testing.assert_close(Spread.over(histories, NUM_ITEMS, SHARE, MOST)(own_VD), whole)


def test_it_trains_and_leaves_an_ordinary_table(tmp_path: Path) -> None:
    intents = IntentConfig(num_intents=4, spread=SHARE)
    config = tiny_config(objective="elcrec2", intents=intents, averaging=0.9, epochs=5)
    fitted = fit(ring_data(), config, tmp_path)
    losses = [row["loss"] for row in fitted.progress.history]
    assert losses[-1] < losses[0]
    names = fitted.model.state_dict()
    assert "encoder.item_embedding.weight" in names
    assert not [name for name in names if "spread" in name]


def test_it_is_no_part_of_a_checkpoint(tmp_path: Path) -> None:
    run = Run(ring_data(), tiny_config(objective="elcrec2", intents=IntentConfig(num_intents=4, spread=SHARE)), CPU)
    run.begin(tmp_path)
    assert not [name for name in run.model.state_dict() if "spread" in name]


def test_lazy_updates_are_refused() -> None:
    with pytest.raises(ValueError, match=r"intents\.spread needs item_updates dense"):
        tiny_config(
            objective="elcrec2",
            intents=IntentConfig(spread=SHARE),
            next_item=NextItemConfig(loss="sampled_softmax"),
            item_updates="lazy",
        )
