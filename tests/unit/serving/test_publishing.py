"""Reading a log for a push, in parts of any size."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elcrec.adapters import offline_files
from elcrec.adapters.offline_files import SERVED_FILE, StoredRows, stored_rows, survey, write_offline
from elcrec.artifacts import read_json, write_json
from elcrec.data import split_points
from elcrec.data.forgotten import Forgotten
from elcrec.data.row_groups import blocks
from elcrec.errors import UserError
from elcrec.serving.bundle import BundleSource
from elcrec.serving.ports import FeatureTables
from elcrec.serving.publishing import bundle_tables, log_tables
from tests.support.push_inputs import Inputs, make_inputs

MOMENT = datetime(2026, 3, 1, tzinfo=UTC)
NOBODY = pa.array([], pa.string())


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"), users=50)


def tables_of(inputs: Inputs) -> FeatureTables:
    source = BundleSource(model=inputs.model, sequences=inputs.sequences, evaluation=inputs.evaluation)
    return bundle_tables(source, "digest")


def written(tables: FeatureTables, folder: Path) -> dict[str, pa.Table]:
    files = write_offline(tables, MOMENT, folder, Forgotten(), NOBODY)
    found = {name: pq.read_table(path).combine_chunks() for name, path in files.items()}
    # When a row was created tells rows of a user at one time apart; its value depends on the part.
    return {name: _without_created(table) for name, table in found.items()}


def _without_created(table: pa.Table) -> pa.Table:
    return table.drop_columns("created") if "created" in table.column_names else table


def test_users_in_parts_are_published_as_all_at_once(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = written(tables_of(inputs), tmp_path / "whole")
    found = survey(tables_of(inputs), Forgotten())
    monkeypatch.setattr(split_points, "_USERS_AT_ONCE", 7)
    monkeypatch.setattr(offline_files, "_ROWS_AT_ONCE", 3)
    parts = written(tables_of(inputs), tmp_path / "parts")
    assert parts == whole
    assert survey(tables_of(inputs), Forgotten()) == found


def test_no_more_users_are_held_than_a_part_has(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_points, "_USERS_AT_ONCE", 7)
    tables = tables_of(inputs)
    for given in (tables.histories, tables.model_outputs):
        assert [len(part) for part in given] == [7] * 7 + [1]


def test_an_unfinished_publication_resumes_in_the_middle_of_a_file(inputs: Inputs, tmp_path: Path) -> None:
    tables = tables_of(inputs)
    written(tables, tmp_path)
    earlier = pq.read_table(tmp_path / "model_outputs.parquet")
    later = MOMENT.replace(year=2027)
    write_offline(tables, later, tmp_path, Forgotten(), NOBODY)
    for view, stored in stored_rows(tables, tmp_path, later).items():
        with stored.reader(20) as reader:
            rest = reader.read(1000)
        everything = pa.concat_tables(stored.blocks())
        assert len(everything) == stored.count
        assert rest == everything.slice(20), view
    assert pq.read_table(tmp_path / "model_outputs.parquet").slice(0, 50) == earlier


def test_rows_are_checked_evenly_among_those_that_are_wanted(inputs: Inputs, tmp_path: Path) -> None:
    written(tables_of(inputs), tmp_path)
    stored = StoredRows.of(tmp_path / SERVED_FILE, None)
    users = pa.concat_tables(stored.evenly(5, lambda table: table["user_id"].to_numpy() != "user-0"))["user_id"]
    assert users.to_pylist() == ["user-1", "user-13", "user-25", "user-37", "user-49"]


def test_a_file_is_read_from_any_row_in_parts_of_any_size(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"row": range(20)}), path, row_group_size=7)
    for start in (0, 3, 7, 13, 14, 19, 20):
        for size in (1, 6, 7, 50):
            parts = [part["row"].to_pylist() for part in blocks(path, size, ["row"], start)]
            assert [row for part in parts for row in part] == list(range(start, 20))
            assert all(len(part) == size for part in parts[:-1])


def test_the_times_of_a_log_are_real_if_its_split_records_it(inputs: Inputs, tmp_path: Path) -> None:
    assert not log_tables(inputs.sequences).real_times
    for path in inputs.sequences.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    write_json(tmp_path / "split.json", read_json(tmp_path / "split.json") | {"time": "real"})
    assert log_tables(tmp_path).real_times


def test_histories_of_other_users_than_the_sequences_are_refused(inputs: Inputs, tmp_path: Path) -> None:
    for path in inputs.sequences.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    histories = pq.read_table(tmp_path / "histories.parquet")
    others = pa.array([f"other-{user}" for user in range(len(histories))])
    for wrong in (histories.set_column(0, "user_id", others), histories.slice(1)):
        pq.write_table(wrong, tmp_path / "histories.parquet")
        tables = replace(log_tables(inputs.sequences), histories=log_tables_of(tmp_path))
        with pytest.raises(UserError, match="histories of other users than the sequences"):
            survey(tables, Forgotten())


def log_tables_of(folder: Path) -> split_points.ServedHistories:
    return split_points.ServedHistories(folder=folder, most_seen=10)
