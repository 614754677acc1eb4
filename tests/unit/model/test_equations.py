"""The losses that training minimises are those of the equations: terms, gradients and ablations of whole steps."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from elcrec.config import EncoderConfig, IntentConfig, NextItemConfig, TrainConfig, ViewConfig
from elcrec.model.grouping import GroupedLayout
from elcrec.model.heads import Cosine
from elcrec.model.intents import LearnedIntents
from elcrec.model.sequence_model import SequenceModel
from elcrec.training.item_intents import settle
from elcrec.training.objective import Objective
from elcrec.training.step import Step as TrainingStep
from tests.unit.model import reference
from tests.unit.model.reference import CENTERS, LOG_SCALE, OWN, SHARED, TABLE, Array, Step
from tests.unit.training.helpers import grouped_epoch, new_model, ring_data, tiny_config

WINDOW, WIDTH, USERS = 5, 8, 12
LOSSES, FUSIONS = ("bce", "softmax", "sampled_softmax"), ("shift", "concat", "none")
PADDINGS = ("counted", "ignored", "encoded")
CASES = [
    *product(("elcrec", "iclrec"), LOSSES, FUSIONS, PADDINGS),
    *product(("elcrec2", "elcrec2 by cosine"), LOSSES, ("none",), ("counted", "ignored")),
    *product(("sasrec", "sasrec+sequence"), LOSSES, ("shift",), ("counted", "encoded")),
]
cases = pytest.mark.parametrize("case", CASES, ids="-".join)
EXACT = {"rtol": 1e-9, "atol": 1e-12}
"""Both sides compute in double precision; nothing but the order of summation differs."""


def _config(case: tuple[str, ...], *, masked: bool = True, **weights: float) -> TrainConfig:
    """Every weight and temperature differ from each other and from 1, so that none can stand for another."""
    objective, loss, fusion, padding = case
    by_cosine = objective.endswith(" by cosine")
    return tiny_config(
        objective=objective.removesuffix(" by cosine"),
        head="cosine" if by_cosine else "dot",
        encoder=EncoderConfig(
            window=WINDOW, hidden_size=WIDTH, num_blocks=2, hidden_dropout=0.0, attention_dropout=0.0
        ),
        next_item=NextItemConfig(loss=loss, samples=30, robustness=0.4 if by_cosine and loss != "bce" else 0.0),
        weights={"next_item": 1.3, "sequence": 0.3, "intent": 0.2, "cluster": 1.7} | weights,
        intents=IntentConfig(num_intents=4, narrower=(6,), fusion=fusion, temperature=0.8, mask_same_intent=masked),
        views=ViewConfig(crop=0.6, mask=0.5, reorder=0.8, temperature=0.6),
        padding=padding,
        batch_size=USERS,
    )


@dataclass(frozen=True)
class _Problem:
    """A model in double precision and a step of the ring data, both as the model and as the reference see them."""

    config: TrainConfig
    model: SequenceModel
    batch: TrainingStep

    @property
    def step(self) -> Step:
        return reference.read_step(self.batch)

    def losses(self) -> dict[str, Tensor]:
        return Objective(self.config).losses(self.model, self.batch)

    @property
    def weights(self) -> dict[str, Array]:
        return reference.read_weights(self.model)


def _problem(config: TrainConfig) -> _Problem:
    data = ring_data(users=USERS)
    batch = grouped_epoch(data, config)[0]
    torch.manual_seed(1)
    model = new_model(data, config).double().train()
    _sharpen(model)
    return _Problem(config, model, batch)


@torch.no_grad()
def _sharpen(model: SequenceModel) -> None:
    """Draw weights large enough for attention to choose and for every bias, norm and padding row to count."""
    for name, tensor in model.state_dict().items():
        ones = name.endswith("norm.weight")
        if tensor.is_floating_point():
            tensor.normal_(mean=float(ones), std=0.3)
    if isinstance(model.intents, LearnedIntents):
        model.intents.after_step()


def test_the_step_has_rows_shorter_and_as_long_as_the_window_and_views_with_masked_items() -> None:
    step = _problem(_config(CASES[0])).step
    training = ring_data(users=USERS).training()
    assert training.lengths.max() > WINDOW + 1
    assert {len(row) for row in step.inputs} >= {2, 3, WINDOW}
    assert {len(row) for row in step.views} >= {1, 2, WINDOW}
    assert any(0 in row[1:] and row[0] != 0 for row in step.views)
    assert any(row[0] == 0 for row in step.views), "a query that sees no item"


def test_a_padded_step_has_windows_that_begin_with_padding_without_targets() -> None:
    step = _problem(_config((*CASES[0][:-1], "encoded"))).step
    assert {len(row) for row in (*step.inputs, *step.views)} == {WINDOW}
    asked = np.array(step.positives).reshape(USERS, WINDOW) != 0
    np.testing.assert_array_equal(asked, np.array(step.inputs) != 0)
    assert not asked.all()


def test_the_shared_negatives_have_repeats_and_next_items_among_them() -> None:
    step = _problem(_config(("sasrec", "sampled_softmax", *CASES[0][2:]))).step
    assert len(set(step.negatives)) < len(step.negatives)
    assert set(step.negatives) & set(step.positives)


@cases
def test_every_term_of_a_step_equals_its_equation(case: tuple[str, ...]) -> None:
    problem = _problem(_config(case))
    expected = reference.objective(problem.weights, problem.step, problem.config)
    losses = {name: loss.item() for name, loss in problem.losses().items()}
    assert losses == {name: pytest.approx(value, rel=EXACT["rtol"]) for name, value in expected.items()}


@pytest.mark.parametrize("objective", ["elcrec", "iclrec"])
def test_without_masking_sequences_of_the_same_intent_are_contrasted_too(objective: str) -> None:
    case, losses = (objective, "bce", "shift", "ignored"), []
    for masked in (True, False):
        problem = _problem(_config(case, masked=masked))
        expected = reference.objective(problem.weights, problem.step, problem.config)
        losses.append(problem.losses()["intent"].item())
        assert losses[-1] == pytest.approx(expected["intent"], rel=EXACT["rtol"])
    assert losses[0] < losses[1]


ABLATIONS = [
    ("elcrec", {"cluster": 0.0}, ["next_item", "sequence", "intent"]),
    ("elcrec", {"sequence": 0.0, "intent": 0.0}, ["next_item", "cluster"]),
    ("elcrec", {"sequence": 0.0, "intent": 0.0, "cluster": 0.0}, ["next_item"]),
    ("elcrec", {"sequence": 0.0}, ["next_item", "intent", "cluster"]),
    ("elcrec", {"intent": 0.0}, ["next_item", "sequence", "cluster"]),
    ("iclrec", {"cluster": 0.0}, ["next_item", "sequence", "intent"]),
    ("iclrec", {"sequence": 0.0, "intent": 0.0}, ["next_item"]),
]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(("objective", "off", "left"), ABLATIONS, ids=str)
def test_an_ablation_keeps_exactly_the_other_terms_and_draws_no_unneeded_view(
    objective: str, off: dict[str, float], left: list[str], padding: str
) -> None:
    problem = _problem(_config((objective, "bce", "shift", padding), **off))
    expected = reference.objective(problem.weights, problem.step, problem.config)
    losses = {name: loss.item() for name, loss in problem.losses().items()}
    assert list(losses) == left
    assert losses == {name: pytest.approx(expected[name], rel=EXACT["rtol"]) for name in left}
    contrasted, counted = {"sequence", "intent"} & set(left), padding == "counted" and "cluster" in left
    assert len(problem.batch.rows.lengths_B) == (3 if contrasted else 1) * USERS + counted
    assert set(problem.batch.parts) == {"inputs", *(["views"] if contrasted else []), *(["padding"] if counted else [])}


@cases
def test_the_gradient_of_every_term_equals_finite_differences_of_its_equation(
    case: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder is taken out, so that the terms are functions of states, item table and centres alone."""
    problem = _problem(_config(case))
    settle(problem.model)
    states_MD = _give_states(problem, monkeypatch)
    leaves = {"states": states_MD, TABLE: problem.model.encoder.item_embedding.weight}
    if isinstance(problem.model.intents, LearnedIntents):
        leaves[CENTERS] = problem.model.intents.centers_KD
    if isinstance(problem.model.head, Cosine):
        leaves[LOG_SCALE] = problem.model.head.log_scale
    points = {name: leaf.detach().numpy().copy() for name, leaf in leaves.items()}
    points.setdefault(CENTERS, problem.weights.get(CENTERS))

    losses = problem.losses()
    generator = np.random.default_rng(2)
    for name, leaf in leaves.items():
        direction = _direction(name, points[name], generator)

        def equations(moved: Array, name: str = name) -> Array:
            return _terms_of_states(problem, points | {name: moved})

        slopes = reference.slopes(equations, points[name], direction)
        assert _along(losses, leaf, direction) == pytest.approx(slopes, rel=1e-6, abs=1e-9), name


