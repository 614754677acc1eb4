"""The servers' exposures: complete files, every loss counted, and no forgotten users."""

import asyncio
import os
import threading
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elcrec.config import ExposureLogConfig, ServeConfig
from elcrec.data.user_keys import load_salt, user_key
from elcrec.errors import UserError
from elcrec.serving import exposure_files
from elcrec.serving import exposures as module
from elcrec.serving.app import App
from elcrec.serving.engine import Answer, Question
from elcrec.serving.exposure_files import EXPOSURE_SCHEMA, Journal, erase_exposures, prepare, seal_abandoned
from elcrec.serving.exposures import ExposureLog, as_row
from elcrec.serving.live import Live
from elcrec.serving.loaded import Serving
from elcrec.serving.recommender import Recommendation
from elcrec.serving.telemetry import Telemetry
from tests.support.serving import NAME, Installation

SALT = "5a17"
REQUEST = {"user_id": "user-1", "k": 3, "filters": {"deny": ["item-2"]}}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation.make(tmp_path_factory.mktemp("exposures"))


@pytest.fixture(scope="module")
def serving(installation: Installation) -> Serving:
    return Live(NAME, installation.registry, installation.store, Telemetry()).current


_numbers = count()


def shown(serving: Serving, user: str | None = "zoe", **changes: Any) -> tuple[Question, Answer]:
    """One question and its answer."""
    known = {"item_ids": ["i1", "i2"], "scores": [2.0, 1.0], "intent": 3, "known": 4, "skipped": 0, "fallback": False}
    answer = Answer(
        answer_id=f"a{next(_numbers)}",
        recommendation=Recommendation(**(known | changes)),
        serving=serving,
        source="store",
        history=["i9"],
        stale=False,
        store_available=True,
    )
    return Question(user_id=user, history=None, k=2, allow={"i1", "i2"}), answer


def line(moment: int, question: Question, answer: Answer) -> bytes:
    return msgspec.json.encode(as_row(moment, question, answer, SALT))


def log_in(folder: Path, telemetry: Telemetry | None = None, **config: Any) -> ExposureLog:
    section = ExposureLogConfig(folder=str(folder), **config)
    return ExposureLog(section, folder, salt=SALT, telemetry=telemetry or Telemetry())


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def counted(telemetry: Telemetry) -> dict[str, int]:
    lines = telemetry.page().decode().splitlines()
    found = (line.split() for line in lines if line.startswith("elcrec_exposures_total"))
    return {name.split('"')[1]: int(float(value)) for name, value in found}


def since(telemetry: Telemetry, before: dict[str, int]) -> dict[str, int]:
    """What was counted since; Feast may have counters of one process share their values."""
    return {name: value - before[name] for name, value in counted(telemetry).items() if value != before[name]}


@pytest.fixture
def abandoned(serving: Serving, tmp_path: Path) -> Path:
    """A folder with the journal of a process that was killed while it wrote its second batch."""
    journal = Journal(tmp_path)
    journal.append([line(1, *shown(serving, "zoe")), line(2, *shown(serving, "ann"))])
    whole = journal._file.tell()
    journal.append([line(3, *shown(serving, "bob"))])
    (path,) = tmp_path.glob(".*.journal")
    os.truncate(path, whole + 100)
    journal._file.close()
    return tmp_path


