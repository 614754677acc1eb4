"""The outcome of a run follows from the results of its steps, regardless of the backend's state."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from kfp import dsl

from components import _outcome
from components._outcome import BODY_VERSION, Outcome, conclude
from components._results import Record, Result
from components.outcome import outcome

WORDS = (
    # MLMD's, which 2.16 and 2.17 hand to an exit task.
    *("UNKNOWN", "NEW", "RUNNING", "COMPLETE", "FAILED", "CACHED", "CANCELED"),
    # The API's, which kfp.local says and backends without MLMD have.
    *("RUNTIME_STATE_UNSPECIFIED", "PENDING", "SUCCEEDED", "SKIPPED", "CANCELING", "PAUSED"),
    "",
)
DONE = (("configure", "succeeded", {}), ("train", "succeeded", {}), ("evaluate", "succeeded", {}))
REFUSED = ("gate", "succeeded", {"decision": "refused", "reason": "ndcg@20 is 0.1, at least 0.2 is required"})
ACCEPTED = ("gate", "succeeded", {"decision": "accepted", "reason": "no champion yet"})
PUSHED = ("push", "succeeded", {"decision": "accepted", "model": "elcrec", "version": "7"})
REPLAYS: dict[str, tuple[list[Any], dict[str, str]]] = {
    "a push": ([*DONE, ACCEPTED, PUSHED], {"outcome": "pushed", "model": "elcrec", "version": "7"}),
    "a refused gate": ([*DONE, REFUSED], {"outcome": "refused", "message": REFUSED[2]["reason"]}),
    "a push that the gate then refused": (
        [*DONE, ACCEPTED, ("push", "succeeded", REFUSED[2])],
        {"outcome": "refused", "message": REFUSED[2]["reason"]},
    ),
    "a step that failed": (
        [DONE[0], ("validate", "succeeded", {}), ("require_valid", "failed", {})],
        {"outcome": "failed", "step": "require_valid", "message": "what it said"},
    ),
    "a step that was killed": (
        [DONE[0], ("train", "running", {}), ("baseline", "succeeded", {})],
        {"outcome": "failed", "step": "train", "message": _outcome._KILLED},
    ),
    "a failure beside a step that was stopped by it": (
        [DONE[0], ("train", "running", {}), ("baseline", "failed", {})],
        {"outcome": "failed", "step": "baseline", "message": "what it said"},
    ),
    "a monitor that asks for nothing": (
        [("monitor", "succeeded", {"verdict": "warn", "retrain": "no", "reason": "Overlap rose."})],
        {"outcome": "succeeded", "message": "warn: Overlap rose."},
    ),
    "a monitor that asks for retraining, which pushes": (
        [("monitor", "succeeded", {"verdict": "retrain", "retrain": "yes", "reason": "r"}), ACCEPTED, PUSHED],
        {"outcome": "pushed", "model": "elcrec", "version": "7"},
    ),
    "recommendations": ([("recommend", "succeeded", {})], {"outcome": "succeeded"}),
}


def results(said: list[Any]) -> list[Result]:
    message = {"failed": "what it said"}
    return [
        Result(step=step, state=state, at=float(number), facts=facts, message=message.get(state, ""))
        for number, (step, state, facts) in enumerate(said)
    ]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(("said", "expected"), REPLAYS.values(), ids=REPLAYS)
def test_the_steps_decide_regardless_of_the_backend_s_state(
    said: list[Any], expected: dict[str, str], word: str
) -> None:
    assert conclude(results(said), word, pipeline="p", run="r") == Outcome(
        pipeline="p",
        run="r",
        state=word,
        **expected,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("word", WORDS)
def test_a_step_that_never_started_is_no_success_unless_the_backend_is_sure(word: str) -> None:
    ended = conclude(results([*DONE]), word, pipeline="p", run="r")
    sure = word in {"COMPLETE", "SUCCEEDED"}
    assert (ended.outcome, ended.message) == (
        ("succeeded", "") if sure else ("failed", "the steps after evaluate did not start")
    )


@pytest.mark.parametrize("word", WORDS)
def test_without_results_only_reliable_states_are_used(word: str) -> None:
    ended = conclude([], word, pipeline="p", run="r")
    assert ended.outcome == ("succeeded" if word in {"COMPLETE", "SUCCEEDED"} else "unknown")


def test_what_the_outcome_step_writes_of_itself_does_not_count() -> None:
    said = results([*DONE, ACCEPTED, PUSHED, ("outcome", "running", {})])
    assert conclude(said, "RUNNING", pipeline="p", run="r").outcome == "pushed"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a step whose run's results are kept."""
    environ = {"ELCREC_RESULTS": str(tmp_path / "runs"), "ELCREC_RUN_ID": "5a1b", "ELCREC_NAMESPACE": "team"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ELCREC_WEBHOOK", raising=False)
    return environ


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch, run: dict[str, str]) -> Iterator[list[Any]]:
    """What a listening address was told; it is ill the first time."""
    told: list[Any] = []
    statuses = iter([503])
    monkeypatch.setattr(_outcome, "_WAITS", (0.0, 0.0))

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = next(statuses, 200)
            if status == 200:
                told.append(body)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("ELCREC_WEBHOOK", f"http://127.0.0.1:{server.server_port}/secret")
        yield told
        server.shutdown()


