import numpy as np
import pytest
import torch

from elcrec.config import EncoderConfig
from elcrec.data.ragged import Ragged
from elcrec.model.encoder import Encoder
from elcrec.model.grouping import group_rows
from elcrec.ops.dropout import attend_dropping
from tests.unit.model.reference import Array, encode, random_direction, slopes

ROWS = [[3], [5, 1, 4], [2, 2], [9, 8, 7, 6, 5, 4, 3], [0, 4, 0, 2], [1] * 12, [7, 0, 0]]
SIZES = {"window": 12, "hidden_size": 8, "num_blocks": 2, "num_heads": 2}
CONFIGS = {
    "paper": EncoderConfig(**SIZES),
    "rotary": EncoderConfig(**SIZES, mixer="rotary"),
    "skip": EncoderConfig(**SIZES, branch="skip", branch_share=0.6),
    "rotary and skip": EncoderConfig(**SIZES, mixer="rotary", branch="skip", branch_share=0.3),
    "differences": EncoderConfig(**SIZES, branch="differences", distances=(1, 2, 13)),
    "gated differences": EncoderConfig(**SIZES, branch="gated_differences", branch_share=None, distances=(1, 2, 5)),
    "mean of gated differences": EncoderConfig(**SIZES, mixer="rotary", branch="gated_differences", distances=(3, 20)),
}


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS)
def config(request: pytest.FixtureRequest) -> EncoderConfig:
    return request.param


@pytest.fixture
def encoder(config: EncoderConfig) -> Encoder:
    return _encoder(config)


def _encoder(config: EncoderConfig) -> Encoder:
    torch.manual_seed(0)
    # Not `double()`, which would keep the rounding of what the layers have computed in single precision.
    torch.set_default_dtype(torch.float64)
    try:
        encoder = Encoder(config, num_items=9).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return encoder


def _weights(encoder: Encoder) -> dict[str, Array]:
    return {f"encoder.{name}": tensor.numpy() for name, tensor in encoder.state_dict().items()}


def _plain(weights: dict[str, Array], config: EncoderConfig) -> Array:
    """The plain encoder's states of all rows' items, one row after another."""
    return np.concatenate([encode(weights, row, config)[-len(row) :] for row in ROWS])


def test_grouped_states_equal_the_plain_encoder_row_by_row(encoder: Encoder, config: EncoderConfig) -> None:
    batch = group_rows(Ragged.from_rows(ROWS))
    states = encoder(batch)[batch.positions_M].detach().numpy()
    np.testing.assert_allclose(states, _plain(_weights(encoder), config), rtol=1e-9)


@pytest.mark.parametrize("row", [row for row in ROWS if 0 not in row])
def test_a_row_alone_has_the_states_of_the_plain_encoder(
    encoder: Encoder, config: EncoderConfig, row: list[int]
) -> None:
    states = encoder.alone(torch.tensor(row)).detach().numpy()

    np.testing.assert_allclose(states, encode(_weights(encoder), row, config)[-len(row) :], rtol=1e-9)


def test_last_is_the_state_at_the_end_of_each_row(encoder: Encoder, config: EncoderConfig) -> None:
    batch = group_rows(Ragged.from_rows(ROWS))
    ends = np.cumsum([len(row) for row in ROWS]) - 1
    np.testing.assert_allclose(encoder.last(batch).detach(), _plain(_weights(encoder), config)[ends], rtol=1e-9)


def test_grouped_gradients_equal_finite_differences_of_the_plain_encoder(
    encoder: Encoder, config: EncoderConfig
) -> None:
    batch = group_rows(Ragged.from_rows(ROWS))
    encoder(batch)[batch.positions_M].square().sum().backward()
    weights, generator = _weights(encoder), np.random.default_rng(0)
    for name, parameter in encoder.named_parameters():
        gradient, point = parameter.grad.numpy(), weights[f"encoder.{name}"]
        direction = random_direction(point, generator)
        if name == "item_embedding.weight":
            assert (gradient[0] == 0).all(), "padding learns nothing"
            direction[0] = 0

        def squares(moved: Array, name: str = name) -> Array:
            return (_plain(weights | {f"encoder.{name}": moved}, config) ** 2).sum()

        slope = float(slopes(squares, point, direction))
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-6, abs=1e-7), name


def test_dropout_of_attention_takes_the_weights_of_dropped_keys_away_after_the_softmax() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 5, 3, generator=generator, dtype=torch.float64)
    mask = torch.full((5, 5), -1e9, dtype=torch.float64).triu(1).expand(4, 5, 5)
    drop = 2.0 * torch.randint(2, (2, 4, 5, 5), generator=generator)
    context = attend_dropping(query, key, value, mask, drop.flatten(0, 1))
    for head, row, place in np.ndindex(2, 4, 5):
        seen = (head, row, slice(place + 1))
        shares = (key[seen] @ query[head, row, place] / 3**0.5).softmax(0) * drop[head, row, place, : place + 1]
        torch.testing.assert_close(context[head, row, place], shares @ value[seen])


def test_attention_of_the_last_position_drops_in_training_alone() -> None:
    torch.manual_seed(0)
    config = EncoderConfig(window=12, hidden_size=8, hidden_dropout=0.0, attention_dropout=0.5)
    encoder = Encoder(config, num_items=9)
    batch = group_rows(Ragged.from_rows(ROWS))
    assert not torch.equal(encoder.train().last(batch), encoder.last(batch))
    torch.testing.assert_close(encoder.eval().last(batch), encoder.last(batch), rtol=0, atol=0)


def test_a_later_item_never_changes_an_earlier_state(encoder: Encoder) -> None:
    def states(row: list[int]) -> torch.Tensor:
        return encoder(group_rows(Ragged.from_rows([row])))

    torch.testing.assert_close(states([1, 2, 3, 4])[:3], states([1, 2, 3, 9])[:3])


def test_company_in_the_batch_does_not_change_a_row(encoder: Encoder) -> None:
    def last(rows: list[list[int]]) -> torch.Tensor:
        batch = group_rows(Ragged.from_rows(rows))
        return encoder(batch)[batch.positions_M][2]

    torch.testing.assert_close(last([[4, 5, 6]]), last([[4, 5, 6], *ROWS]))


def test_with_rotary_positions_an_item_has_the_state_that_ends_its_prefix() -> None:
    def states(encoder: Encoder, row: list[int]) -> torch.Tensor:
        return encoder(group_rows(Ragged.from_rows([row])))

    paper, rotary = (_encoder(CONFIGS[name]) for name in ("paper", "rotary"))

    torch.testing.assert_close(states(rotary, [5, 2, 7, 4])[2], states(rotary, [5, 2, 7])[2])
    assert not torch.allclose(states(paper, [5, 2, 7, 4])[2], states(paper, [5, 2, 7])[2])
    assert not torch.allclose(states(rotary, [5, 2, 7])[2], states(rotary, [2, 5, 7])[2]), "the order counts"


def test_rotary_heads_of_an_odd_width_are_refused() -> None:
    with pytest.raises(ValueError, match="rotary mixer turns pairs"):
        EncoderConfig(hidden_size=6, num_heads=2, mixer="rotary")
