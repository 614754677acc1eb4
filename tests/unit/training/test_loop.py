from itertools import pairwise
from pathlib import Path

import pytest
import torch

from elcrec.config import EncoderConfig, IntentConfig, NextItemConfig, ViewConfig
from elcrec.errors import UserError
from elcrec.model.sequence_model import SequenceModel
from elcrec.training.checkpoint import FILE
from elcrec.training.loop import Fitted, Run, fit
from elcrec.training.objective import Objective
from tests.unit.training.helpers import grouped_epoch, ring_data, tiny_config


def _weights(fitted: Fitted) -> dict[str, torch.Tensor]:
    return fitted.model.state_dict()


def _same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("objective", ["elcrec", "iclrec", "sasrec", "elcrec2"])
def test_a_model_learns_rings_that_popularity_cannot(tmp_path: Path, objective: str) -> None:
    encoder = EncoderConfig(window=8, hidden_size=16, num_blocks=1, hidden_dropout=0.1, attention_dropout=0.1)
    config = tiny_config(objective=objective, encoder=encoder, epochs=40, learning_rate=0.01)
    assert fit(ring_data(400), config, tmp_path).valid["ndcg@5"] > 0.8


def test_the_same_seed_gives_identical_weights_and_another_seed_others(tmp_path: Path) -> None:
    first, second, other = (
        _weights(fit(ring_data(), tiny_config(seed=seed), tmp_path / str(index)))
        for index, seed in enumerate((3, 3, 4))
    )
    assert _same(first, second)
    assert not _same(first, other)


