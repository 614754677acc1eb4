"""A checkpoint of the published code becomes a model that computes the same, or is refused in one line."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from elcrec.adapters.published_weights import read_published
from elcrec.data.ragged import Ragged
from elcrec.errors import UserError
from elcrec.model.grouping import group_rows
from elcrec.model.sequence_model import SequenceModel
from tests.support.textbook import Textbook

ITEMS = 30
ORDER = np.random.default_rng(5).permutation(ITEMS) + 1
State = dict[str, Any]


def random_rows(count: int = 60, longest: int = 70) -> list[list[int]]:
    """Raw histories, the first of one item, some longer than the window."""
    random = np.random.default_rng(11)
    lengths = [1, 2, longest, *random.integers(1, longest, count - 3)]
    return [random.integers(1, ITEMS + 1, length).tolist() for length in lengths]


def renumbered(rows: list[list[int]]) -> Ragged:
    """The same rows in our indices: `ORDER` says which raw id has which."""
    index = np.zeros(ITEMS + 1, np.int64)
    index[ORDER] = np.arange(1, ITEMS + 1)
    return Ragged.from_rows([index[row].tolist() for row in rows])


def save(state: object, folder: Path) -> Path:
    path = folder / "published.pt"
    torch.save(state, path)
    return path


def imported(state: object, folder: Path, heads: int = 2) -> SequenceModel:
    return read_published(save(state, folder)).to_model(ORDER, heads)


def states_of(model: SequenceModel, rows: Ragged) -> list[Tensor]:
    """The encoder's states, a tensor for each row."""
    recent = rows.tail(model.config.encoder.window)
    rows, lengths = group_rows(recent), torch.from_numpy(recent.lengths)
    with torch.inference_mode():
        flat = rows.of_items(model.encoder(rows))
    return list(flat.split(lengths.tolist()))


@pytest.mark.parametrize("shape", [{}, {"blocks": 3, "heads": 4}, {"window": 7, "hidden_size": 12, "blocks": 1}])
def test_every_real_position_has_the_state_of_the_textbook(tmp_path: Path, shape: dict[str, int]) -> None:
    """In double precision: attention this sharp turns float32's rounding into more than 1e-5."""
    textbook, rows = Textbook(ITEMS, **shape), random_rows()
    model = imported(textbook.state_dict(), tmp_path, shape.get("heads", 2)).double()
    expected = textbook.double().encode(rows)
    for ours, theirs in zip(states_of(model, renumbered(rows)), expected, strict=True):
        torch.testing.assert_close(ours, theirs[-len(ours) :], rtol=0, atol=1e-9)


def test_the_weights_make_attention_sharp(tmp_path: Path) -> None:
    """Else a wrong mask, scale or order of heads would hardly show."""
    textbook, rows = Textbook(ITEMS), renumbered(random_rows())
    right, wrong = (imported(textbook.state_dict(), tmp_path, heads) for heads in (2, 4))
    difference = torch.cat(states_of(right, rows)) - torch.cat(states_of(wrong, rows))
    assert difference.abs().mean() > 0.1


def test_the_vector_of_a_history_is_the_last_state(tmp_path: Path) -> None:
    textbook, rows = Textbook(ITEMS), random_rows()
    vectors = imported(textbook.state_dict(), tmp_path).encode(renumbered(rows)).vectors
    torch.testing.assert_close(vectors, textbook.encode(rows)[:, -1], rtol=0, atol=1e-4)


def test_item_vectors_follow_the_order_that_is_asked_for(tmp_path: Path) -> None:
    textbook = Textbook(ITEMS)
    vectors = imported(textbook.state_dict(), tmp_path).item_vectors()
    expected = textbook.item_embeddings.weight.detach()
    assert torch.equal(vectors[1:], expected[torch.from_numpy(ORDER)])
    assert torch.equal(vectors[0], expected[0])


