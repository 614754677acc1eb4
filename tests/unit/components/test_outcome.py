import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from kfp import dsl

from components.outcome import outcome

FAILED = dsl.PipelineTaskFinalStatus(
    state="FAILED",
    pipeline_job_resource_name="run-1",
    pipeline_task_name="exit-handler-1",
    error_code=1,
    error_message="train failed",
)


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, str]]]:
    """What a listening address was told."""
    told: list[dict[str, str]] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("ELCREC_WEBHOOK", f"http://127.0.0.1:{server.server_port}/secret")
        yield told
        server.shutdown()


def report(folder: Path, status: dsl.PipelineTaskFinalStatus = FAILED) -> str:
    summary = dsl.Markdown(name="summary", uri=str(folder / "summary"))
    outcome.python_func(pipeline="elcrec-training", status=status, summary=summary)
    return (folder / "summary").read_text(encoding="utf-8")


def test_a_failed_run_is_written_down_and_told(tmp_path: Path, webhook: list[dict[str, str]]) -> None:
    text = report(tmp_path)
    assert text == "**elcrec-training failed** (run-1): train failed\n"
    assert webhook == [{"text": text}]


def test_a_run_that_succeeded_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ELCREC_WEBHOOK", raising=False)
    done = dsl.PipelineTaskFinalStatus(
        state="SUCCEEDED",
        pipeline_job_resource_name="run-2",
        pipeline_task_name="exit-handler-1",
        error_code=None,
        error_message=None,
    )
    assert report(tmp_path, done) == "**elcrec-training succeeded** (run-2)\n"


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/secret", "file:///secret", "secret"])
def test_an_address_that_does_not_answer_fails_nothing_and_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    monkeypatch.setenv("ELCREC_WEBHOOK", address)
    report(tmp_path)
    assert "the webhook was not told" in caplog.text
    assert "secret" not in caplog.text
