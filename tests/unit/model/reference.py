"""The model and its objective written plainly: float64 NumPy, one row, one position and one pair at a time.

Sources: Kang and McAuley, ICDM 2018 (encoder); Chen et al., WWW 2022 (views and contrastive losses); Liu et al.,
NeurIPS 2024 (clustering loss and fusion); docs/adr/0004 (what padding counts). Every row fills its whole window here,
padding and all, which the model does with `padding: encoded` alone.

Axes: `B` rows, `M` items of all rows, `T` window, `D` hidden size, `K` intents, `V` items, `S` drawn negatives.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from elcrec.config import EncoderConfig, NextItemConfig, TrainConfig
from elcrec.registry import find_objective
from elcrec.training.step import Step as TrainingStep

Array = npt.NDArray[np.float64]
Weights = Mapping[str, Array]

TABLE, CENTERS, LOG_SCALE = "encoder.item_embedding.weight", "intents.centers_KD", "head.log_scale"
OWN, SHARED = (f"encoder.item_embedding.parametrizations.weight.{part}" for part in ("original", "0"))
"""Where the table is a sum: the items' own vectors, and what they share."""

_erf = np.vectorize(math.erf)


@dataclass(frozen=True, kw_only=True)
class Step:
    """The parts of a training step, as lists.

    Attributes:
        inputs: what the encoder reads of each user, B rows; with `padding: encoded` whole windows, as the views.
        positives: the item that came next at each item of the inputs, [M]; 0 at padding.
        negatives: one for each positive (bce), or some for all (sampled softmax).
        log_counts: log of how often each of those is expected.
        views: the first views of all users, then the second views, 2 B rows; none without contrastive losses.
    """

    inputs: list[list[int]]
    positives: list[int]
    negatives: list[int]
    log_counts: list[float]
    views: list[list[int]]


def read_step(step: TrainingStep) -> Step:
    """Read a step back from the tensors that the model gets."""
    flat = step.rows.of_items(step.rows.items_N)
    rows = [row.tolist() for row in flat.split(step.rows.lengths_B.tolist())]
    users, negatives = step.num_sequences, step.negatives
    asked = torch.ones_like(step.targets_M) if step.weights_M is None else step.weights_M.long()
    return Step(
        inputs=rows[:users],
        positives=(step.targets_M * asked).tolist(),
        negatives=[] if negatives is None else negatives.items.tolist(),
        log_counts=[] if negatives is None or negatives.log_counts is None else negatives.log_counts.tolist(),
        views=rows[users : 3 * users] if "views" in step.parts else [],
    )


def read_weights(model: nn.Module) -> dict[str, Array]:
    """Return a model's parameters and buffers by name."""
    return {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}


def objective(weights: Weights, step: Step, config: TrainConfig) -> dict[str, float]:
    """The weighted terms of one step, from items to losses, without dropout."""
    sees_all = config.padding == "encoded"
    weights = {**weights, TABLE: item_table(weights, config.intents.center_scale)}
    inputs, views = (
        [encode(weights, row, config.encoder, sees_all=sees_all) for row in rows] for rows in (step.inputs, step.views)
    )
    return terms(inputs, views, weights[TABLE], weights.get(CENTERS), step, config, weights.get(LOG_SCALE))


def item_table(weights: Weights, scale: float) -> Array:
    """The item table, or the sum that it is: each item's own vector and the scaled centre of its intent in each set."""
    if TABLE in weights:
        return weights[TABLE]
    table = weights[OWN].copy()
    sets = sum(name.startswith(f"{SHARED}.row_") for name in weights)
    for number in range(sets):
        centers, rows = weights[f"{SHARED}.centers.{number}"], weights[f"{SHARED}.row_{number}"].astype(int)
        for item, row in enumerate(rows):
            table[item] += scale * centers[row]  # that of row 0, of no intent, is zero in training
    return table


def terms(
    inputs: Sequence[Array],
    views: Sequence[Array],
    table: Array,
    centers: Array | None,
    step: Step,
    config: TrainConfig,
    log_scale: Array | None = None,
) -> dict[str, float]:
    """The weighted terms, given a window of states, [T, D], for every row."""
    states = [_own(window, row) for window, row in zip(inputs, step.inputs, strict=True)]
    own = np.concatenate(states)
    if log_scale is not None:
        own, table = np.exp(log_scale) * _unit(own), _unit(table)
    asked = np.array(step.positives) != 0
    values = {"next_item": next_item_loss(own, table, step, config.next_item, asked)}
    if step.views:
        values["sequence"] = sequence_loss(views, centers, step, config)
    if centers is not None and config.model.intents != "items":
        values |= _terms_of_intents(inputs, views, centers, step, config)
    asked_for = find_objective(config.objective).terms
    weights = {"next_item": 1.0, "sequence": 0.1, "intent": 0.1, "cluster": 1.0} | config.weights
    return {name: weights[name] * values[name] for name in asked_for if weights[name]}