def test_centres_determine_the_objective_and_are_unit_vectors(tmp_path: Path) -> None:
    state = Textbook(ITEMS, intents=5).state_dict()
    model = imported(state, tmp_path)
    assert (model.config.intents, model.num_intents) == ("learned", 5)
    assert model.intents is not None
    expected = state["cluster_centers"] / state["cluster_centers"].norm(dim=1, keepdim=True)
    torch.testing.assert_close(model.intents.centers_KD.detach(), expected)
    assert (model.encode(renumbered(random_rows())).intents >= 0).all()


def test_without_centres_there_are_no_intents(tmp_path: Path) -> None:
    model = imported(Textbook(ITEMS).state_dict(), tmp_path)
    assert (model.config.intents, model.num_intents) == (None, 0)


def test_for_whole_windows_intents_are_nearest_to_the_mean_of_all_positions(tmp_path: Path) -> None:
    textbook = Textbook(ITEMS, intents=5)
    rows = [row for row in random_rows(200) if len(row) >= 50]
    intents = imported(textbook.state_dict(), tmp_path).encode(renumbered(rows)).intents
    centers = torch.nn.functional.normalize(textbook.cluster_centers.detach(), dim=1)
    assert intents.tolist() == (textbook.encode(rows).mean(1) @ centers.T).argmax(1).tolist()
    assert len(set(intents.tolist())) > 1


def nested(state: State) -> object:
    return {"epoch": 3, "state_dict": state, "optimizer": {"state": {}}}