def test_both_routes_write_down_what_they_answer(installation: Installation, tmp_path: Path) -> None:
    telemetry, folder = Telemetry(), tmp_path / "shown"
    before = counted(telemetry)
    live, log = Live(NAME, installation.registry, installation.store, telemetry), log_in(folder, telemetry)
    app = App(ServeConfig(store_timeout=30), live, installation.store, telemetry, exposures=log)
    users = {"inputs": [{"name": "user_id", "shape": [2], "datatype": "BYTES", "data": ["user-1", "nobody"]}]}

    async def scene() -> tuple[Any, Any]:
        transport = httpx.ASGITransport(app.asgi)
        async with (
            app.asgi.router.lifespan_context(app.asgi),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            plain = (await client.post("/recommend", json=REQUEST)).json()
            return plain, (await client.post(f"/v2/models/{NAME}/infer", json=users)).json()

    plain, inferred = asyncio.run(scene())
    tensors = {tensor["name"]: tensor["data"] for tensor in inferred["outputs"]}
    first, *others = rows_of(folder)

    assert first["answer_id"] == plain["answer_id"]
    assert first["item_ids"] == [item["item_id"] for item in plain["items"]]
    assert first["scores"] == pytest.approx([item["score"] for item in plain["items"]])
    assert (first["user_key"], first["user_id"]) == (user_key("user-1", SALT), None)
    assert (first["k"], first["allowed"], first["denied"]) == (3, None, 1)
    assert first["intent"] == plain["intent"]["index"]
    assert (first["version"], first["digest"]) == ("1", live.current.recommender.manifest.digest)
    assert [row["answer_id"] for row in others] == tensors["answer_id"]
    assert [row["policy"] for row in (first, *others)] == ["model", "model", "popular"]
    assert [row["known"] > 0 for row in others] == [True, False]
    assert since(telemetry, before) == {"written": 3}


def test_neither_raw_ids_nor_the_salt_are_in_a_file_unless_configured(serving: Serving, tmp_path: Path) -> None:
    for raw in (False, True):
        log = log_in(tmp_path / str(raw), raw_users=raw)
        log.start()
        log.add(*shown(serving, "zoe@example.org"))
        log.close()
        (path,) = (tmp_path / str(raw)).glob("*.parquet")
        assert (b"zoe@example.org" in path.read_bytes()) == raw
        assert SALT.encode() not in path.read_bytes()


def test_what_the_queue_has_no_room_for_is_counted_and_the_rest_is_written(serving: Serving, tmp_path: Path) -> None:
    telemetry = Telemetry()
    log, before = log_in(tmp_path, telemetry, queue=5), counted(telemetry)
    for _ in range(8):
        log.add(*shown(serving))
    log.start()
    log.close()

    assert len(rows_of(tmp_path)) == 5
    assert since(telemetry, before) == {"written": 5, "dropped": 3}


def test_a_simulation_s_clock_is_that_of_what_it_shows(serving: Serving, tmp_path: Path) -> None:
    config = ExposureLogConfig(folder=str(tmp_path))
    moment = datetime(2025, 6, 2, 9, 30, 0, 7, tzinfo=UTC)
    nanoseconds = int(moment.timestamp()) * 10**9 + 7_900
    log = ExposureLog(config, tmp_path, salt=SALT, telemetry=Telemetry(), clock=lambda: nanoseconds)
    log.start()
    log.add(*shown(serving))
    log.close()

    (path,) = tmp_path.glob("*.parquet")
    assert pq.read_table(path)["time"].to_pylist() == [moment]


def test_a_file_is_complete_by_its_rows_or_its_age(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 4)
    for name, config in (("rows", {"rows": 4}), ("age", {"seconds": 1e-9})):
        log = log_in(tmp_path / name, **config)
        for _ in range(2):
            for _ in range(4):
                log.add(*shown(serving))
            log._write(last=False)
        assert [len(pq.read_table(path)) for path in (tmp_path / name).glob("*.parquet")] == [4, 4]
        assert list((tmp_path / name).glob(".*.journal")) == []


def test_a_killed_server_loses_only_what_it_had_not_appended(abandoned: Path) -> None:
    prepare(abandoned)

    assert [row["user_key"] for row in rows_of(abandoned)] == [user_key(user, SALT) for user in ("zoe", "ann")]
    assert list(abandoned.glob(".*.journal")) == []
    assert seal_abandoned(abandoned) == 0


def test_a_journal_without_a_complete_line_leaves_no_file(tmp_path: Path) -> None:
    for name, content in (("empty", b""), ("torn", b'{"answer_id": "a'), ("zeros", bytes(100_000))):
        (tmp_path / f".{name}.journal").write_bytes(content)

    assert seal_abandoned(tmp_path) == 3
    assert list(tmp_path.glob("*.parquet")) == list(tmp_path.glob(".*.journal")) == []


def test_a_file_records_answers_as_the_server_gave_them(serving: Serving, tmp_path: Path) -> None:
    answers = [shown(serving, user, propensities=[0.5, 0.25], scores=[1 / 3, -2.5e-9]) for user in ("zoë", None)]
    moment = 1_700_000_000_123_456
    journal = Journal(tmp_path)
    journal.append([line(moment, *each) for each in answers])
    journal.seal()

    (path,) = tmp_path.glob("*.parquet")
    expected = [as_row(moment, *each, SALT) for each in answers]
    assert pq.read_table(path).equals(pa.Table.from_pylist(expected, EXPOSURE_SCHEMA))


def test_many_blocks_of_a_journal_become_one_file_in_order(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposure_files, "_BLOCK_BYTES", 4096)
    monkeypatch.setattr(exposure_files, "_TAIL_BYTES", 16)
    journal = Journal(tmp_path)
    journal.append([line(moment, *shown(serving)) for moment in range(200)])
    journal._file.write(b'{"answer_id": "torn')
    journal.seal()

    assert [row["time"].microsecond for row in rows_of(tmp_path)] == list(range(200))


@pytest.mark.parametrize("columns", [EXPOSURE_SCHEMA.names, [*EXPOSURE_SCHEMA.names[:-1]]], ids=["arm", "no arm"])
def test_the_journal_of_an_earlier_version_becomes_a_file_too(
    serving: Serving, tmp_path: Path, columns: list[str]
) -> None:
    today = pa.RecordBatch.from_pylist([as_row(1, *shown(serving, "zoe"), SALT)], EXPOSURE_SCHEMA)
    batch = today.select(columns)
    path = tmp_path / ".20260101T000000-0.arrows"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, batch.schema) as stream:
        stream.write_batch(batch)
        whole = file.tell()
        stream.write_batch(batch)
    os.truncate(path, whole + 100)

    assert seal_abandoned(tmp_path) == 1
    assert pa.RecordBatch.from_pylist(rows_of(tmp_path), EXPOSURE_SCHEMA).equals(today)


