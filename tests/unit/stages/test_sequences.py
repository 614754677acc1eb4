from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from elcrec.artifacts import md5_of, read_json, write_json
from elcrec.config import FetchConfig, SequencesConfig, SyntheticConfig, ValidateConfig, load_config
from elcrec.custody import write_checksums
from elcrec.data.dataset import load_sequences
from elcrec.errors import UserError
from elcrec.stages.fetch import fetch
from elcrec.stages.sequences import build_sequences
from elcrec.stages.validate import validate
from tests.support.engines import ENGINE

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sequences")
    fetch(FetchConfig(synthetic=SyntheticConfig(users=60, items=30, intents=3)), folder / "raw")
    validate(ValidateConfig(), folder / "raw", folder / "validated", engine=ENGINE, now=NOW)
    return folder / "validated"


def test_the_folder_describes_itself_and_loads(validated: Path, tmp_path: Path) -> None:
    metrics = build_sequences(SequencesConfig(), validated, tmp_path / "out", engine=ENGINE)
    document = read_json(tmp_path / "out" / "split.json")
    assert list(document) == [
        "schema_version",
        "split",
        "num_users",
        "num_items",
        "num_interactions",
        "num_train_interactions",
        "num_valid_targets",
        "num_test_targets",
        "ties",
        "time",
        "valid_cut",
        "test_cut",
        "k_core",
        "repeats",
        "consecutive",
        "kinds",
        "session_gap",
        "history",
        "md5",
    ]
    assert document["md5"] == md5_of(tmp_path / "out" / "sequences.parquet")
    assert document["num_interactions"] == read_json(validated / "validation.json")["counts"]["accepted"]
    data = load_sequences(tmp_path / "out")
    assert data.num_users == document["num_users"] == metrics["num_users"] == 60
    assert data.sequences.values.min() == 1
    assert data.sequences.values.max() == data.num_items == 30
    assert len(data.evaluation("test").users) == document["num_test_targets"]


def test_event_ids_of_a_log_are_kept_in_the_histories(tmp_path: Path) -> None:
    fetch(FetchConfig(synthetic=SyntheticConfig(users=60, items=30, intents=3)), tmp_path / "raw")
    header, *lines = (tmp_path / "raw" / "data.csv").read_text().replace('"', "").splitlines()
    rows = [f"{line},{line.split(',')[0]}/{line.split(',')[2]}" for line in reversed(lines)]
    (tmp_path / "raw" / "data.csv").write_text("\n".join([f"{header},event_id", *rows]))
    source = read_json(tmp_path / "raw" / "source.json")
    write_json(tmp_path / "raw" / "source.json", source | {"md5": md5_of(tmp_path / "raw" / "data.csv")})
    write_checksums(tmp_path / "raw")
    validate(ValidateConfig(), tmp_path / "raw", tmp_path / "validated", engine=ENGINE, now=NOW)

    build_sequences(SequencesConfig(k_core=2, history=4), tmp_path / "validated", tmp_path / "out", engine=ENGINE)

    histories = pq.read_table(tmp_path / "out" / "histories.parquet").to_pylist()
    for row in histories:
        expected = [f"{row['user_id']}/{time:%Y-%m-%dT%H:%M:%SZ}" for time in row["event_times"]]
        assert row["event_ids"] == expected


def test_the_same_input_gives_the_same_bytes(validated: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        build_sequences(SequencesConfig(), validated, tmp_path / name, engine=ENGINE)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("base", "changed"),
    [
        (SequencesConfig(), SequencesConfig(k_core=10)),
        (SequencesConfig(), SequencesConfig(split="temporal")),
        (SequencesConfig(split="temporal"), SequencesConfig(split="temporal", valid_share=0.2)),
        (SequencesConfig(split="temporal"), SequencesConfig(split="temporal", test_share=0.2)),
        (SequencesConfig(), SequencesConfig(history=3)),
    ],
)
def test_every_option_changes_the_outcome(
    validated: Path, tmp_path: Path, base: SequencesConfig, changed: SequencesConfig
) -> None:
    build_sequences(base, validated, tmp_path / "base", engine=ENGINE)
    build_sequences(changed, validated, tmp_path / "out", engine=ENGINE)
    names = ("sequences.parquet", "histories.parquet", "items.parquet")
    assert any((tmp_path / "out" / n).read_bytes() != (tmp_path / "base" / n).read_bytes() for n in names)


def test_a_temporal_split_records_its_cuts(validated: Path, tmp_path: Path) -> None:
    build_sequences(SequencesConfig(split="temporal"), validated, tmp_path / "out", engine=ENGINE)
    document = read_json(tmp_path / "out" / "split.json")
    assert "2026-01-01" < document["valid_cut"] < document["test_cut"] < "2026-07-01"
    share = document["num_train_interactions"] / document["num_interactions"]
    assert share == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("k_core", [10_000, 31])
def test_an_empty_k_core_is_refused(validated: Path, tmp_path: Path, k_core: int) -> None:
    with pytest.raises(UserError, match="no interaction is left"):
        build_sequences(SequencesConfig(k_core=k_core), validated, tmp_path / "out", engine=ENGINE)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_validation_did_not_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the stage that writes it first"):
        build_sequences(SequencesConfig(), tmp_path, tmp_path / "out", engine=ENGINE)


@pytest.mark.data
def test_beauty_has_its_published_size_and_every_line_is_a_sequence(tmp_path: Path, mirror: Path) -> None:
    config = load_config(ROOT / "params.yaml", overrides=["fetch.dataset=beauty"])
    fetch(config.fetch, tmp_path / "raw", mirror=mirror)
    validate(config.validate, tmp_path / "raw", tmp_path / "validated", engine=ENGINE)
    metrics = build_sequences(config.sequences, tmp_path / "validated", tmp_path / "out", engine=ENGINE)
    assert metrics["num_users"] == 22_363
    assert metrics["num_items"] == 12_101
    assert metrics["num_interactions"] == 198_502
    assert metrics["num_test_targets"] == 22_363
    histories = pq.read_table(tmp_path / "out" / "histories.parquet").slice(0, 100).to_pylist()
    lines = (tmp_path / "raw" / "data.txt").read_text().splitlines()
    for row, line in zip(histories, lines, strict=False):
        user, *items = line.split()
        assert row["user_id"] == user
        assert row["item_ids"] == items[-50:]