def _terms_of_intents(
    inputs: Sequence[Array], views: Sequence[Array], centers: Array, step: Step, config: TrainConfig
) -> dict[str, float]:
    rows = step.inputs
    pooled = np.stack([_pooled(window, row, config) for window, row in zip(inputs, rows, strict=True)])
    values = {"cluster": published_cluster_loss(_unit(pooled), centers)}
    if step.views:
        behaviours = [_own(window, row).mean(0) for window, row in zip(inputs, rows, strict=True)]
        ids = [_nearest(centers, state) for state in behaviours]
        nearest = centers[ids]
        if config.model.intents == "clustered":  # means of states; ELCRec's are unit vectors already
            nearest = _unit(nearest)
        means = np.stack([_own(window, row).mean(0) for window, row in zip(views, step.views, strict=True)])
        groups = ids if config.intents.mask_same_intent else None
        halves = [intent_loss(half, nearest, config.intents.temperature, groups) for half in np.split(means, 2)]
        values["intent"] = (halves[0] + halves[1]) / 2
    return values


def encode(weights: Weights, items: Sequence[int], config: EncoderConfig, *, sees_all: bool = False) -> Array:
    """States of a whole window, [T, D]: the row's items on the right, padding before them.

    With `sees_all` a position that sees no item sees the whole window instead of itself.
    """
    window = [0] * (config.window - len(items)) + list(items)
    places = 0.0 if config.mixer == "rotary" else weights["encoder.position_embedding.weight"]
    states = _norm(weights, "encoder.norm", weights[TABLE][window] + places)
    for index in range(config.num_blocks):
        block = f"encoder.blocks.{index}"
        seen = [_seen(window, place, sees_all=sees_all) for place in range(len(window))]
        attended = _attend(weights, f"{block}.mixer", states, seen, config)
        changed = np.zeros_like(states)
        if config.branch is not None:
            first = config.window - len(items)
            changed = BRANCHES[config.branch](weights, f"{block}.branch", states, first, config)
        if config.branch is None or config.branch_share is None:
            states = _norm(weights, f"{block}.mixer_norm", states + attended + changed)
        else:
            kept = config.branch_share * _norm(weights, f"{block}.branch_norm", states + changed)
            states = kept + (1 - config.branch_share) * _norm(weights, f"{block}.mixer_norm", states + attended)
        inner = _linear(weights, f"{block}.up", states)
        inner = inner * (1 + _erf(inner / math.sqrt(2))) / 2
        states = _norm(weights, f"{block}.feed_forward_norm", states + _linear(weights, f"{block}.down", inner))
    return states


def _skip(weights: Weights, name: str, states: Array, first: int, config: EncoderConfig) -> Array:
    """Nothing is added."""
    return np.zeros_like(states)


def _differences(weights: Weights, name: str, states: Array, first: int, config: EncoderConfig) -> Array:
    """A linear layer over the mean difference to earlier states."""
    shares = np.exp(weights[f"{name}.logits"])
    shares /= shares.sum()
    changes = [states - _before(states, first, distance) for distance in config.distances]
    mean = sum(share * change for share, change in zip(shares, changes, strict=True))
    return weights[f"{name}.strength"] * _linear(weights, f"{name}.out", mean)


def _gated_differences(weights: Weights, name: str, states: Array, first: int, config: EncoderConfig) -> Array:
    """A mean of the state and its differences, by a gate that reads the state and all earlier ones in them."""
    known, features = {0: states}, [states]
    for distance in config.distances:
        once, twice = (_before(states, first, gap) for gap in (distance, 2 * distance))
        features += [once - states, twice - 2 * once + states]
        known |= {distance: once, 2 * distance: twice}
    inner = _linear(weights, f"{name}.gate", np.concatenate([known[gap] for gap in sorted(known)], axis=1))
    logits = _linear(weights, f"{name}.shares", inner / (1 + np.exp(-inner)))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return weights[f"{name}.strength"] * sum(shares[:, [at]] * each for at, each in enumerate(features))


