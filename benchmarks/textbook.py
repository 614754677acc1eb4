"""A textbook implementation of ELCRec: the baseline of our engine's benchmarks.

It has the structure of the published code, written anew: every sequence padded to the window, a data set that draws
negatives and views in Python one sample at a time, plain attention with an additive mask, five encoder passes per step,
L_seq over flattened windows, and explicit distance matrices. Nothing in it is slow on purpose, and nothing is
optimised. Where it differs from the published code, it is cheaper: nearest centres come from `torch.cdist`, not from a
broadcast difference of gigabytes.

Axes: `B` rows, `T` window, `D` hidden size, `H` heads, `K` intents, `V` items.
"""

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from benchmarks.jobs import Objective
from benchmarks.meter import Clock
from elcrec.config import EncoderConfig, TrainConfig, ViewConfig

Rows = Sequence[Sequence[int]]

_LLOYD_ITERATIONS = 20
_LLOYD_BLOCK = 65_536
_BLOCK_USERS = 256
_TOP = 20


class SampleDataset(Dataset[tuple[Tensor, ...]]):
    """A user's training items as input, targets, negatives and two views, each padded to the window."""

    def __init__(self, sequences: Rows, num_items: int, config: TrainConfig, *, with_views: bool = True) -> None:
        """Keep the sequences; each has at least two items."""
        self.sequences, self.num_items, self.config, self.with_views = sequences, num_items, config, with_views

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        items = list(self.sequences[index])
        inputs, targets, known = items[:-1], items[1:], set(items)
        rows = [inputs, targets, [self._negative(known) for _ in inputs]]
        if self.with_views:
            rows += [draw_view(inputs, self.config.views), draw_view(inputs, self.config.views)]
        return tuple(torch.tensor(pad(row, self.config.encoder.window)) for row in rows)

    def _negative(self, known: set[int]) -> int:
        item = random.randint(1, self.num_items)
        while item in known:
            item = random.randint(1, self.num_items)
        return item


def pad(row: Sequence[int], window: int) -> list[int]:
    """Return the last `window` items, padded with zeros on the left if there are fewer."""
    recent = list(row[-window:])
    return [0] * (window - len(recent)) + recent


def draw_view(items: list[int], config: ViewConfig) -> list[int]:
    """Crop, mask or reorder, with equal probability."""
    return random.choice((crop, mask, reorder))(items, config)


def crop(items: list[int], config: ViewConfig) -> list[int]:
    """Keep one contiguous run of the items."""
    size = max(1, int(config.crop * len(items)))
    start = random.randint(0, len(items) - size)
    return items[start : start + size]


def mask(items: list[int], config: ViewConfig) -> list[int]:
    """Mask some of the items."""
    masked = list(items)
    for place in random.sample(range(len(items)), int(config.mask * len(items))):
        masked[place] = 0
    return masked


def reorder(items: list[int], config: ViewConfig) -> list[int]:
    """Shuffle one contiguous run of the items."""
    size = int(config.reorder * len(items))
    start = random.randint(0, len(items) - size)
    run = items[start : start + size]
    random.shuffle(run)
    return items[:start] + run + items[start + size :]


class Encoder(nn.Module):
    """SASRec over padded windows."""

    def __init__(self, config: EncoderConfig, num_items: int) -> None:
        """Create the layers."""
        super().__init__()
        self.items = nn.Embedding(num_items + 1, config.hidden_size, padding_idx=0)
        self.positions = nn.Embedding(config.window, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=1e-12)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_blocks))
        self.apply(_initialise)

    def forward(self, items_BT: Tensor) -> Tensor:
        """Return the state at every position, [B, T, D]."""
        window = items_BT.shape[1]
        places_T = torch.arange(window, device=items_BT.device)
        causal_TT = torch.ones(window, window, device=items_BT.device).tril()
        visible_B1TT = (items_BT > 0)[:, None, None, :] * causal_TT
        additive_B1TT = (1.0 - visible_B1TT) * -10000.0
        states_BTD: Tensor = self.dropout(self.norm(self.items(items_BT) + self.positions(places_T)))
        for layer in self.layers:
            states_BTD = layer(states_BTD, additive_B1TT)
        return states_BTD


