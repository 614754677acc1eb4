"""The baseline is fair and correct: it computes the same as our engine, and it learns."""

import math
import random

import numpy as np
import pytest
import torch

from benchmarks import jobs, ours, textbook
from benchmarks.meter import Clock
from elcrec.config import EncoderConfig, IntentConfig, TrainConfig, ViewConfig
from elcrec.data.dataset import SequenceData
from elcrec.model.sequence_model import SequenceModel
from elcrec.training.objective import Objective
from tests.unit.training.helpers import grouped_epoch, ring_data, tiny_config

CPU = torch.device("cpu")
STILL = EncoderConfig(window=8, hidden_size=8, num_blocks=2, hidden_dropout=0.0, attention_dropout=0.0)


def _rows(data: SequenceData) -> list[list[int]]:
    training = data.training()
    return [training.row(user).tolist() for user in range(len(training)) if len(training.row(user)) > 1]


def _copy_weights(source: SequenceModel, target: textbook.TextbookModel) -> None:
    """Give the textbook our weights: one matrix of ours is its query, key and value."""
    ours_encoder, encoder = source.encoder, target.encoder
    pairs = [(encoder.items, ours_encoder.item_embedding), (encoder.positions, ours_encoder.position_embedding)]
    pairs.append((encoder.norm, ours_encoder.norm))
    for layer, block in zip(encoder.layers, ours_encoder.blocks, strict=True):
        same = ("up", "down", "feed_forward_norm")
        pairs += [(getattr(layer, name), getattr(block, name)) for name in same] + [
            (layer.out, block.mixer.out),
            (layer.attention_norm, block.mixer_norm),
        ]
        joined = block.mixer.query_key_value
        projections = zip(joined.weight.chunk(3), joined.bias.chunk(3), strict=True)
        for projection, (weight, bias) in zip((layer.query, layer.key, layer.value), projections, strict=True):
            projection.load_state_dict({"weight": weight, "bias": bias})
    for theirs, own in pairs:
        theirs.load_state_dict(own.state_dict())


def _same_models(data: SequenceData) -> tuple[SequenceModel, textbook.TextbookModel]:
    config = tiny_config(encoder=STILL)
    torch.manual_seed(3)
    model = SequenceModel(config.model, data.num_items)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    plain = textbook.TextbookModel(config, data.num_items)
    _copy_weights(model, plain)
    return model, plain


def test_its_next_item_loss_equals_ours_on_the_same_weights_and_input() -> None:
    data = ring_data()
    model, plain = _same_models(data)
    config = tiny_config(encoder=STILL)
    step = grouped_epoch(data, config)[0]
    lengths = step.rows.lengths_B[: step.num_sequences].tolist()
    items_M = step.rows.of_items(step.rows.items_N)[: sum(lengths)]
    columns = [
        [textbook.pad(row.tolist(), STILL.window) for row in torch.split(values, lengths)]
        for values in (items_M, step.targets_M, step.negatives.items)
    ]
    inputs, targets, negatives = (torch.tensor(column) for column in columns)
    loss = plain.next_item_loss(plain.encoder(inputs), targets, negatives)
    assert loss.item() == pytest.approx(Objective(config).losses(model, step)["next_item"].item(), abs=1e-5)


def test_its_cluster_loss_is_the_mean_distance_to_centres_minus_that_between_them() -> None:
    pooled, centers = torch.eye(4)[:2], torch.eye(4)[2:]
    assert textbook.cluster_loss(pooled, centers).item() == pytest.approx(2.0 - 2.0)
    assert textbook.cluster_loss(centers, centers).item() == pytest.approx(1.0 - 2.0)


def test_its_ranking_gives_our_ranks() -> None:
    data = ring_data(400)
    model, plain = _same_models(data)
    asked = data.evaluation("test")
    expected = ours.rank(model.eval(), asked)
    histories = [asked.histories.row(user).tolist() for user in range(len(asked.users))]
    ranks = textbook.ranks_of(textbook.rank(plain, histories), asked.target_items)
    np.testing.assert_array_equal(ranks, np.where(expected <= 20, expected, 0))
    assert 0 < (ranks > 0).sum() < len(ranks)