def test_the_journal_of_a_running_server_is_left_alone(serving: Serving, tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append([line(1, *shown(serving))])

    assert (seal_abandoned(tmp_path), rows_of(tmp_path)) == (0, [])
    journal.seal()
    assert len(rows_of(tmp_path)) == 1


def test_a_full_disk_is_counted_and_reported_and_writing_resumes_with_space(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry = Telemetry()
    log, before = log_in(tmp_path, telemetry), counted(telemetry)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", full)
        log.add(*shown(serving))
        log._write(last=False)
        assert log.problem == "exposures are not written: OSError"
    log.add(*shown(serving))
    log._write(last=True)

    assert log.problem is None
    assert since(telemetry, before) == {"written": 1, "failed": 1}
    assert len(rows_of(tmp_path)) == 1


def test_a_forgotten_user_is_in_no_file_and_in_none_that_a_journal_becomes(serving: Serving, tmp_path: Path) -> None:
    zoe, ann = user_key("zoe", SALT), user_key("ann", SALT)
    for journal in (Journal(tmp_path), running := Journal(tmp_path)):
        now = int(datetime.now(UTC).timestamp() * 1e6)
        journal.append([line(now, *shown(serving, user)) for user in ("zoe", "ann", "zoe")])
        if journal is not running:
            journal.seal()

    changed = erase_exposures(tmp_path, zoe)
    running.seal()

    assert len(changed) == 1
    assert [row["user_key"] for row in rows_of(tmp_path)] == [ann, ann]
    assert not any(zoe.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_several_writers_agree_on_one_salt(tmp_path: Path) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(load_salt(tmp_path / "store" / "s.json"))) for _ in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(found)) == 1
    assert (tmp_path / "store" / "s.json").stat().st_mode & 0o077 == 0
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["s.json"]


@pytest.mark.parametrize("content", ["{}", '{"salt": ""}', "["])
def test_a_damaged_salt_is_not_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "s.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"s\.json"):
        load_salt(path)
    assert path.read_text() == content


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"serve\.exposures\.folder"):
        prepare(tmp_path / "file" / "shown")


def test_columns_are_those_of_the_schema(serving: Serving) -> None:
    explored = shown(serving, None, propensities=[0.95, 0.05], intent=None)
    row = as_row(7, *explored, SALT)

    assert list(row) == EXPOSURE_SCHEMA.names
    assert row["propensities"] == [0.95, 0.05]
    assert (row["policy"], row["user_key"], row["intent"], row["allowed"]) == ("model+exploration", None, None, 2)