WRAPPED: dict[str, Callable[[State], object]] = {
    "plain dict": dict,
    "ordered dict": OrderedDict,
    "state_dict": nested,
    "model_state_dict": lambda state: {"model_state_dict": state},
    "parallel": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "nested and parallel": lambda state: nested({f"module.{name}": tensor for name, tensor in state.items()}),
    "parameters": lambda state: {name: torch.nn.Parameter(tensor) for name, tensor in state.items()},
    "double": lambda state: {name: tensor.double() for name, tensor in state.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_a_state_dict_is_found_however_it_was_saved(tmp_path: Path, wrapping: str) -> None:
    state = Textbook(ITEMS, intents=3).state_dict()
    expected = imported(state, tmp_path).state_dict()
    actual = imported(WRAPPED[wrapping](state), tmp_path).state_dict()
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_tensors_that_are_not_needed_are_dropped_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = Textbook(ITEMS).state_dict() | {"position_ids": torch.arange(50), "criterion.weight": torch.ones(1)}
    with caplog.at_level("INFO"):
        imported(nested(state), tmp_path)
    assert "position_ids, criterion.weight" in caplog.text
    assert "epoch, optimizer" in caplog.text


def without(*names: str) -> Callable[[State], State]:
    return lambda state: {name: tensor for name, tensor in state.items() if name not in names}


def with_value(name: str, value: object) -> Callable[[State], State]:
    return lambda state: {**state, name: value}


UP = "item_encoder.layer.1.intermediate.dense_1.weight"
QUERY = "item_encoder.layer.0.attention.query.weight"
REFUSED: dict[str, tuple[Callable[[State], object], tuple[str, ...]]] = {
    "unknown": (
        lambda state: state | {"gate.weight": torch.ones(1), "gate.bias": torch.ones(1)},
        ("2 unknown: gate.weight, gate.bias",),
    ),
    "missing": (without(QUERY, "LayerNorm.bias"), ("2 missing: LayerNorm.bias, " + QUERY,)),
    "missing positions": (without("position_embeddings.weight"), ("1 missing: position_embeddings.weight",)),
    "missing items": (without("item_embeddings.weight"), ("item_embeddings.weight is missing",)),
    "no blocks": (
        lambda state: {name: tensor for name, tensor in state.items() if "layer" not in name},
        ("16 missing", "and 10 more"),
    ),
    "block out of line": (
        lambda state: {name.replace("layer.1.", "layer.2."): tensor for name, tensor in state.items()},
        ("16 missing", "16 unknown"),
    ),
    "wrong shape": (
        with_value("LayerNorm.weight", torch.ones(63)),
        ("1 wrong: LayerNorm.weight is [63], not [64]",),
    ),
    "wrong centres": (with_value("cluster_centers", torch.ones(5, 32)), ("is [5, 32], not [5, 64]",)),
    "one centre": (with_value("cluster_centers", torch.ones(1, 64)), ("num_intents",)),
    "no positions": (with_value("position_embeddings.weight", torch.ones(0, 64)), ("is [0, 64]",)),
    "scalar positions": (with_value("position_embeddings.weight", torch.ones(())), ("is [], not",)),
    "table without items": (with_value("item_embeddings.weight", torch.ones(2, 64)), ("no item table", "[2, 64]")),
    "table of one axis": (with_value("item_embeddings.weight", torch.ones(64)), ("no item table",)),
    "inner size": (with_value(UP, torch.ones(128, 64)), ("inner size of 128, not 4 x 64",)),
    "integers": (with_value("LayerNorm.bias", torch.ones(64, dtype=torch.int64)), ("torch.int64",)),
    "sparse": (with_value("LayerNorm.bias", torch.ones(64).to_sparse()), ("torch.sparse_coo",)),
    "no tensor": (with_value("LayerNorm.bias", "text"), ("LayerNorm.bias is a str",)),
    "not finite": (with_value("LayerNorm.bias", torch.full((64,), torch.nan)), ("not finite in LayerNorm.bias",)),
    "another model": (lambda _: torch.nn.Linear(2, 2).state_dict(), ("no item table",)),
    "a tensor": (lambda _: torch.ones(2), ("no state dict but a Tensor",)),
    "numbers for names": (lambda _: {1: torch.ones(2)}, ("no state dict",)),
    "empty": (lambda _: {}, ("no item table",)),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_other_tensors_are_refused(tmp_path: Path, fault: str) -> None:
    change, words = REFUSED[fault]
    message = refusal(lambda: imported(change(Textbook(ITEMS).state_dict()), tmp_path))
    assert all(word in message for word in words), message
    assert "published.pt" in message


def test_all_faults_are_listed_below_the_line(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in Textbook(ITEMS).state_dict().items() if "layer.0." not in name}
    with pytest.raises(UserError) as caught:
        imported(state, tmp_path)
    assert len(caught.value.details.splitlines()) == 32


@pytest.mark.parametrize("heads", [0, -2, 3, 128])
def test_heads_that_cannot_be_are_refused(tmp_path: Path, heads: int) -> None:
    message = refusal(lambda: imported(Textbook(ITEMS).state_dict(), tmp_path, heads))
    assert "num_heads" in message
    assert "--num-heads" in message


class Trap:
    """Unpickled, it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickled_code_is_refused_and_not_run(tmp_path: Path) -> None:
    path = save({"state_dict": {}, "trap": Trap(tmp_path / "sprung")}, tmp_path)
    assert "pickled code" in refusal(lambda: read_published(path))
    assert not (tmp_path / "sprung").exists()


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    path = save(torch.nn.Linear(2, 2), tmp_path)
    message = refusal(lambda: read_published(path))
    assert "pickled code" in message
    assert "state_dict()" in message


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(lambda: read_published(tmp_path / "absent.pt"))
    assert "directory" in refusal(lambda: read_published(tmp_path))


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x02garbage.", b"PK\x03\x04" * 99, bytes(range(256)) * 9])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "published.pt"
    path.write_bytes(content)
    assert "not a checkpoint" in refusal(lambda: read_published(path))


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float, zipped: bool) -> None:
    path = tmp_path / "published.pt"
    torch.save(Textbook(ITEMS).state_dict(), path, _use_new_zipfile_serialization=zipped)
    assert read_published(path).num_items == ITEMS
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "damaged" in refusal(lambda: read_published(path))


def refusal(work: Callable[[], object]) -> str:
    """Return the one line that the work is refused with."""
    with pytest.raises(UserError) as caught:
        work()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message