def _give_states(problem: _Problem, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Let the encoder return given states for the items of the step; return them."""
    shape = (len(problem.batch.rows.positions_M), WIDTH)
    states_MD = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()

    def forward(rows: GroupedLayout, _embedded_ND: Tensor | None = None) -> Tensor:
        return states_MD.new_zeros(len(rows.items_N), WIDTH).index_copy(0, rows.positions_M, states_MD)

    monkeypatch.setattr(problem.model.encoder, "forward", forward)
    return states_MD


def _terms_of_states(problem: _Problem, points: dict[str, Array]) -> Array:
    """The equations of every term, with windows filled up by the states of the empty one."""
    rows = np.split(points["states"], problem.batch.rows.lengths_B.cumsum(0)[:-1].numpy())
    # Where padding does not count it spoils every number that it enters.
    empty = rows.pop() if "padding" in problem.batch.parts else np.full((WINDOW, WIDTH), np.nan)
    windows = [np.concatenate((empty[: WINDOW - len(row)], row)) for row in rows]
    inputs, views = windows[:USERS], windows[USERS:]
    shared = (points[TABLE], points[CENTERS], problem.step, problem.config)
    terms = reference.terms(inputs, views, *shared, points.get(LOG_SCALE))
    return np.array(list(terms.values()))


def _direction(name: str, point: Array, generator: np.random.Generator) -> Array:
    direction = reference.random_direction(point, generator)
    if name in (TABLE, OWN) or name.startswith(SHARED):
        direction[0] = 0  # padding, and the centre of no intent, learn nothing
    return direction


def _along(losses: dict[str, Tensor], leaf: Tensor, direction: Array) -> Array:
    """How each loss grows along a direction of one of its inputs, by its gradient."""
    gradients = [torch.autograd.grad(loss, leaf, retain_graph=True, allow_unused=True)[0] for loss in losses.values()]
    return np.array([0.0 if g is None else float((g.numpy() * direction).sum()) for g in gradients])


@pytest.mark.parametrize(
    "case",
    [
        ("elcrec", "bce", "shift", "counted"),
        ("elcrec", "softmax", "concat", "ignored"),
        ("elcrec", "bce", "concat", "encoded"),
        ("iclrec", "sampled_softmax", "none", "ignored"),
        ("elcrec2", "sampled_softmax", "none", "ignored"),
        ("elcrec2 by cosine", "softmax", "none", "ignored"),
        ("elcrec2 by cosine", "sampled_softmax", "none", "ignored"),
        ("sasrec", "softmax", "none", "ignored"),
        ("sasrec+sequence", "bce", "none", "ignored"),
    ],
    ids="-".join,
)
def test_the_gradient_of_the_objective_equals_finite_differences_in_every_weight(case: tuple[str, ...]) -> None:
    problem = _problem(_config(case))
    torch.stack(list(problem.losses().values())).sum().backward()  # type: ignore[no-untyped-call]
    weights, generator = problem.weights, np.random.default_rng(4)
    for name, parameter in problem.model.named_parameters():
        direction = _direction(name, weights[name], generator)

        def objective(moved: Array, name: str = name) -> Array:
            terms = reference.objective(weights | {name: moved}, problem.step, problem.config)
            return np.array(sum(terms.values()))

        assert parameter.grad is not None, name
        slope = reference.slopes(objective, weights[name], direction)
        along = float((parameter.grad.numpy() * direction).sum())
        assert along == pytest.approx(float(slope), rel=1e-6, abs=1e-9), name
    table = problem.model.own_vectors
    assert table.grad is not None
    assert (table.grad[0] == 0).all(), "padding learns nothing"


def _unit_vectors(seed: int, count: int) -> Array:
    vectors = np.random.default_rng(seed).normal(size=(count, WIDTH))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_published_clustering_loss_of_unit_vectors_depends_on_two_means_alone() -> None:
    behaviours, centers = _unit_vectors(0, 9), _unit_vectors(1, 5)
    mean_behaviour, mean_center = behaviours.mean(0), centers.mean(0)
    identity = 2 * mean_center @ mean_center - 2 * mean_behaviour @ mean_center
    np.testing.assert_allclose(reference.published_cluster_loss(behaviours, centers), identity, **EXACT)


def test_the_printed_clustering_loss_weighs_the_centres_distances_more_by_k_over_k_less_1() -> None:
    behaviours, centers = _unit_vectors(0, 9), _unit_vectors(1, 5)
    apart = 2 - 2 * centers.mean(0) @ centers.mean(0)
    printed = reference.printed_cluster_loss(behaviours, centers)
    published = reference.published_cluster_loss(behaviours, centers)
    np.testing.assert_allclose(published - printed, (5 / 4 - 1) * apart, **EXACT)
