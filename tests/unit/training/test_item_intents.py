"""Intents of items: an item's vector is its own and its intents' centres in training, and an ordinary row after it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from elcrec.artifacts import read_json
from elcrec.config import IntentConfig, TrainConfig
from elcrec.data.dataset import SequenceData
from elcrec.data.ragged import Ragged
from elcrec.errors import UserError
from elcrec.model.io import load_model, save_model
from elcrec.model.sequence_model import SequenceModel
from elcrec.training import loop
from elcrec.training.checkpoint import Progress
from elcrec.training.item_intents import settle
from elcrec.training.loop import Run, fit
from elcrec.training.warm_start import WarmStart
from tests.unit.training.helpers import RING, ring_data, tiny_config

CPU = torch.device("cpu")
CENTERS = "encoder.item_embedding.parametrizations.weight.0.centers.0"


def _config(**changes: object) -> TrainConfig:
    intents = IntentConfig(num_intents=4, narrower=(12,))
    return tiny_config(**{"objective": "elcrec2", "intents": intents, "averaging": 0.9} | changes)


def _run(config: TrainConfig, folder: Path, data: SequenceData | None = None) -> Run:
    run = Run(data or ring_data(), config, CPU)
    run.begin(folder)
    return run


def _rows(run: Run) -> list[Tensor]:
    """The row of each item among the centres of every set."""
    return [buffer for name, buffer in run.model.named_buffers() if ".row_" in name]


def test_the_table_starts_as_it_would_without_intents(tmp_path: Path) -> None:
    with_intents = _run(_config(), tmp_path).model
    without = _run(_config(objective="sasrec"), tmp_path).model
    assert torch.equal(with_intents.item_embeddings(), without.item_embeddings())


def test_items_that_follow_each_other_share_an_intent_and_narrower_ones_split_it(tmp_path: Path) -> None:
    broad, narrow = (rows[1:].view(-1, RING) for rows in _rows(_run(_config(), tmp_path)))
    assert [len(ring.unique()) for ring in broad] == [1] * 4
    assert len(broad.unique()) == 4
    assert len(narrow.unique()) == 12


def test_a_step_moves_all_items_of_an_intent_by_its_centre(tmp_path: Path) -> None:
    run = _run(_config(), tmp_path)
    run.train_epoch(1)
    weights = dict(run.model.named_parameters())
    expected = run.model.own_vectors.detach().clone()
    for number, rows in enumerate(_rows(run)):
        expected += 0.3 * weights[CENTERS.removesuffix("0") + str(number)].detach()[rows]
    torch.testing.assert_close(run.model.item_embeddings(), expected)
    assert not weights[CENTERS][0].any(), "the centre of no intent"
    assert weights[CENTERS][1:].any(dim=1).all()


def test_the_fitted_model_has_an_ordinary_table_of_the_same_vectors_and_ranks_as_the_best_epoch_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = []

    def watching(model: SequenceModel) -> None:
        tables.append(model.item_embeddings().clone())
        settle(model)

    monkeypatch.setattr(loop, "settle", watching)
    fitted = fit(ring_data(), _config(epochs=4), tmp_path / "checkpoint")
    names = set(fitted.model.state_dict())
    assert {name for name in names if "item_embedding" in name} == {"encoder.item_embedding.weight"}
    assert torch.equal(fitted.model.item_embeddings(), tables[0])
    assert fitted.valid["ndcg@20"] == pytest.approx(fitted.progress.best_score)
    save_model(fitted.model, tmp_path, _config())
    histories = Ragged.from_rows([[1, 2, 3], [11], [31, 32]])
    loaded, kept = load_model(tmp_path).encode(histories), fitted.model.encode(histories)
    torch.testing.assert_close(loaded.vectors, kept.vectors)
    assert torch.equal(loaded.intents, kept.intents)
    assert read_json(tmp_path / "config.json")["model"]["intents"] == "items"


def test_a_history_has_the_intent_with_the_largest_mean_share(tmp_path: Path) -> None:
    model = fit(ring_data(400), _config(epochs=30, learning_rate=0.01, averaging=0.0), tmp_path).model
    of_items = model.encode(Ragged.from_rows([[item] for item in range(1, 41)])).intents.view(4, RING)
    modes = of_items.mode(dim=1).values
    assert ((of_items == modes[:, None]).float().mean(1) > 0.8).all()
    assert len(modes.unique()) == 4
    both = model.encode(Ragged.from_rows([[1, 2, 3, 4, 11], [11, 1, 12, 13]])).intents
    assert both.tolist() == modes[:2].tolist()


def test_centres_are_the_directions_of_their_items_mean_direction(tmp_path: Path) -> None:
    run = _run(_config(averaging=0.0), tmp_path)
    run.train_epoch(1)
    model = run.candidate()
    broad, directions = _rows(run)[0], F.normalize(model.item_embeddings(), dim=1)
    for intent in range(4):
        mean = F.normalize(directions[broad == intent + 1].mean(0), dim=0)
        torch.testing.assert_close(model.intents.centers_KD[intent], mean)


def test_an_item_that_no_training_history_holds_shares_no_centre_and_still_has_an_intent(tmp_path: Path) -> None:
    data = ring_data()
    more = SequenceData(
        sequences=data.sequences, train_end=data.train_end, targets=data.targets, num_items=42, md5="more"
    )
    run = _run(_config(), tmp_path, more)
    assert [rows[-2:].tolist() for rows in _rows(run)] == [[0, 0], [0, 0]]
    fitted = fit(more, _config(), tmp_path / "checkpoint")
    assert (fitted.model.encode(Ragged.from_rows([[42]])).intents >= 0).all()


def test_a_killed_run_goes_on_as_an_undisturbed_one(tmp_path: Path) -> None:
    data, config = ring_data(), _config(epochs=3)
    whole = fit(data, config, tmp_path / "whole")
    run = Run(data, config, CPU)
    progress: Progress = run.begin(tmp_path / "cut")
    run.advance(progress, data.evaluation("valid"))
    loop.save_checkpoint(tmp_path / "cut", run.fingerprint, progress, run.modules, run.best, run.optimizer)
    resumed = fit(data, config, tmp_path / "cut")
    ours, theirs = resumed.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert [row["epoch"] for row in resumed.progress.history] == [1, 2, 3]


@pytest.mark.parametrize("spread", [0.0, 0.5, 2.0])
def test_a_warm_start_begins_with_the_other_models_vectors(tmp_path: Path, spread: float) -> None:
    data, config = ring_data(), _config(intents=IntentConfig(num_intents=4, spread=spread))
    taught = fit(data, config, tmp_path / "taught").model
    moved = np.roll(np.arange(1, data.num_items + 1, dtype=np.int32), 1)
    moved[[7, 21]] = 0
    run = Run(data, config, CPU, warm_start=WarmStart(model=taught, items=moved, digest="d"))
    fresh = run.model.own_vectors.detach().clone()
    run.begin(tmp_path / "warm")
    known = torch.from_numpy(np.flatnonzero(moved)) + 1
    theirs = taught.item_embeddings()[moved[moved > 0].astype(np.int64)]
    torch.testing.assert_close(run.model.item_embeddings()[known], theirs, rtol=1e-3, atol=1e-3)
    assert torch.equal(run.model.own_vectors[[8, 22]], fresh[[8, 22]])


@pytest.mark.parametrize("shared", [0, 10])
def test_intents_that_lost_all_their_items_begin_anew_among_the_others(tmp_path: Path, shared: int) -> None:
    data = ring_data(400)
    taught = fit(data, _config(epochs=20, learning_rate=0.01), tmp_path / "taught").model
    known = np.arange(1, data.num_items + 1, dtype=np.int32)
    known[shared:] = 0
    run = Run(data, _config(), CPU, warm_start=WarmStart(model=taught, items=known, digest="d"))
    ours = _rows(run)[0][1:]
    assert [len(set(ring.tolist())) for ring in ours.view(4, 10)] == [1, 1, 1, 1]
    assert len(set(ours.tolist())) == 4


def test_with_a_warm_start_known_items_keep_their_intents_and_new_ones_join_their_neighbours(tmp_path: Path) -> None:
    data = ring_data(400)
    taught = fit(data, _config(epochs=30, learning_rate=0.01), tmp_path / "taught").model
    theirs = taught.encode(Ragged.from_rows([[item] for item in range(1, 41)])).intents
    known = np.arange(1, data.num_items + 1, dtype=np.int32)
    known[[4, 25]] = 0
    for seed in (2, 3):
        config = _config(seed=seed)
        run = Run(data, config, CPU, warm_start=WarmStart(model=taught, items=known, digest="d"))
        ours = _rows(run)[0][1:] - 1
        assert torch.equal(ours[known > 0], theirs[known > 0])
        assert ours[4] == ours[:10].mode().values
        assert ours[25] == ours[20:30].mode().values


def test_there_may_be_more_intents_of_items_than_users(tmp_path: Path) -> None:
    intents = IntentConfig(num_intents=20)
    assert fit(ring_data(users=15), _config(intents=intents, batch_size=8), tmp_path).progress.epoch == 2


def test_more_intents_than_items_are_refused(tmp_path: Path) -> None:
    intents = IntentConfig(num_intents=4, narrower=(64,))
    with pytest.raises(UserError, match="40 items in training for 64 intents of items") as caught:
        fit(ring_data(), _config(intents=intents), tmp_path)
    assert "narrower" in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [{"narrower": (8,)}, {"center_scale": 1.0}, {"spread": 0.0}, {"spread": 1.0}, {"similar": 5}, {"reach": 5}],
    ids=str,
)
def test_every_option_of_the_intents_of_items_changes_what_is_learned(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    losses = []
    for name, options in (("plain", {}), ("changed", changes)):
        config = _config(intents=IntentConfig(**{"num_intents": 4, "narrower": (12,), "spread": 0.5} | options))
        losses.append([row["next_item"] for row in fit(ring_data(64), config, tmp_path / name).progress.history])
    assert losses[0] != losses[1]
