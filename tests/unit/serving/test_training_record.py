from pathlib import Path

import pytest

from elcrec.artifacts import write_json
from elcrec.config import TrainConfig, to_dict
from elcrec.errors import UserError
from elcrec.serving.training_record import read_training


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    model, sequences = tmp_path / "model", tmp_path / "sequences"
    model.mkdir()
    sequences.mkdir()
    write_json(model / "config.json", {"train": to_dict(TrainConfig()), "valid": {"ndcg@20": 0.1}})
    write_json(sequences / "split.json", {"split": "leave_one_out", "num_users": 7})
    return model, sequences


def test_parameters_are_those_of_training_and_of_the_sequences_by_dotted_names(folders: tuple[Path, Path]) -> None:
    found = read_training(*folders)

    assert found.parameters["train.encoder.window"] == str(TrainConfig().encoder.window)
    assert found.parameters["sequences.num_users"] == "7"
    assert not [name for name in found.parameters if "valid.ndcg" in name]


def test_an_epoch_has_what_its_row_has_and_imported_weights_have_none(folders: tuple[Path, Path]) -> None:
    model, _ = folders
    assert read_training(*folders).epochs == []
    (model / "history.csv").write_text("epoch,loss,valid_ndcg@20\n1,2.5,\n2,2.25,0.125\n")

    assert read_training(*folders).epochs == [
        {"epoch": 1.0, "loss": 2.5},
        {"epoch": 2.0, "loss": 2.25, "valid_ndcg@20": 0.125},
    ]


@pytest.mark.parametrize("content", ["epoch,loss\n1,nonsense\n", "epoch,loss\n1,2,3\n", 'epoch,loss\n1,"2'])
def test_a_history_that_makes_no_sense_is_named(folders: tuple[Path, Path], content: str) -> None:
    (folders[0] / "history.csv").write_text(content)

    with pytest.raises(UserError, match=r"history\.csv: not readable"):
        read_training(*folders)