class Layer(nn.Module):
    """Post-norm transformer block."""

    def __init__(self, config: EncoderConfig) -> None:
        """Create the layers."""
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.attention_dropout = nn.Dropout(config.attention_dropout)
        self.attention_norm = nn.LayerNorm(width, eps=1e-12)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.feed_forward_norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, states_BTD: Tensor, additive_B1TT: Tensor) -> Tensor:
        """Transform the states, [B, T, D]."""
        attended_BTD = self.dropout(self.out(self._attend(states_BTD, additive_B1TT)))
        states_BTD = self.attention_norm(states_BTD + attended_BTD)
        widened_BTD = self.dropout(self.down(F.gelu(self.up(states_BTD))))
        normed_BTD: Tensor = self.feed_forward_norm(states_BTD + widened_BTD)
        return normed_BTD

    def _attend(self, states_BTD: Tensor, additive_B1TT: Tensor) -> Tensor:
        query_BHTd, key_BHTd, value_BHTd = (
            project(states_BTD).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        scores_BHTT = query_BHTd @ key_BHTd.transpose(2, 3) / query_BHTd.shape[3] ** 0.5 + additive_B1TT
        weights_BHTT = self.attention_dropout(scores_BHTT.softmax(3))
        context_BTD: Tensor = (weights_BHTT @ value_BHTd).transpose(1, 2).flatten(2)
        return context_BTD


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


class TextbookModel(nn.Module):
    """The encoder, the intent centres and the objective."""

    def __init__(self, config: TrainConfig, num_items: int, objective: Objective = "elcrec") -> None:
        """Create the layers; only ELCRec's centres are learned."""
        super().__init__()
        self.objective = objective
        self.config = config
        self.weights = {"sequence": 0.1, "intent": 0.1, "cluster": 1.0} | config.weights
        self.window = config.encoder.window
        self.encoder = Encoder(config.encoder, num_items)
        centers_KD = F.normalize(torch.randn(config.intents.num_intents, config.encoder.hidden_size), dim=1)
        self.centers_KD = nn.Parameter(centers_KD, requires_grad=objective == "elcrec")

    def losses(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the weighted terms of the objective."""
        inputs_BT, targets_BT, negatives_BT, *views = batch
        states_BTD = self.encoder(inputs_BT)
        losses = {"next_item": self.next_item_loss(states_BTD, targets_BT, negatives_BT)}
        if self.objective == "sasrec":
            return losses
        pooled_BD = F.normalize(states_BTD.mean(1), dim=1)
        losses["sequence"] = self.weights["sequence"] * self._sequence_loss(views)
        losses["intent"] = self.weights["intent"] * self._intent_loss(views, pooled_BD)
        if self.objective == "elcrec":
            losses["cluster"] = self.weights["cluster"] * cluster_loss(pooled_BD, self.centers_KD)
        return losses

    def next_item_loss(self, states_BTD: Tensor, targets_BT: Tensor, negatives_BT: Tensor) -> Tensor:
        """L_next: binary cross entropy against one negative per position."""
        positive_BT = (states_BTD * self.encoder.items(targets_BT)).sum(2).sigmoid()
        negative_BT = (states_BTD * self.encoder.items(negatives_BT)).sum(2).sigmoid()
        loss_BT = -torch.log(positive_BT + 1e-24) - torch.log(1 - negative_BT + 1e-24)
        real_BT = (targets_BT > 0).float()
        return (loss_BT * real_BT).sum() / real_BT.sum()

    def _sequence_loss(self, views: Sequence[Tensor]) -> Tensor:
        states_BTD = self.encoder(torch.cat(tuple(views)))
        if self.objective == "elcrec":
            states_BTD = self._fuse(states_BTD)
        first, second = states_BTD.flatten(1).chunk(2)
        return info_nce(first, second, self.config.views.temperature)

    def _fuse(self, states_BTD: Tensor) -> Tensor:
        centers_BTD = self.centers_KD[self.nearest(states_BTD)]
        fusion = self.config.intents.fusion
        if fusion == "concat":
            return torch.cat((states_BTD, centers_BTD), dim=2)
        return states_BTD + centers_BTD if fusion == "shift" else states_BTD

    def _intent_loss(self, views: Sequence[Tensor], pooled_BD: Tensor) -> Tensor:
        """Return L_intent; both views are encoded once more, as in the published code."""
        first, second = self.encoder(torch.cat(tuple(views))).mean(1).chunk(2)
        centers_BD = self.centers_KD[self.nearest(pooled_BD)]
        temperature = self.config.intents.temperature
        return (info_nce(first, centers_BD, temperature) + info_nce(second, centers_BD, temperature)) / 2

    @torch.no_grad()
    def nearest(self, vectors: Tensor) -> Tensor:
        """Return the index of each vector's nearest centre."""
        distances = torch.cdist(vectors.flatten(0, -2), self.centers_KD)
        return distances.argmin(1).view(vectors.shape[:-1])

    @torch.no_grad()
    def place_centers(self, sequences: Rows) -> None:
        """Set the centres by k-means on all users' pooled states."""
        self.eval()
        device = self.centers_KD.device
        blocks = [self.encoder(block.to(device)).mean(1) for block in _padded_blocks(sequences, self.window)]
        self.centers_KD.copy_(F.normalize(kmeans(torch.cat(blocks), len(self.centers_KD)), dim=1))


def cluster_loss(pooled_BD: Tensor, centers_KD: Tensor) -> Tensor:
    """L_cluster from all distances: behaviours to centres, centres to centres."""
    count = len(centers_KD)
    to_centers_BK = (pooled_BD[:, None] - centers_KD[None]).square().sum(2)
    between_KK = (centers_KD[:, None] - centers_KD[None]).square().sum(2)
    return to_centers_BK.mean() - between_KK.sum() / (count * (count - 1))


def info_nce(first_BD: Tensor, second_BD: Tensor, temperature: float) -> Tensor:
    """InfoNCE: each row must find its partner among the other 2 B - 1 rows."""
    size = len(first_BD)
    rows = torch.cat((first_BD, second_BD))
    similarities = rows @ rows.T / temperature
    similarities.fill_diagonal_(-torch.inf)
    return F.cross_entropy(similarities, torch.arange(2 * size, device=rows.device).roll(size))


def kmeans(points_ND: Tensor, num_clusters: int) -> Tensor:
    """Run Lloyd's algorithm from random points, [K, D]; an empty cluster keeps its centre."""
    centers_KD = points_ND[torch.randperm(len(points_ND))[:num_clusters].to(points_ND.device)].clone()
    for _ in range(_LLOYD_ITERATIONS):
        nearest_N = torch.cat(
            [torch.cdist(block, centers_KD).argmin(1) for block in torch.split(points_ND, _LLOYD_BLOCK)]
        )
        counts_K = torch.bincount(nearest_N, minlength=num_clusters)
        sums_KD = torch.zeros_like(centers_KD).index_add_(0, nearest_N, points_ND)
        centers_KD = torch.where(counts_K[:, None] > 0, sums_KD / counts_K[:, None].clamp(min=1), centers_KD)
    return centers_KD


def train(
    sequences: Rows,
    num_items: int,
    config: TrainConfig,
    clock: Clock,
    *,
    objective: Objective = "elcrec",
    workers: int = 0,
) -> tuple[TextbookModel, list[float]]:
    """Train an epoch for each of the clock's limits; return the model and the loss of each step."""
    random.seed(config.seed)
    torch.manual_seed(config.seed)
    dataset = SampleDataset(sequences, num_items, config, with_views=objective != "sasrec")
    pinned = clock.device.type == "cuda"
    loader = DataLoader(dataset, config.batch_size, shuffle=True, num_workers=workers, pin_memory=pinned)
    model = TextbookModel(config, num_items, objective).to(clock.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    clock.whole = len(loader)
    losses = []
    for epoch in range(len(clock.limits)):
        if objective == "iclrec" or (objective == "elcrec" and epoch == 0):
            model.place_centers([row[:-1] for row in sequences])
        model.train()
        losses += [_step(model, optimizer, batch, clock.device) for batch in clock.watch(loader)]
    return model, losses


def _step(model: TextbookModel, optimizer: torch.optim.Optimizer, batch: list[Tensor], device: torch.device) -> float:
    losses = model.losses([tensor.to(device, non_blocking=True) for tensor in batch])
    loss = torch.stack(list(losses.values())).sum()
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    if model.objective == "elcrec":
        model.centers_KD.data = F.normalize(model.centers_KD.data, dim=1)
    return loss.item()


@torch.no_grad()
def rank(model: TextbookModel, histories: Rows) -> npt.NDArray[np.int64]:
    """Return the twenty best items of each user outside their history, best first, [U, 20]."""
    model.eval()
    device, top = model.centers_KD.device, []
    for start in range(0, len(histories), _BLOCK_USERS):
        block = histories[start : start + _BLOCK_USERS]
        (items_BT,) = _padded_blocks(block, model.window)
        states_BD = model.encoder(items_BT.to(device))[:, -1]
        scores_BV = (states_BD @ model.encoder.items.weight.T).cpu().numpy()
        top.append(_best(scores_BV, block))
    return np.concatenate(top)


def _best(scores_BV: npt.NDArray[np.float32], histories: Rows) -> npt.NDArray[np.int64]:
    seen_BV = np.zeros(scores_BV.shape, bool)
    seen_BV[:, 0] = True
    for row, history in enumerate(histories):
        seen_BV[row, history] = True
    scores_BV[seen_BV] = -np.inf
    best = np.argpartition(scores_BV, -_TOP)[:, -_TOP:]
    order = np.argsort(-np.take_along_axis(scores_BV, best, axis=1), axis=1)
    return np.take_along_axis(best, order, axis=1)


def ranks_of(top: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return each target's place among the twenty best, from 1; 0 if it is not among them."""
    hits = top == targets[:, None]
    return np.where(hits.any(1), hits.argmax(1) + 1, 0)


def _padded_blocks(sequences: Rows, window: int) -> list[Tensor]:
    starts = range(0, len(sequences), _BLOCK_USERS)
    return [torch.tensor([pad(row, window) for row in sequences[s : s + _BLOCK_USERS]]) for s in starts]