@pytest.mark.parametrize("objective", ["elcrec", "iclrec", "sasrec"])
def test_its_losses_are_finite_and_fall(objective: jobs.Objective) -> None:
    data = ring_data()
    clock = Clock(device=CPU, limits=(None,) * 25)
    config = tiny_config(learning_rate=0.01)
    model, losses = textbook.train(_rows(data), data.num_items, config, clock, objective=objective)
    per_epoch = np.array(losses).reshape(25, -1).mean(1)
    assert np.isfinite(losses).all()
    assert per_epoch[-5:].mean() < per_epoch[:5].mean() - 0.1
    assert math.isclose(model.centers_KD.norm(dim=1).mean().item(), 1.0, rel_tol=1e-5)


@pytest.mark.slow
def test_a_learned_model_finds_the_next_item_of_a_ring() -> None:
    data = ring_data(400)
    encoder = EncoderConfig(window=8, hidden_size=16, num_blocks=1, hidden_dropout=0.1, attention_dropout=0.1)
    config = tiny_config(learning_rate=0.01, encoder=encoder)
    clock = Clock(device=CPU, limits=(None,) * 30)
    model, _ = textbook.train(_rows(data), data.num_items, config, clock)
    asked = data.evaluation("test")
    histories = [asked.histories.row(user).tolist() for user in range(len(asked.users))]
    ranks = textbook.ranks_of(textbook.rank(model, histories), asked.target_items)
    assert ((ranks > 0) & (ranks <= 5)).mean() > 0.8


@pytest.mark.parametrize("fusion", ["shift", "concat", "none"])
def test_every_objective_has_its_terms(fusion: str) -> None:
    data, config = ring_data(), tiny_config(intents=IntentConfig(num_intents=4, fusion=fusion))
    assert _terms(data, config, "elcrec") == ["next_item", "sequence", "intent", "cluster"]
    assert _terms(data, config, "iclrec") == ["next_item", "sequence", "intent"]
    assert _terms(data, config, "sasrec") == ["next_item"]


def _terms(data: SequenceData, config: TrainConfig, objective: jobs.Objective) -> list[str]:
    dataset = textbook.SampleDataset(_rows(data), data.num_items, config, with_views=objective != "sasrec")
    batch = [torch.stack(column) for column in zip(*(dataset[index] for index in range(4)), strict=True)]
    return list(textbook.TextbookModel(config, data.num_items, objective).losses(batch))


def test_views_crop_a_run_blank_a_share_and_shuffle_a_run() -> None:
    items, config = list(range(1, 21)), ViewConfig(crop=0.2, mask=0.7, reorder=0.3)
    random.seed(0)
    cropped, masked, shuffled = (draw(items, config) for draw in (textbook.crop, textbook.mask, textbook.reorder))
    assert cropped == list(range(cropped[0], cropped[0] + 4))
    assert masked.count(0) == 14
    assert all(item in (0, place) for item, place in zip(masked, items, strict=True))
    assert sorted(shuffled) == items
    assert 0 < sum(item != place for item, place in zip(shuffled, items, strict=True)) <= 6


def test_a_negative_is_never_an_item_of_the_sequence() -> None:
    dataset = textbook.SampleDataset([[1, 2, 3, 4]], 6, tiny_config())
    assert {item for _ in range(50) for item in dataset[0][2].tolist()} == {0, 5, 6}


def test_kmeans_finds_separate_clusters() -> None:
    torch.manual_seed(0)
    points = torch.cat([torch.randn(30, 2) * 0.1 + shift for shift in (-5.0, 5.0)])
    centers = textbook.kmeans(points, 2).mean(1).sort().values
    torch.testing.assert_close(centers, torch.tensor([-5.0, 5.0]), atol=0.2, rtol=0)