def report(folder: Path, state: str = "RUNNING", run_name: str = "") -> str:
    status = dsl.PipelineTaskFinalStatus(
        state=state,
        pipeline_job_resource_name="elcrec-training-abcde",
        pipeline_task_name="exit-handler-1",
        error_code=None,
        error_message=None,
    )
    summary = dsl.Markdown(name="summary", uri=str(folder / "summary"))
    outcome.python_func(pipeline="elcrec-training", status=status, summary=summary, run_name=run_name)
    return (folder / "summary").read_text(encoding="utf-8")


def test_a_failed_run_is_recorded_and_reported_with_step_message_and_page(
    tmp_path: Path, run: dict[str, str], webhook: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELCREC_UI", "https://kubeflow.example/pipeline")
    Record.of(run | {"ELCREC_STEP": "fetch"}, "{}").write("failed", message="no such file")
    page = "https://kubeflow.example/pipeline/#/runs/details/5a1b"
    text = report(tmp_path, run_name="nightly")
    assert text == f"**elcrec-training failed** ([nightly]({page})): step fetch: no such file\n"
    assert webhook == [
        {
            "text": text,
            "elcrec": {
                "schema_version": BODY_VERSION,
                "outcome": "failed",
                "pipeline": "elcrec-training",
                "run": "5a1b",
                "name": "nightly",
                "namespace": "team",
                "link": page,
                "step": "fetch",
                "message": "no such file",
                "model": "",
                "version": "",
                "state": "RUNNING",
            },
        }
    ]


def test_a_push_is_written_down_with_its_version(tmp_path: Path, run: dict[str, str]) -> None:
    Record.of(run | {"ELCREC_STEP": "push"}, "{}").write("succeeded", facts=PUSHED[2])
    assert report(tmp_path, "FAILED") == "**elcrec-training succeeded, pushed** (5a1b): elcrec version 7\n"


def test_a_refusal_is_no_failure(tmp_path: Path, run: dict[str, str]) -> None:
    Record.of(run | {"ELCREC_STEP": "gate"}, "{}").write("succeeded", facts=REFUSED[2])
    assert report(tmp_path) == f"**elcrec-training succeeded, not pushed** (5a1b): {REFUSED[2]['reason']}\n"


def test_a_run_without_results_uses_the_backend_s_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ELCREC_RESULTS", "ELCREC_RUN_ID", "ELCREC_WEBHOOK"):
        monkeypatch.delenv(name, raising=False)
    assert report(tmp_path, "COMPLETE") == "**elcrec-training succeeded** (elcrec-training-abcde)\n"


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/secret", "file:///secret", "secret"])
def test_an_address_that_does_not_answer_fails_nothing_and_is_not_shown(
    tmp_path: Path,
    run: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    address: str,
) -> None:
    monkeypatch.setattr(_outcome, "_WAITS", (0.0,))
    monkeypatch.setenv("ELCREC_WEBHOOK", address)
    report(tmp_path)
    assert "the webhook was not called" in caplog.text
    assert "secret" not in caplog.text