def _watch_centers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The centres before and after every step that will be taken."""
    watched, step = [], Run.take

    def watching(run: Run, batch: object) -> object:
        before = run.model.intents.centers_KD.detach().clone()
        losses = step(run, batch)
        watched.append((before, run.model.intents.centers_KD.detach().clone()))
        return losses

    monkeypatch.setattr(Run, "take", watching)
    return watched


def test_learned_centres_move_and_are_on_the_unit_sphere_after_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = _watch_centers(monkeypatch)
    fit(ring_data(), tiny_config(learning_rate=0.05), tmp_path)
    assert len(watched) == 8
    for before, after in watched:
        torch.testing.assert_close(before.norm(dim=1), torch.ones(4))
        torch.testing.assert_close(after.norm(dim=1), torch.ones(4))
        assert ((after - before).norm(dim=1) > 1e-3).all()


def test_clustered_centres_are_constant_in_an_epoch_and_found_anew_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = _watch_centers(monkeypatch)
    fit(ring_data(), tiny_config(objective="iclrec"), tmp_path)
    assert all(torch.equal(before, after) for before, after in watched)
    changed = [not torch.equal(one, other) for (_, one), (other, _) in pairwise(watched)]
    assert changed == [False, False, False, True, False, False, False]


class _KilledError(Exception):
    pass


@pytest.mark.parametrize(
    ("killed_at", "changes"),
    [(1, {}), (6, {}), (9, {}), (6, {"averaging": 0.9}), (6, {"averaging": 0.9, "item_updates": "lazy"})],
)
def test_a_run_cut_off_at_any_step_and_resumed_equals_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int, changes: dict[str, object]
) -> None:
    config, data = tiny_config(epochs=3, **changes), ring_data()
    undisturbed = fit(data, config, tmp_path / "whole")
    step, count = Run.take, 0

    def dies(run: Run, batch: object) -> object:
        nonlocal count
        count += 1
        if count == killed_at:
            raise _KilledError
        return step(run, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "take", dies)
        with pytest.raises(_KilledError):
            fit(data, config, tmp_path / "cut")
    resumed = fit(data, config, tmp_path / "cut")
    assert _same(_weights(undisturbed), _weights(resumed))
    losses = [[row["loss"] for row in run.progress.history] for run in (undisturbed, resumed)]
    assert losses[0] == losses[1]


def test_the_moving_average_of_the_weights_is_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, expected, decay = Run.take, {}, 0.5

    def watching(run: Run, batch: object) -> object:
        losses = step(run, batch)
        taken = watching.taken = watching.taken + 1
        share = 1.0 if taken == 1 else 1 - min(decay, taken / (taken + 9))
        for name, weight in run.model.named_parameters():
            now = weight.detach().double()
            expected[name] = now if taken == 1 else (1 - share) * expected[name] + share * now
        return losses

    watching.taken = 0
    monkeypatch.setattr(Run, "take", watching)
    kept = _weights(fit(ring_data(), tiny_config(epochs=1, averaging=decay), tmp_path))
    expected["intents.centers_KD"] = torch.nn.functional.normalize(expected["intents.centers_KD"], dim=1)
    for name, average in expected.items():
        torch.testing.assert_close(kept[name].double(), average, rtol=0, atol=1e-6)


def test_a_checkpoint_of_another_configuration_is_not_resumed(tmp_path: Path) -> None:
    fit(ring_data(), tiny_config(seed=8), tmp_path / "shared")
    ours = fit(ring_data(), tiny_config(seed=9), tmp_path / "shared")
    assert _same(_weights(ours), _weights(fit(ring_data(), tiny_config(seed=9), tmp_path / "fresh")))


def test_a_damaged_checkpoint_means_a_fresh_start(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"half a file")
    assert fit(ring_data(), tiny_config(), tmp_path).progress.epoch == 2


def test_training_stops_when_patience_runs_out_and_keeps_the_best_weights(tmp_path: Path) -> None:
    config = tiny_config(epochs=60, patience=3, learning_rate=0.02)
    fitted = fit(ring_data(), config, tmp_path)
    scores = [row["valid_ndcg@20"] for row in fitted.progress.history]
    assert fitted.progress.epoch == min(fitted.progress.best_epoch + 3, 60)
    assert max(scores) == fitted.progress.best_score == scores[fitted.progress.best_epoch - 1]
    assert fitted.valid["ndcg@20"] == pytest.approx(max(scores))


def test_validation_happens_every_so_many_epochs_and_at_the_end(tmp_path: Path) -> None:
    history = fit(ring_data(), tiny_config(epochs=5, eval_every=2), tmp_path).progress.history
    assert ["valid_ndcg@20" in row for row in history] == [False, True, False, True, True]


def test_no_epoch_is_trained_that_no_validation_follows(tmp_path: Path) -> None:
    progress = fit(ring_data(), tiny_config(epochs=60, eval_every=2, patience=5, learning_rate=0.02), tmp_path).progress
    assert progress.epoch == progress.best_epoch + 4 < 60


def test_an_objective_without_a_weight_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="all terms have the weight 0") as caught:
        fit(ring_data(), tiny_config(objective="sasrec", weights={"next_item": 0.0}), tmp_path)
    assert "next_item" in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2},
        {"learning_rate": 2e-3},
        {"batch_size": 64},
        {"batch_size": 16, "item_updates": "lazy"},
        {"epochs": 3},
        {"objective": "sasrec"},
        {"objective": "iclrec"},
        {"next_item": NextItemConfig(loss="softmax")},
        {"next_item": NextItemConfig(loss="sampled_softmax", samples=8)},
        {"encoder": EncoderConfig(window=6, hidden_size=8, num_blocks=1, hidden_dropout=0.2, attention_dropout=0.2)},
        {"encoder": EncoderConfig(window=8, hidden_size=16, num_blocks=1, hidden_dropout=0.2, attention_dropout=0.2)},
        {"encoder": EncoderConfig(window=8, hidden_size=8, num_blocks=2, hidden_dropout=0.2, attention_dropout=0.2)},
        {
            "encoder": EncoderConfig(
                window=8, hidden_size=8, num_blocks=1, num_heads=1, hidden_dropout=0.2, attention_dropout=0.2
            )
        },
        {"encoder": EncoderConfig(window=8, hidden_size=8, num_blocks=1, hidden_dropout=0.3, attention_dropout=0.2)},
        {"encoder": EncoderConfig(window=8, hidden_size=8, num_blocks=1, hidden_dropout=0.2, attention_dropout=0.3)},
        {"intents": IntentConfig(num_intents=5)},
        {"intents": IntentConfig(num_intents=4, fusion="concat")},
        {"intents": IntentConfig(num_intents=4, fusion="none")},
        {"padding": "ignored"},
        {"padding": "encoded"},
        {"intents": IntentConfig(num_intents=4, temperature=0.5)},
        {"intents": IntentConfig(num_intents=4, mask_same_intent=True)},
        {"weights": {"next_item": 2.0}},
        {"weights": {"sequence": 0.2}},
        {"weights": {"intent": 0.2}},
        {"weights": {"cluster": 2.0}},
        {"objective": "sasrec+sequence"},
        {"views": ViewConfig(temperature=0.5)},
        {"views": ViewConfig(crop=0.6)},
        {"views": ViewConfig(mask=0.3)},
        {"views": ViewConfig(reorder=0.8)},
    ],
    ids=str,
)
def test_every_training_option_changes_what_is_learned(tmp_path: Path, changes: dict[str, object]) -> None:
    data = ring_data(users=64)
    plain = fit(data, tiny_config(), tmp_path / "plain").progress.history
    changed = fit(data, tiny_config(**changes), tmp_path / "changed").progress.history
    assert [row["next_item"] for row in plain] != [row["next_item"] for row in changed]


@pytest.mark.parametrize("changes", [{"samples": 16}, {"exponent": 0.0}], ids=str)
def test_every_option_of_the_sampled_softmax_changes_what_is_learned(tmp_path: Path, changes: dict[str, float]) -> None:
    losses = []
    for name, options in (("plain", {"samples": 8}), ("changed", {"samples": 8} | changes)):
        config = tiny_config(next_item=NextItemConfig(loss="sampled_softmax", **options))
        losses.append([row["next_item"] for row in fit(ring_data(64), config, tmp_path / name).progress.history])
    assert losses[0] != losses[1]


@pytest.mark.parametrize("loss", ["bce", "softmax", "sampled_softmax"])
def test_products_in_bfloat16_change_the_losses_of_a_step_by_rounding_alone(loss: str) -> None:
    still = EncoderConfig(window=8, hidden_size=16, num_blocks=2, hidden_dropout=0.0, attention_dropout=0.0)
    data, found = ring_data(), []
    for precision in ("float32", "bfloat16"):
        config = tiny_config(precision=precision, encoder=still, next_item=NextItemConfig(loss=loss))
        torch.manual_seed(0)
        model = SequenceModel(config.model, data.num_items)
        for weight in model.encoder.parameters():
            torch.nn.init.normal_(weight, std=0.2)
        found.append(Objective(config).losses(model, grouped_epoch(data, config)[0]))
        torch.stack(list(found[-1].values())).sum().backward()
        assert all(weight.grad.dtype == torch.float32 for weight in model.parameters())
    exact, rough = found
    for name, value in exact.items():
        assert rough[name].dtype == torch.float32
        assert rough[name] != value, "the products did run in bfloat16"
        torch.testing.assert_close(rough[name], value, rtol=2e-2, atol=2e-2)


def test_more_intents_than_users_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="20 users for 64 intents"):
        fit(ring_data(users=20), tiny_config(intents=IntentConfig(num_intents=64)), tmp_path)


@pytest.mark.parametrize("objective", ["sasrec+intent", "sasrec+cluster", "iclrec+cluster"])
def test_a_term_that_needs_other_intents_is_refused_before_anything_is_trained(tmp_path: Path, objective: str) -> None:
    with pytest.raises(UserError, match=r"train\.objective: the loss term '(intent|cluster)' needs learned"):
        fit(ring_data(), tiny_config(objective=objective), tmp_path)


def test_no_validation_target_is_refused(tmp_path: Path) -> None:
    data = ring_data()
    data.targets["valid"][:] = -1
    with pytest.raises(UserError, match="no user has a validation target"):
        fit(data, tiny_config(), tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_asking_for_cuda_without_a_gpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="finds no GPU"):
        fit(ring_data(), tiny_config(device="cuda"), tmp_path)


def test_compiling_what_no_gpu_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="for training on one GPU, not on a CPU"):
        fit(ring_data(), tiny_config(compile=True), tmp_path)
