"""Random logs: the engine's files equal the oracle's byte for byte, for any number of threads, memory and files."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from elcrec.adapters.engine import open_engine
from elcrec.config import EngineConfig, SequencesConfig
from elcrec.data import fold
from elcrec.data.engine import Engine
from elcrec.data.forgotten import Forgotten
from elcrec.data.interactions import EVENT_ID, interaction_schema
from elcrec.data.log import RawLog, insert_torn, part_of
from elcrec.data.survey import Limits, Survey, survey
from elcrec.data.times import TIMESTAMP
from elcrec.errors import UserError
from elcrec.stages.sequences import _build
from tests.support.engines import ENGINE
from tests.support.oracle_rows import broken_rows, count_out_of_order, profile_of, sort_out, without_forgotten
from tests.support.oracle_sequences import write_sequences
from tests.support.surveys import NOW, SOURCE

FILES = ("sequences.parquet", "histories.parquet", "items.parquet")
LATEST = 1_769_990_400_000_000
"""A day after NOW."""
NOBODY = Forgotten()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

few = settings(max_examples=25, deadline=None)
names = st.sampled_from(["a", "B", "ü", "𝄞", "e\u0301", "é", " x", "a'b", "\0", "longest", "商品"])
event_ids = st.sampled_from([None, "e1", "e2", "ü", "too long"])
events = st.lists(st.tuples(names, names, st.integers(0, 5), event_ids), min_size=1, max_size=60)


def interactions_of(log: list[tuple[str, str, int, str | None]], *, with_ids: bool) -> pa.Table:
    users, items, times, ids = (list(column) for column in zip(*log, strict=True))
    schema = interaction_schema([EVENT_ID])
    columns = [users, items, pa.array(times, pa.int64()).cast(TIMESTAMP), pa.array(ids, pa.string())]
    table = pa.Table.from_arrays([pa.array(column) for column in columns], schema=schema)
    return table if with_ids else table.drop_columns(EVENT_ID)


def build(
    config: SequencesConfig, interactions: pa.Table, folder: Path, engine: Engine = ENGINE, files: int = 1
) -> None:
    """Run the stage's work on interactions in some files, without its demands on the split."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    size, paths = -(-len(interactions) // files), [folder / f"{9 - number}.parquet" for number in range(files)]
    for number, path in enumerate(paths):
        pq.write_table(interactions.slice(number * size, size), path)
    with engine.session(folder / "out") as session:
        _build(config, paths, folder, session, interactions.column_names)


