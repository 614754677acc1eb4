"""The layout for GPUs gives the same results as the layout for CPUs and as the plain encoder."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from elcrec.config import EncoderConfig
from elcrec.data.ragged import Ragged
from elcrec.model.encoder import Encoder
from elcrec.model.grouping import group_rows
from elcrec.model.packing import PackedLayout, chunk_of, pack, slots
from tests.unit.model.reference import Array, encode

CPU = torch.device("cpu")
WINDOW = 12
CONFIG = EncoderConfig(window=WINDOW, hidden_size=8, num_blocks=2, num_heads=2)
ROWS = [[3], [5, 1, 4], [2, 2], [9, 8, 7, 6, 5, 4, 3], [0, 4, 0, 2], [1] * 12, [7, 0, 0], [0, 0], *([[6, 5, 4, 3]] * 9)]
SIZE = sum(map(len, ROWS))


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(CONFIG, num_items=9).double().eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return encoder


def _packed(rows: list[list[int]] = ROWS) -> PackedLayout:
    return pack(Ragged.from_rows(rows), WINDOW, CPU)


def _plain(encoder: Encoder) -> Array:
    weights = {f"encoder.{name}": tensor.numpy() for name, tensor in encoder.state_dict().items()}
    return np.concatenate([encode(weights, row, CONFIG)[-len(row) :] for row in ROWS])


def test_packed_states_equal_the_plain_encoder_row_by_row(encoder: Encoder) -> None:
    batch = _packed()
    assert len(batch.items_N) > 2 * batch.chunk, "rows cross from one chunk to the next"
    np.testing.assert_allclose(encoder(batch)[:SIZE].detach(), _plain(encoder), rtol=1e-9)


def test_the_last_states_are_those_at_the_ends_of_rows(encoder: Encoder) -> None:
    ends = np.cumsum([len(row) for row in ROWS]) - 1
    np.testing.assert_allclose(encoder.last(_packed()).detach(), _plain(encoder)[ends], rtol=1e-9)


def test_gradients_are_those_of_the_grouped_layout(encoder: Encoder) -> None:
    def gradients(states_MD: Tensor) -> list[Tensor]:
        return torch.autograd.grad(states_MD.square().sum(), list(encoder.parameters()))

    grouped = group_rows(Ragged.from_rows(ROWS))
    theirs = gradients(grouped.of_items(encoder(grouped)))
    for ours, other in zip(gradients(encoder(_packed())[:SIZE]), theirs, strict=True):
        torch.testing.assert_close(ours, other)


def test_dropout_of_attention_is_drawn_in_training_alone(encoder: Encoder) -> None:
    batch = _packed()
    torch.testing.assert_close(encoder(batch), encoder(batch), rtol=0, atol=0)
    encoder.dropout.p = 0.0
    assert not torch.equal(encoder.train()(batch), encoder(batch))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(0, 20))
def test_every_position_knows_its_row_its_place_and_its_age(lengths: list[int], unused: int) -> None:
    size = sum(lengths) + unused
    row, place, age = (part.tolist() for part in slots(torch.tensor(lengths), size))
    expected = [(b, p, n - 1 - p) for b, n in enumerate(lengths) for p in range(n)]
    assert list(zip(row, place, age, strict=True))[: len(expected)] == expected
    assert row[len(expected) :] == [len(lengths)] * unused
    assert age[len(expected) :] == [0] * unused


def test_sums_of_rows_are_those_of_the_grouped_layout() -> None:
    generator = torch.Generator().manual_seed(3)
    packed, grouped = _packed(), group_rows(Ragged.from_rows(ROWS))
    noisy_ND = torch.randn(len(packed.items_N), 8, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(packed.sum(noisy_ND), grouped.sum(noisy_ND[:SIZE]))


def test_values_before_a_position_in_its_row_are_the_same_in_both_layouts() -> None:
    states_MD = torch.arange(1.0, SIZE + 1)[:, None]
    expected = [0.0 if place < 2 else first + place - 1 for row, first in _firsts() for place in range(len(row))]
    packed, grouped = _packed(), group_rows(Ragged.from_rows(ROWS))
    noisy_ND = torch.full((len(packed.items_N), 1), torch.inf).index_copy(0, torch.arange(SIZE), states_MD)
    assert packed.before(noisy_ND, 2)[:SIZE, 0].tolist() == expected
    noisy_ND = torch.full((len(grouped.items_N), 1), -7.0).index_copy(0, grouped.positions_M, states_MD)
    assert grouped.of_items(grouped.before(noisy_ND, 2))[:, 0].tolist() == expected


def _firsts() -> list[tuple[list[int], int]]:
    """Each row, and how many items stand before it."""
    return list(zip(ROWS, np.cumsum([0, *map(len, ROWS)]).tolist(), strict=False))


@pytest.mark.parametrize("window", [1, 8, 50, 200])
def test_a_chunk_holds_the_window_and_suits_fused_kernels(window: int) -> None:
    assert window <= chunk_of(window) < window + 8
    assert chunk_of(window) % 8 == 0
