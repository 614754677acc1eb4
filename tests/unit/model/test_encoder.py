import pytest
import torch

from elcrec.config import EncoderConfig
from elcrec.data.ragged import Ragged
from elcrec.model.elcrec import batch_of
from elcrec.model.encoder import Encoder
from tests.unit.model.reference import encode_row

ROWS = [[3], [5, 1, 4], [2, 2], [9, 8, 7, 6, 5, 4, 3], [0, 4, 0, 2], [1] * 12, [7, 0, 0]]


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    config = EncoderConfig(window=12, hidden_size=8, num_blocks=2, num_heads=2)
    encoder = Encoder(config, num_items=9).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    torch.nn.init.zeros_(encoder.item_embedding.weight[0].detach())
    return encoder


def test_grouped_states_equal_the_plain_encoder_row_by_row(encoder: Encoder) -> None:
    batch = batch_of(Ragged.from_rows(ROWS), torch.device("cpu"))
    lengths = torch.tensor([len(row) for row in ROWS])
    states = encoder(batch)[batch.positions_M].split(lengths.tolist())
    for row, state in zip(ROWS, states, strict=True):
        torch.testing.assert_close(state, encode_row(encoder, row), rtol=1e-4, atol=1e-5)


def test_grouped_gradients_equal_the_plain_encoder(encoder: Encoder) -> None:
    batch = batch_of(Ragged.from_rows(ROWS), torch.device("cpu"))
    encoder(batch)[batch.positions_M].square().sum().backward()
    fast = {name: parameter.grad.clone() for name, parameter in encoder.named_parameters()}
    encoder.zero_grad()
    sum(encode_row(encoder, row).square().sum() for row in ROWS).backward()
    for name, parameter in encoder.named_parameters():
        gradient = parameter.grad
        if name == "item_embedding.weight":
            assert fast[name][0].abs().max() == 0, "padding learns nothing"
            gradient[0] = 0
        torch.testing.assert_close(fast[name], gradient, rtol=1e-3, atol=1e-4, msg=name)


def test_a_later_item_never_changes_an_earlier_state(encoder: Encoder) -> None:
    def states(row: list[int]) -> torch.Tensor:
        return encoder(batch_of(Ragged.from_rows([row]), torch.device("cpu")))

    torch.testing.assert_close(states([1, 2, 3, 4])[:3], states([1, 2, 3, 9])[:3])


def test_company_in_the_batch_does_not_change_a_row(encoder: Encoder) -> None:
    def last(rows: list[list[int]]) -> torch.Tensor:
        batch = batch_of(Ragged.from_rows(rows), torch.device("cpu"))
        return encoder(batch)[batch.positions_M][2]

    torch.testing.assert_close(last([[4, 5, 6]]), last([[4, 5, 6], *ROWS]))
