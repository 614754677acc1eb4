"""Claims about the stage and its command: an imported model ranks as the published code does, or nothing is written."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from elcrec.adapters.published_weights import read_published
from elcrec.artifacts import read_json, sha256_of, write_json
from elcrec.cli import main
from elcrec.config import EvaluateConfig, SyntheticConfig
from elcrec.custody import write_checksums
from elcrec.data.dataset import load_item_ids, load_sequences
from elcrec.errors import UserError
from elcrec.evaluation.ranking import rank_targets
from elcrec.model.io import load_model
from elcrec.model.sequence_model import SequenceModel
from elcrec.stages import import_weights as stage
from elcrec.stages.evaluate import evaluate
from elcrec.stages.import_weights import table_rows
from tests.support.raw_log import Log, benchmark_log, sample_log, write_sequences
from tests.support.textbook import Textbook, sorted_ranks

ROOT = Path(__file__).parents[3]
import_weights = partial(stage.import_weights, read=read_published)
PARAMS = ("--params", str(ROOT / "params.yaml"))
SMALL = SyntheticConfig(users=80, items=40, intents=4)


def save(textbook: Textbook, path: Path) -> Path:
    torch.save(textbook.state_dict(), path)
    return path


def questions(log: Log) -> tuple[list[Sequence[int]], list[int]]:
    """The test histories and targets of users with a target, by the definition of leave-one-out."""
    rows = [row for row in log.values() if len(row) >= 3]
    return [row[:-1] for row in rows], [row[-1] for row in rows]


def textbook_scores(textbook: Textbook, histories: Sequence[Sequence[int]]) -> torch.Tensor:
    return textbook.encode(histories)[:, -1] @ textbook.item_embeddings.weight.detach().T


def textbook_ranks(textbook: Textbook, log: Log) -> list[int]:
    histories, targets = questions(log)
    candidates = np.unique(np.concatenate(list(log.values())))
    return sorted_ranks(textbook_scores(textbook, histories), histories, targets, candidates)


def double_ranks(model: SequenceModel, sequences: Path) -> list[int]:
    """Our ranks in double precision, where no two scores are as close as rounding."""
    test, model = load_sequences(sequences).evaluation("test"), model.double()
    recent = test.histories.tail(model.config.encoder.window)
    parts = []
    with torch.inference_mode():
        for block in np.array_split(np.arange(len(recent)), max(1, len(recent) // 256)):
            rows = model.lay_out(recent.take(block))
            parts.append(rows.of_ends(model.encoder(rows)))
    return rank_targets(torch.cat(parts), model.item_vectors(), test.histories, test.target_items).ranks.tolist()


@pytest.fixture(scope="module")
def log() -> dict[str, list[int]]:
    return sample_log(SMALL)


@pytest.fixture(scope="module")
def sequences(log: Log, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sequences(log, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def checkpoint(sequences: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    textbook = Textbook(load_sequences(sequences).num_items, intents=6)
    return save(textbook, tmp_path_factory.mktemp("checkpoint") / "published.pt")


def test_ranks_on_the_sample_are_those_of_the_textbook_for_every_user(tmp_path: Path) -> None:
    log = sample_log(SyntheticConfig())
    sequences = write_sequences(log, tmp_path)
    textbook = Textbook(max(map(max, log.values())), intents=8)
    import_weights(save(textbook, tmp_path / "published.pt"), sequences, tmp_path / "model")
    ours = double_ranks(load_model(tmp_path / "model"), sequences)
    assert ours == textbook_ranks(textbook.double(), log)
    assert len(set(ours)) > 100


@pytest.mark.slow
@pytest.mark.data
def test_ranks_on_beauty_are_those_of_the_textbook_for_every_user(tmp_path: Path, mirror: Path) -> None:
    log = benchmark_log(mirror / "beauty.txt", users=2000)
    sequences = write_sequences(log, tmp_path)
    textbook = Textbook(12_101)
    file = save(textbook, tmp_path / "published.pt")
    import_weights(file, sequences, tmp_path / "model", drop_absent_items=True)
    ours = double_ranks(load_model(tmp_path / "model"), sequences)
    assert len(ours) == 2000
    assert ours == textbook_ranks(textbook.double(), log)


@pytest.mark.data
@pytest.mark.parametrize("name", ["beauty", "sports", "toys", "yelp"])
def test_the_benchmark_sets_use_every_id_up_to_the_largest(mirror: Path, name: str) -> None:
    """So the table of a published checkpoint is the catalogue of its set, and nothing is absent."""
    rows = benchmark_log(mirror / f"{name}.txt", users=10**6).values()
    items = np.unique(np.concatenate(list(map(np.array, rows))))
    assert items.tolist() == list(range(1, len(items) + 1))


def test_indices_are_not_raw_ids(sequences: Path) -> None:
    """Else the tests of ranks would not notice rows that stay where they were."""
    ids = load_item_ids(sequences, load_sequences(sequences).num_items)
    assert [int(item) for item in ids] != list(range(1, len(ids) + 1))


@pytest.fixture(scope="module")
def workdir(sequences: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model imported and evaluated by the command line, beside a baseline without centres."""
    folder = tmp_path_factory.mktemp("commands")
    plain = save(Textbook(load_sequences(sequences).num_items, blocks=1, seed=1), folder / "iclrec.pt")
    given = ("--sequences", str(sequences))
    for file, out in ((checkpoint, "model"), (plain, "baseline")):
        command = ["import-weights", str(file), "--num-heads", "2", *given, "--out", str(folder / out)]
        assert main(command) == 0
    models = ("--model", str(folder / "model"), "--baseline", str(folder / "baseline"))
    assert main(["evaluate", *PARAMS, *models, *given, "--truth", "none", "--out", str(folder / "evaluation")]) == 0
    return folder