BRANCHES = {"skip": _skip, "differences": _differences, "gated_differences": _gated_differences}


def _before(states: Array, first: int, gap: int) -> Array:
    """The state of each position's row that many items earlier, zeros before the row's first item."""
    earlier = np.zeros_like(states)
    earlier[first + gap :] = states[first : max(first, len(states) - gap)]
    return earlier


def _seen(window: list[int], place: int, *, sees_all: bool) -> list[int]:
    """Each position sees the items up to itself, or itself alone or all where there are none."""
    items = [other for other in range(place + 1) if window[other] != 0]
    return items or (list(range(len(window))) if sees_all else [place])


def _attend(weights: Weights, name: str, states: Array, seen: list[list[int]], config: EncoderConfig) -> Array:
    """Mix the values of the positions that each position sees."""
    query, key, value = np.split(_linear(weights, f"{name}.query_key_value", states), 3, axis=1)
    width = states.shape[1] // config.num_heads
    if config.mixer == "rotary":
        query, key = (_turn(part, width) for part in (query, key))
    context = np.empty_like(states)
    for head in range(config.num_heads):
        part = slice(head * width, (head + 1) * width)
        for place, others in enumerate(seen):
            scores = np.array([query[place, part] @ key[other, part] / math.sqrt(width) for other in others])
            shares = np.exp(scores - scores.max())
            context[place, part] = shares / shares.sum() @ value[others, part]
    return _linear(weights, f"{name}.out", context)


