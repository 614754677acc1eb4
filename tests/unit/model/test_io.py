from pathlib import Path

import pytest
import torch

from elcrec.artifacts import read_json, write_json
from elcrec.config import EncoderConfig, IntentConfig, TrainConfig
from elcrec.data.ragged import Ragged
from elcrec.errors import UserError
from elcrec.model import sequence_model
from elcrec.model.io import load_model, save_model
from elcrec.model.sequence_model import SequenceModel

CONFIG = TrainConfig(encoder=EncoderConfig(window=6, hidden_size=8, num_blocks=1), intents=IntentConfig(num_intents=3))
SAVED = Path(__file__).parent / "saved"
"""Model folders as each version of config.json had them, and what the models said of HISTORIES."""
HISTORIES = Ragged.from_rows([[1, 2, 3], [], [4], [5, 6, 7, 1, 2, 3, 4, 5]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_model(SequenceModel(CONFIG.model, num_items=7), tmp_path, CONFIG, note="kept")
    return tmp_path


def test_a_model_is_the_same_after_a_round_trip(folder: Path) -> None:
    torch.manual_seed(0)
    original, loaded = SequenceModel(CONFIG.model, num_items=7).eval(), load_model(folder)
    torch.testing.assert_close(loaded.encode(HISTORIES).vectors, original.encode(HISTORIES).vectors, rtol=0, atol=0)
    assert loaded.num_intents == 3


def test_an_empty_history_has_a_zero_vector_and_no_intent(folder: Path) -> None:
    encoded = load_model(folder).encode(HISTORIES)
    assert encoded.vectors[1].abs().sum() == 0
    assert encoded.intents.tolist()[1] == -1
    assert (encoded.intents[[0, 2, 3]] >= 0).all()


def test_the_batch_size_of_encoding_changes_no_result(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(folder)
    together = model.encode(HISTORIES).vectors
    monkeypatch.setitem(sequence_model._ROWS_AT_ONCE, "cpu", 1)
    torch.testing.assert_close(model.encode(HISTORIES).vectors, together)


def test_only_the_window_is_read(folder: Path) -> None:
    model = load_model(folder)
    long, short = [[3, 3, 1, 2, 3, 4, 5, 6]], [[1, 2, 3, 4, 5, 6]]
    ours, theirs = (model.encode(Ragged.from_rows(rows)).vectors for rows in (long, short))
    torch.testing.assert_close(ours, theirs)


def test_loading_a_model_does_not_depend_on_its_training_configuration(folder: Path) -> None:
    document = read_json(folder / "config.json")
    write_json(folder / "config.json", document | {"train": {"an option": "that later releases do not have"}})
    assert load_model(folder).num_intents == 3


@pytest.mark.parametrize("saved", sorted(SAVED.iterdir()), ids=lambda folder: folder.name)
def test_a_model_saved_by_an_earlier_release_gives_the_same_results(saved: Path) -> None:
    encoded, expected = load_model(saved).encode(HISTORIES), read_json(saved / "expected.json")
    torch.testing.assert_close(encoded.vectors, torch.tensor(expected["vectors"]), rtol=0, atol=2e-5)
    assert encoded.intents.tolist() == expected["intents"]


@pytest.mark.parametrize("damage", ["truncate", "remove", "version", "config", "shape"])
def test_a_damaged_model_is_refused_in_one_line(folder: Path, damage: str) -> None:
    weights, config = folder / "model.safetensors", folder / "config.json"
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:100])
    elif damage == "remove":
        weights.unlink()
    elif damage == "version":
        config.write_text(config.read_text().replace('"schema_version": 2', '"schema_version": 99'))
    elif damage == "config":
        config.write_text(config.read_text().replace('"num_blocks"', '"num_block"'))
    else:
        config.write_text(config.read_text().replace('"num_items": 7', '"num_items": 8'))
    with pytest.raises(UserError) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