def test_the_model_folder_records_its_origin(workdir: Path, checkpoint: Path, sequences: Path) -> None:
    assert sorted(path.name for path in (workdir / "model").iterdir()) == [
        "checksums.json",
        "config.json",
        "model.safetensors",
    ]
    config = read_json(workdir / "model" / "config.json")
    assert config["imported"] == {"file": "published.pt", "sha256": sha256_of(checkpoint), "absent_items": 0}
    assert config["sequences_md5"] == read_json(sequences / "split.json")["md5"]
    assert config["train"]["objective"] == "elcrec"
    assert read_json(workdir / "baseline" / "config.json")["train"]["objective"] == "sasrec"


def test_evaluate_ranks_as_the_textbook_but_for_the_rounding_of_scores(
    workdir: Path, checkpoint: Path, log: Log
) -> None:
    textbook = Textbook(max(map(max, log.values())), intents=6)
    textbook.load_state_dict(torch.load(checkpoint, weights_only=True))
    ranks = pq.read_table(workdir / "evaluation" / "ranks.parquet")["rank"].to_pylist()
    expected = textbook_ranks(textbook.double(), log)
    assert len(ranks) == len(expected)
    assert np.mean(np.array(ranks) == expected) > 0.98
    assert np.abs(np.array(ranks) - expected).max() <= 1


@pytest.mark.parametrize("page", ["report.html", "model_card.md"])
def test_the_report_claims_nothing_on_an_unknown_training(workdir: Path, checkpoint: Path, page: str) -> None:
    text = (workdir / "evaluation" / page).read_text(encoding="utf-8")
    assert "Imported ELCRec" in text
    assert "Imported SASRec (baseline)" in text
    assert "published.pt" in text
    assert "may have another intent there" in text
    assert sha256_of(checkpoint) in text
    for untrue in ("None", "seed 1", "learning_rate", "history.csv", "Trained for", "Model, seed", "Model, epochs"):
        assert untrue not in text, untrue


@pytest.fixture
def larger(sequences: Path, tmp_path: Path) -> Path:
    """A checkpoint with five items more than the sequences have."""
    return save(Textbook(load_sequences(sequences).num_items + 5), tmp_path / "larger.pt")


def test_a_table_with_other_items_is_refused(larger: Path, sequences: Path, tmp_path: Path) -> None:
    message = refusal(lambda: import_weights(larger, sequences, tmp_path / "model"))
    assert "5 of its" in message
    assert "another log" in message
    assert "--drop-absent-items" in message