def _turn(vectors: Array, width: int) -> Array:
    """RoFormer, equation 13: the planes of each head, complex numbers, turned by their angle times the place."""
    heads = vectors.reshape(len(vectors), -1, width)
    planes = heads[..., : width // 2] + 1j * heads[..., width // 2 :]
    angles = 10_000.0 ** (-2 * np.arange(width // 2) / width)
    turned = planes * np.exp(1j * np.arange(len(vectors))[:, None, None] * angles)
    return np.concatenate([turned.real, turned.imag], axis=-1).reshape(vectors.shape)


def _linear(weights: Weights, name: str, states: Array) -> Array:
    return states @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _norm(weights: Weights, name: str, states: Array) -> Array:
    centred = states - states.mean(1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-12)
    return weights[f"{name}.weight"] * scaled + weights[f"{name}.bias"]


def next_item_loss(
    states: Array, table: Array, step: Step, config: NextItemConfig, asked: npt.NDArray[np.bool_]
) -> float:
    """L_next: the mean over all positions of all rows that hold an item."""
    if config.loss == "bce":
        losses = binary_losses(states, table, step.positives, step.negatives)
    elif config.loss == "softmax":
        losses = softmax_losses(states, table, step.positives)
    else:
        losses = sampled_softmax_losses(states, table, step.positives, step.negatives, step.log_counts)
    if config.robustness:
        losses = [(1 - math.exp(-loss) ** config.robustness) / config.robustness for loss in losses]
    return float(np.mean(np.array(losses)[asked]))


def binary_losses(states: Array, table: Array, positives: Sequence[int], negatives: Sequence[int]) -> list[float]:
    """-log sigmoid(s . positive) - log(1 - sigmoid(s . negative)) at each position."""
    losses = []
    for state, positive, negative in zip(states, positives, negatives, strict=True):
        right, wrong = (1 / (1 + math.exp(-float(state @ table[item]))) for item in (positive, negative))
        losses.append(-math.log(right) - math.log(1 - wrong))
    return losses


def softmax_losses(states: Array, table: Array, targets: Sequence[int]) -> list[float]:
    """-log of the target's share of the sum of exp over all items but padding, at each position."""
    losses = []
    for state, target in zip(states, targets, strict=True):
        logits = [float(state @ vector) for vector in table[1:]]
        losses.append(_log_sum(logits) - logits[target - 1])
    return losses


def sampled_softmax_losses(
    states: Array, table: Array, targets: Sequence[int], negatives: Sequence[int], log_counts: Sequence[float]
) -> list[float]:
    """The target against itself and every draw of another item, each draw divided by its expected count."""
    losses = []
    for state, target in zip(states, targets, strict=True):
        right = float(state @ table[target])
        drawn = zip(negatives, log_counts, strict=True)
        wrong = [float(state @ table[item]) - log_count for item, log_count in drawn if item != target]
        losses.append(_log_sum([right, *wrong]) - right)
    return losses


def _log_sum(logits: Sequence[float]) -> float:
    largest = max(logits)
    return largest + math.log(sum(math.exp(logit - largest) for logit in logits))


def printed_cluster_loss(behaviours: Array, centers: Array) -> float:
    """L_cluster as the paper prints it: the mean of |h_i - c_j|^2, less 1/((K-1)K) of |c_i - c_j|^2 over i != j."""
    size = len(centers)
    apart = sum(_squared(centers[i], centers[j]) for i in range(size) for j in range(size) if i != j)
    return _pull(behaviours, centers) - apart / ((size - 1) * size)


def published_cluster_loss(behaviours: Array, centers: Array) -> float:
    """L_cluster as the published code has it: the mean over centres is over all K^2 pairs."""
    apart = sum(_squared(one, other) for one in centers for other in centers)
    return _pull(behaviours, centers) - apart / len(centers) ** 2


def _pull(behaviours: Array, centers: Array) -> float:
    return sum(_squared(h, c) for h in behaviours for c in centers) / (len(behaviours) * len(centers))


def _squared(one: Array, other: Array) -> float:
    return float(((one - other) ** 2).sum())


def sequence_loss(views: Sequence[Array], centers: Array | None, step: Step, config: TrainConfig) -> float:
    """L_seq: each of the 2 B views must find the other view of its sequence among all views."""
    vectors = [_compared(window, row, centers, config) for window, row in zip(views, step.views, strict=True)]
    return info_nce(np.stack(vectors), config.views.temperature)


def _compared(window: Array, row: list[int], centers: Array | None, config: TrainConfig) -> Array:
    """What of a view is compared; a product of two of them is a mean over positions, hence the root."""
    if centers is None or config.model.intents == "clustered":
        fused = window
    else:
        fused = _fused(window, centers, config.intents.fusion)
    if config.padding == "encoded":
        return fused.flatten() / math.sqrt(len(window))
    return _own(fused, row).mean(0)


def _fused(window: Array, centers: Array, fusion: str) -> Array:
    if fusion == "none":
        return window
    nearest = [centers[_nearest(centers, state)] for state in window]
    return np.stack(
        [
            state + center if fusion == "shift" else np.concatenate((state, center))
            for state, center in zip(window, nearest, strict=True)
        ]
    )


def intent_loss(views: Array, centers: Array, temperature: float, intents: Sequence[int] | None) -> float:
    """L_intent of one view: B mean states and the B centres of their sequences' intents must find each other.

    With `intents`, the others among which a row's partner must be found are those of other intents.
    """
    groups = None if intents is None else [*intents, *intents]
    return info_nce(np.concatenate((views, centers)), temperature, groups)


def info_nce(vectors: Array, temperature: float, groups: Sequence[int] | None = None) -> float:
    """-log of the partner's share of the sum of exp over all other rows; partners stand half the rows apart."""
    size, losses = len(vectors), []
    for row in range(size):
        partner = (row + size // 2) % size
        others = [other for other in range(size) if other not in (row, partner)]
        if groups is not None:
            others = [other for other in others if groups[other] != groups[row]]
        scores = [float(vectors[row] @ vectors[other]) / temperature for other in (partner, *others)]
        losses.append(_log_sum(scores) - scores[0])
    return float(np.mean(losses))


def _own(window: Array, row: list[int]) -> Array:
    """The states of a row's own positions; a masked item has one too."""
    return window[len(window) - len(row) :]


def _pooled(window: Array, row: list[int], config: TrainConfig) -> Array:
    pooled: Array = (window if config.padding == "counted" else _own(window, row)).mean(0)
    return pooled


def _nearest(centers: Array, state: Array) -> int:
    return int(np.argmin([_squared(state, center) for center in centers]))


def _unit(vectors: Array) -> Array:
    unit: Array = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit


def slopes(function: Callable[[Array], Array], point: Array, direction: Array, step: float = 1e-5) -> Array:
    """Central differences of some numbers along a direction of unit length."""
    return (function(point + step * direction) - function(point - step * direction)) / (2 * step)


def random_direction(like: Array, generator: np.random.Generator) -> Array:
    """Draw a unit vector: a wrong gradient agrees with the right one along it with probability 0."""
    direction = generator.normal(size=like.shape)
    return direction / np.linalg.norm(direction)
