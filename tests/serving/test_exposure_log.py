"""The exposures of a server process, however it ends."""

import http.client
import signal
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from elcrec.serving.exposure_files import seal_abandoned
from tests.support.serving import Installation, Server, eventually, serving

REQUEST = {"user_id": "user-2", "k": 3}
_UNFLUSHED_SECONDS = 1.0


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation.make(tmp_path_factory.mktemp("exposure-log"))


def ask_until_it_ends(server: Server, answers: list[tuple[float, str]], number: int) -> None:
    """Ask until `number` answers came, and on until the server goes away."""
    enough = threading.Event()

    def ask() -> None:
        try:
            with server.client() as client:
                while True:
                    answer = client.post("/recommend", REQUEST).json
                    answers.append((time.monotonic(), answer["answer_id"]))
                    if len(answers) >= number:
                        enough.set()
        except (OSError, http.client.HTTPException):  # the latter where it goes away within an answer
            enough.set()

    thread = threading.Thread(target=ask)
    thread.start()
    assert enough.wait(60)


def written(folder: Path) -> set[str]:
    tables = [pq.read_table(path, columns=["answer_id"]) for path in folder.glob("*.parquet")]
    return {answer_id for table in tables for answer_id in table["answer_id"].to_pylist()}


def test_no_answer_is_lost_when_a_server_stops(installation: Installation, tmp_path: Path) -> None:
    answers: list[tuple[float, str]] = []
    with serving(installation, f"exposures.folder={tmp_path}") as server:
        ask_until_it_ends(server, answers, 50)
        assert server.stop() == 0

    assert {answer_id for _, answer_id in answers} - written(tmp_path) == set()
    assert list(tmp_path.glob(".*.journal")) == []


def test_a_server_that_is_killed_loses_the_answers_of_its_last_second_at_most(
    installation: Installation, tmp_path: Path
) -> None:
    answers: list[tuple[float, str]] = []
    with serving(installation, f"exposures.folder={tmp_path}") as server:
        ask_until_it_ends(server, answers, 10)
        eventually(lambda: time.monotonic() - answers[0][0] > 2 * _UNFLUSHED_SECONDS)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        killed = time.monotonic()
    seal_abandoned(tmp_path)

    before = {answer_id for moment, answer_id in answers if moment < killed - _UNFLUSHED_SECONDS}
    assert before
    assert before - written(tmp_path) == set()
