"""Exposures posted as CloudEvents to a server that works, is slow, refuses, or dies."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow.parquet as pq
import pytest

from elcrec.config import ExposureLogConfig, parse_config
from elcrec.errors import UserError
from elcrec.serving import exposure_sink as module
from elcrec.serving.engine import Answer, Question
from elcrec.serving.exposure_sink import ExposureSink
from elcrec.serving.exposures import ExposureLog
from elcrec.serving.loaded import Serving
from elcrec.serving.recommender import Recommendation
from elcrec.serving.telemetry import Telemetry

Batch = tuple[Mapping[str, str], list[dict[str, Any]]]


class Logger(ThreadingHTTPServer):
    """A CloudEvents logger with configured answers."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.batches: list[Batch] = []
        self.statuses: list[int] = []
        self.going_on = threading.Event()
        self.going_on.set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/log?from=elcrec"


class _Handler(BaseHTTPRequestHandler):
    server: Logger

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.batches.append(({**self.headers, "path": self.path}, body))
        self.server.going_on.wait(10)
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def listening(port: int = 0) -> Iterator[Logger]:
    with Logger(port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.going_on.set()
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FLUSH_SECONDS", 0.01)
    monkeypatch.setattr(module, "_BACK_OFF", (0.01, 0.01, 0.01, 0.01))


def line(number: int) -> bytes:
    row = {"answer_id": f"a{number}", "time": 1_772_449_200_000_000, "model": "shop/elcrec", "version": "3", "k": 2}
    return json.dumps(row).encode()


def sink(address: str, telemetry: Telemetry, **config: Any) -> ExposureSink:
    made = ExposureSink(ExposureLogConfig(sink=address, **config), address, telemetry)
    made.start()
    return made


def counted(telemetry: Telemetry) -> tuple[float, ...]:
    """Return how many were sent, dropped and failed."""
    found = [
        telemetry.registry.get_sample_value("elcrec_sent_exposures_total", {"outcome": outcome})
        for outcome in ("sent", "dropped", "failed")
    ]
    return tuple(value or 0.0 for value in found)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < end
        threading.Event().wait(0.005)


def ids(server: Logger) -> list[str]:
    return [event["id"] for _, batch in server.batches for event in batch]


def test_batches_are_cloud_events_with_the_row_as_data() -> None:
    telemetry = Telemetry()
    with listening() as server:
        posting = sink(server.address, telemetry)
        for number in range(450):
            posting.add(line(number))
        posting.close()
    headers, batch = server.batches[0]
    assert headers["Content-Type"] == "application/cloudevents-batch+json"
    assert headers["path"] == "/log?from=elcrec"
    assert batch[0] == {
        "specversion": "1.0",
        "type": "org.elcrec.exposure.v1",
        "source": "/models/shop%2Felcrec/versions/3",
        "id": "a0",
        "time": "2026-03-02T11:00:00+00:00",
        "datacontenttype": "application/json",
        "data": json.loads(line(0)),
    }
    assert max(len(batch) for _, batch in server.batches) <= 200
    assert ids(server) == [f"a{number}" for number in range(450)]
    assert counted(telemetry) == (450, 0, 0)


def test_a_busy_sink_gets_the_batch_again_with_the_same_ids() -> None:
    telemetry = Telemetry()
    with listening() as server:
        server.statuses = [503, 429, 500]
        posting = sink(server.address, telemetry)
        posting.add(line(1))
        until(lambda: counted(telemetry)[0] == 1)
        posting.close()
    assert ids(server) == ["a1"] * 4
    assert (counted(telemetry), posting.problem) == ((1, 0, 0), None)


@pytest.mark.parametrize(("status", "attempts"), [(400, 1), (302, 1), (503, 5)])
def test_a_refusal_is_counted_and_named_and_what_follows_is_posted(status: int, attempts: int) -> None:
    telemetry = Telemetry()
    with listening() as server:
        server.statuses = [status] * attempts
        posting = sink(server.address, telemetry)
        posting.add(line(1))
        until(lambda: counted(telemetry)[2] == 1)
        assert posting.problem == f"exposures are not posted: status {status}"
        posting.add(line(2))
        posting.close()
    assert ids(server) == ["a1"] * attempts + ["a2"]
    assert (counted(telemetry), posting.problem) == ((1, 0, 1), None)


def test_a_sink_that_fails_and_recovers_gets_the_waiting_exposures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BACK_OFF", (0.02,) * 200)
    telemetry = Telemetry()
    with listening() as first:
        posting = sink(first.address, telemetry)
        posting.add(line(1))
        until(lambda: counted(telemetry)[0] == 1)
    posting.add(line(2))
    until(lambda: posting.problem is not None)
    with listening(first.server_port) as second:
        until(lambda: counted(telemetry)[0] == 2)
        posting.close()
    assert (ids(first), ids(second)) == (["a1"], ["a2"])
    assert counted(telemetry) == (2, 0, 0)


def test_a_sink_that_does_not_answer_delays_no_request_and_ends_in_time() -> None:
    telemetry = Telemetry()
    with listening() as server:
        server.going_on.clear()
        posting = sink(server.address, telemetry, queue=5, sink_timeout=0.3)
        posting.add(line(0))
        until(lambda: bool(server.batches))
        for number in range(1, 8):
            posting.add(line(number))
        assert counted(telemetry)[1] == 2
        began = time.monotonic()
        posting.close()
        assert time.monotonic() - began < 2
        assert sum(counted(telemetry)) == 8


def test_a_batch_is_counted_once_if_the_end_comes_while_it_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    telemetry = Telemetry()
    counting, labels = threading.Event(), telemetry.sent_exposures.labels

    def slow(outcome: str) -> Any:
        if threading.current_thread() is not threading.main_thread():
            counting.set()
            threading.Event().wait(0.5)
        return labels(outcome)

    monkeypatch.setattr(telemetry.sent_exposures, "labels", slow)
    with listening() as server:
        posting = sink(server.address, telemetry, sink_timeout=0.1)
        posting.add(line(0))
        assert counting.wait(5)
        posting.close()
        assert counted(telemetry) == (1, 0, 0)


@pytest.fixture(scope="module")
def shown() -> tuple[Question, Answer]:
    serving = cast("Serving", SimpleNamespace(name="elcrec", version="3", digest="0" * 64))
    known = {"item_ids": ["i1"], "scores": [2.0], "intent": 3, "known": 4, "skipped": 0, "fallback": False}
    answer = Answer(
        answer_id="a1",
        recommendation=Recommendation(**known),
        serving=serving,
        source="store",
        history=["i9"],
        stale=False,
        store_available=True,
    )
    return Question(user_id="zoe", history=None, k=1), answer


@pytest.mark.parametrize("with_folder", [True, False])
def test_the_log_posts_with_and_without_a_folder(
    shown: tuple[Question, Answer], tmp_path: Path, *, with_folder: bool
) -> None:
    telemetry, folder = Telemetry(), tmp_path / "exposures"
    with listening() as server:
        config = ExposureLogConfig(folder=str(folder) if with_folder else None, sink=server.address)
        log = ExposureLog(config, folder if with_folder else None, salt="5a17", telemetry=telemetry)
        log.start()
        log.add(*shown)
        log.close()
    data = server.batches[0][1][0]["data"]
    assert (data["answer_id"], data["known"], data["user_id"]) == ("a1", 4, None)
    assert "zoe" not in json.dumps(server.batches)
    assert folder.exists() == with_folder
    if with_folder:
        assert pq.read_table(folder)["answer_id"].to_pylist() == ["a1"]


def test_a_dead_sink_is_named_and_files_are_written_all_the_same(
    shown: tuple[Question, Answer], tmp_path: Path
) -> None:
    with listening() as gone:
        address = gone.address
    telemetry = Telemetry()
    config = ExposureLogConfig(folder=str(tmp_path), sink=address, sink_timeout=0.5)
    log = ExposureLog(config, tmp_path, salt="5a17", telemetry=telemetry)
    log.start()
    log.add(*shown)
    log.close()
    assert log.problem == "exposures are not posted: ConnectionRefusedError"
    assert pq.read_table(tmp_path)["answer_id"].to_pylist() == ["a1"]
    assert counted(telemetry) == (0, 0, 1)


@pytest.mark.parametrize(
    "address", ["logger:80", "ftp://host/x", "http://", "http://me:secret@host", "http://host:99999", "http://a b"]
)
def test_an_invalid_address_is_refused_without_being_shown(address: str) -> None:
    with pytest.raises(UserError, match="not an http or https address") as raised:
        parse_config({"serve": {"exposures": {"sink": address}}})
    assert "secret" not in str(raised.value)