def files_in(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Row groups that a small log fills."""
    monkeypatch.setattr(fold, "GROUP_USERS", 3)
    monkeypatch.setattr(fold, "GROUP_EVENTS", 8)
    return {"users": 3, "events": 8}


@pytest.mark.parametrize("split", ["leave_one_out", "temporal"])
def test_sequences_equal_the_oracles(
    split: str, small_groups: dict[str, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("sequences")

    @few
    @given(events, st.booleans(), st.integers(0, 3), st.integers(1, 4))
    def compare(log: list[tuple[str, str, int, str | None]], with_ids: bool, k_core: int, history: int) -> None:
        interactions = interactions_of(log, with_ids=with_ids)
        config = SequencesConfig(k_core=k_core, split=split, history=history)  # type: ignore[arg-type]
        try:
            build(config, interactions, folder / "found")
        except UserError:  # nothing is left
            assume(False)
        shutil.rmtree(folder / "expected", ignore_errors=True)
        write_sequences(config, interactions, folder / "expected", **small_groups)
        assert files_in(folder / "found") == files_in(folder / "expected")

    compare()


raw_rows = st.lists(
    st.tuples(
        st.one_of(st.none(), names),
        st.one_of(st.none(), names),
        st.sampled_from([None, -5, 0, 3, 3, 4, LATEST, LATEST + 1]),
        st.booleans(),
        event_ids,
    ),
    min_size=1,
    max_size=50,
)
EARLIEST = 1
"""Of the times above, 0 alone lies between 1970 and this."""
RawRows = list[tuple[str | None, str | None, int | None, bool, str | None]]


def log_of(rows: RawRows, *, with_ids: bool) -> pa.Table:
    """A log in its common form; without a time the flag says whether there was text; a torn row is all null."""
    users, items, micros, flags, ids = (list(column) for column in zip(*rows, strict=True))
    torn = [row[:3] == (None, None, None) for row in rows]
    text = ["soon" if flag else None for flag in flags]
    raw = [other if time is None else str(time) for time, other in zip(micros, text, strict=True)]
    types = (pa.string(), pa.string(), pa.int64(), pa.string())
    first, second, third, fourth = map(pa.array, (users, items, micros, raw), types)
    whole = part_of(first, second, third, fourth, pa.array(ids, pa.string()) if with_ids else None)
    return insert_torn(whole.filter(~np.array(torn)), np.flatnonzero(torn))


def parts_of(log: pa.Table, size: int) -> Iterator[pa.Table]:
    yield from (log.slice(start, size) for start in range(0, len(log), size))


def survey_of(
    log: pa.Table,
    folder: Path,
    engine: Engine = ENGINE,
    *,
    longest: int = 6,
    size: int = 7,
    forgotten: Forgotten = NOBODY,
) -> Survey:
    about = {
        "limits": Limits(max_id_length=longest, now=NOW, earliest=EARLIEST),
        "forgotten": forgotten,
        "previous": None,
    }
    with_ids = EVENT_ID in log.column_names
    raw = RawLog(parts=parts_of(log, size), file=folder / "raw", time="real", event_ids=with_ids)
    with engine.session(folder / "out") as session:
        return survey(session, raw, source=SOURCE, **about, folder=folder)


def assert_equals_the_oracle(
    found: Survey, whole: pa.Table, folder: Path, longest: int = 6, forgotten: Forgotten = NOBODY
) -> None:
    log, places = without_forgotten(whole, forgotten)
    broken = broken_rows(log, longest, NOW, EARLIEST)
    interactions, quarantine = sort_out(log, places, broken)
    assert pq.read_table(folder / "interactions.parquet").equals(interactions)
    assert pq.read_table(folder / "quarantine.parquet").equals(quarantine)
    assert found.broken == {name: int(rows.sum()) for name, rows in broken.items()}
    assert found.out_of_order == count_out_of_order(interactions)
    expected = profile_of(interactions)
    assert {name: found.profile[name] for name in expected} == expected
    assert (found.rows, found.sorted.quarantined) == (len(log), len(quarantine))
    assert found.forgotten == len(whole) - len(log)
    reasons = quarantine["reason"].to_pylist()
    assert {fault.reason: fault.count for fault in found.sorted.faults} == {r: reasons.count(r) for r in set(reasons)}


def test_rows_are_sorted_out_as_by_the_oracle(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("rows")

    @few
    @given(raw_rows, st.booleans(), st.dictionaries(names, st.integers(-6, 5), max_size=3))
    def compare(rows: RawRows, with_ids: bool, until: dict[str, int]) -> None:
        log, forgotten = log_of(rows, with_ids=with_ids), NOBODY
        for user, micros in until.items():
            forgotten = forgotten.adding(user, EPOCH + timedelta(microseconds=micros))
        assert_equals_the_oracle(survey_of(log, folder, forgotten=forgotten), log, folder, forgotten=forgotten)

    compare()


def large_log(rows: int = 150_000) -> pa.Table:
    """Users and items by their popularity, times in small steps with many ties, some rows faulty or repeated."""
    random = np.random.default_rng(0)
    users, items = random.zipf(1.3, rows) % 20_000, random.zipf(1.2, rows) % 3_000
    micros = np.sort(random.integers(0, 40 * 86_400_000_000, rows)) // 3_600_000_000 * 3_600_000_000
    again = random.random(rows) < 0.01
    for column in (users, items, micros):
        column[1:][again[1:]] = column[:-1][again[1:]]
    absent = random.random(rows) < 0.001
    user_ids = pa.array([f"user-{user:030d}-{user}" for user in users], mask=absent)
    parts = (user_ids, pa.array([f"i{item}" for item in items]), pa.array(micros), pa.array(micros))
    return part_of(*parts)


@pytest.fixture(scope="module")
def log() -> pa.Table:
    return large_log()


@pytest.fixture(scope="module")
def accepted(log: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    folder = tmp_path_factory.mktemp("accepted")
    survey_of(log, folder, longest=60, size=20_000)
    return pq.read_table(folder / "interactions.parquet")


VARIANTS = {
    "one thread": EngineConfig(threads=1, memory_mb=512),
    "two threads": EngineConfig(threads=2, memory_mb=512),
    "tiny memory": EngineConfig(threads=2, memory_mb=64),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "config", [SequencesConfig(), SequencesConfig(k_core=5, split="temporal")], ids=["all", "core"]
)
def test_threads_and_memory_change_no_byte(
    variant: str, config: SequencesConfig, accepted: pa.Table, tmp_path: Path
) -> None:
    build(config, accepted, tmp_path / "found", open_engine(VARIANTS[variant]))
    write_sequences(config, accepted, tmp_path / "expected", users=fold.GROUP_USERS, events=fold.GROUP_EVENTS)
    assert files_in(tmp_path / "found") == files_in(tmp_path / "expected")


@pytest.mark.parametrize("variant", VARIANTS)
def test_threads_and_memory_change_no_row(variant: str, log: pa.Table, tmp_path: Path) -> None:
    found = survey_of(log, tmp_path, open_engine(VARIANTS[variant]), longest=60, size=30_000)
    assert_equals_the_oracle(found, log, tmp_path, longest=60)
    assert found.broken["event is unique"] > 1000
    assert found.broken["user_id is present"] > 100


def test_interactions_in_several_files_give_the_same_bytes(accepted: pa.Table, tmp_path: Path) -> None:
    build(SequencesConfig(), accepted, tmp_path / "one")
    build(SequencesConfig(), accepted, tmp_path / "many", files=4)
    assert files_in(tmp_path / "many") == files_in(tmp_path / "one")