def test_absent_items_are_left_out_on_demand_and_the_report_says_so(
    larger: Path, sequences: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    num_items = import_weights(larger, sequences, tmp_path / "model", drop_absent_items=True)["num_items"]
    assert num_items == load_sequences(sequences).num_items
    assert "5 of its" in caplog.text
    evaluate(EvaluateConfig(bootstrap=20), tmp_path / "model", sequences, tmp_path / "evaluation")
    for page in ("report.html", "model_card.md"):
        assert "knew 5 items more" in (tmp_path / "evaluation" / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("item", ["i17", "1.5", "-3", "0", "007", " 7", "0x1f", "٣", ""])
def test_ids_that_are_no_rows_are_refused(item: str) -> None:
    message = refusal(lambda: table_rows(["1", item], 9, where="items.parquet"))
    assert repr(item) in message
    assert "items.parquet" in message


def test_ids_beyond_the_table_are_refused() -> None:
    assert table_rows(["9", "1"], 9, where="here").tolist() == [9, 1]
    message = refusal(lambda: table_rows(["9", "10", "9" * 99], 9, where="here"))
    assert "beyond the table of 9 items: '10'" in message
    assert "2 in all" in message


def test_sequences_with_textual_ids_are_refused(log: Log, checkpoint: Path, tmp_path: Path) -> None:
    named: Mapping[str, Sequence[object]] = {user: [f"i{item}" for item in row] for user, row in log.items()}
    sequences = write_sequences(named, tmp_path)
    assert "not whole numbers" in refusal(lambda: import_weights(checkpoint, sequences, tmp_path / "model"))


Damage = Callable[[Path], object]


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda path: path.write_bytes(b"text"),
        lambda path: path.write_bytes(path.read_bytes()[:-999]),
        lambda path: torch.save(torch.nn.Linear(2, 2), path),
        lambda path: torch.save({"state_dict": {}}, path),
    ],
    ids=["missing", "no checkpoint", "truncated", "pickled code", "empty"],
)
def test_a_bad_checkpoint_leaves_the_output_unchanged(
    checkpoint: Path, sequences: Path, tmp_path: Path, damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "published.pt", tmp_path / "out" / "model"
    out.mkdir(parents=True)
    (out / "kept").touch()
    file.write_bytes(checkpoint.read_bytes())
    damage(file)
    assert main(["import-weights", str(file), "--sequences", str(sequences), "--out", str(out)]) == 2
    first, *_ = capsys.readouterr().err.splitlines()
    assert first.startswith(f"elcrec: error: {file}: ")
    assert sorted(path.name for path in out.parent.rglob("*")) == ["kept", "model"]


def test_an_output_that_cannot_be_written_is_refused(checkpoint: Path, sequences: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = refusal(lambda: import_weights(checkpoint, sequences, tmp_path / "file" / "model"))
    assert "cannot write the output" in message


def test_a_failure_while_writing_leaves_nothing(
    checkpoint: Path, sequences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("elcrec.model.io.write_json", full)
    with pytest.raises(OSError, match="no space"):
        import_weights(checkpoint, sequences, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_an_input_is_not_replaced(checkpoint: Path, sequences: Path) -> None:
    for out in (checkpoint.parent, sequences, sequences.parent):
        assert "would be replaced" in refusal(lambda out=out: import_weights(checkpoint, sequences, out))
    assert checkpoint.is_file()


def test_a_model_that_reads_more_than_is_served_is_refused(checkpoint: Path, sequences: Path, tmp_path: Path) -> None:
    short = shutil.copytree(sequences, tmp_path / "sequences")
    write_json(short / "split.json", read_json(short / "split.json") | {"history": 49})
    write_checksums(short)

    with pytest.raises(UserError, match=r"published\.pt: a window of 50 items, .*keeps 49"):
        import_weights(checkpoint, short, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_folder_that_is_no_sequences_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    assert "split.json" in refusal(lambda: import_weights(checkpoint, tmp_path, tmp_path / "model"))


def test_another_log_than_the_imported_one_is_refused_by_evaluate(log: Log, workdir: Path, tmp_path: Path) -> None:
    other = write_sequences(dict(list(log.items())[1:]), tmp_path)
    message = refusal(lambda: evaluate(EvaluateConfig(), workdir / "model", other, tmp_path / "evaluation"))
    assert "other sequences" in message
    assert "import it" in message


def refusal(work: Callable[[], object]) -> str:
    """Return the one line that the work is refused with."""
    with pytest.raises(UserError) as caught:
        work()
    message = str(caught.value)
    assert "\n" not in message
    return message
