"""The entry point of every step: secrets only for this process, retries of passing faults, and the result."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components import _step
from components._results import KEPT_DAYS, Record, Result, forget_old_runs, read_results, run_folder
from components._step import BUG, PASSING, PERMANENT, SUCCESS, run, take_secrets
from elcrec.errors import LostWorkError, UserError

OUTPUT = Path("absent.json")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"ELCREC_RESULTS": str(tmp_path), "ELCREC_RUN_ID": "run-1", "ELCREC_STEP": "train"}


@pytest.fixture
def record(environ: dict[str, str]) -> Record:
    return Record.of(environ, "{}")


class Component:
    """Fails as configured, then succeeds; counts its calls."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)


def last(record: Record) -> Result:
    found = record.read()
    assert found
    return found


class TestSecrets:
    def test_secrets_get_their_own_names_in_this_process_only(self) -> None:
        environ = {"ELCREC_SECRET_AWS_ACCESS_KEY_ID": "key", "ELCREC_SECRET_REDIS": "address", "HOME": "/tmp"}
        take_secrets(environ)
        assert environ == {"AWS_ACCESS_KEY_ID": "key", "REDIS": "address", "HOME": "/tmp"}

    def test_our_mlflow_takes_the_place_of_the_backends_with_all_that_belongs_to_it(self) -> None:
        theirs = {"MLFLOW_TRACKING_URI": "theirs", "MLFLOW_RUN_ID": "r", "MLFLOW_EXPERIMENT_ID": "e"}
        theirs |= {"MLFLOW_TRACKING_AUTH": "kubernetes", "MLFLOW_TRACKING_TOKEN": "t", "MLFLOW_WORKSPACE": "w"}
        environ = theirs | {"ELCREC_SECRET_MLFLOW_TRACKING_URI": "ours", "MLFLOW_DISABLE_TELEMETRY": "true"}
        take_secrets(environ)
        assert environ == {"MLFLOW_TRACKING_URI": "ours", "MLFLOW_DISABLE_TELEMETRY": "true"}

    def test_without_our_mlflow_the_backends_is_used(self) -> None:
        environ = {
            "MLFLOW_TRACKING_URI": "theirs",
            "MLFLOW_TRACKING_TOKEN": "t",
            "ELCREC_SECRET_MLFLOW_TRACKING_URI": "",
        }
        take_secrets(environ)
        assert environ == {"MLFLOW_TRACKING_URI": "theirs", "MLFLOW_TRACKING_TOKEN": "t"}


class TestFaults:
    def test_a_network_fault_that_passes_costs_a_wait_and_nothing_else(
        self, record: Record, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waited: list[float] = []
        monkeypatch.setattr(time, "sleep", waited.append)
        component = Component(ConnectionResetError("reset"), TimeoutError("late"))
        assert run(component, record, OUTPUT) == SUCCESS
        assert (component.calls, waited) == (3, [5.0, 15.0])
        assert last(record).state == "succeeded"

    def test_a_network_fault_that_persists_allows_another_attempt(
        self, record: Record, capsys: pytest.CaptureFixture[str]
    ) -> None:
        component = Component(*[ConnectionResetError("reset")] * 3)
        assert run(component, record, OUTPUT, waits=(0, 0)) == PASSING
        assert component.calls == 3
        assert (last(record).message, last(record).permanent) == ("ConnectionResetError: reset", False)
        assert "ConnectionResetError: reset" in capsys.readouterr().err

    def test_a_wrong_input_fails_at_once_and_the_log_ends_with_what_is_wrong(
        self, record: Record, capsys: pytest.CaptureFixture[str]
    ) -> None:
        component = Component(UserError("wrong", where="here", fix="mend it", details="a\ntable"))
        assert run(component, record, OUTPUT) == PERMANENT
        assert component.calls == 1
        assert (last(record).message, last(record).permanent) == ("here: wrong; mend it", True)
        assert capsys.readouterr().err == "a\ntable\nelcrec: error: here: wrong; mend it\n"

    def test_the_backends_next_attempt_does_not_do_the_same_work_in_vain(
        self, record: Record, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run(Component(UserError("wrong")), record, OUTPUT)
        again = Component()
        assert run(again, record, OUTPUT) == PERMANENT
        assert again.calls == 0
        assert capsys.readouterr().err.endswith("elcrec: error: wrong\n")

    def test_a_retry_after_a_correction_works(self, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
        run(Component(UserError("wrong")), record, OUTPUT)
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + _step.AGAIN_WITHIN)
        assert run(Component(), record, OUTPUT) == SUCCESS

    @pytest.mark.parametrize("error", [LostWorkError("training failed"), ValueError("a bug")])
    def test_lost_work_and_bugs_are_no_wrong_input(self, record: Record, error: Exception) -> None:
        assert run(Component(error), record, OUTPUT) == BUG
        assert not last(record).permanent
        assert run(Component(), record, OUTPUT) == SUCCESS


class TestRecord:
    def test_attempts_share_it_and_members_of_a_loop_do_not(self, environ: dict[str, str]) -> None:
        for given, state in (("one", "failed"), ("two", "running"), ("one", "succeeded")):
            Record.of(environ, given).write(state)  # type: ignore[arg-type]
        folder = run_folder(environ)
        assert folder
        assert sorted(result.state for result in read_results(folder)) == ["running", "succeeded"]

    def test_it_has_the_facts_of_the_outputs_for_the_outcome(self, record: Record, tmp_path: Path) -> None:
        output = tmp_path / "output.json"
        metadata = {"decision": "refused", "reason": "too low", "md5": "1"}
        document = {"artifacts": {"reason": {"artifacts": [{"metadata": metadata}]}}}
        output.write_text(json.dumps(document), encoding="utf-8")
        run(Component(), record, output)
        assert last(record).facts == {"decision": "refused", "reason": "too low"}

    def test_without_a_volume_nothing_is_kept_and_the_step_works(self) -> None:
        assert run(Component(), Record.of({"ELCREC_RESULTS": "/store/runs"}, "{}"), OUTPUT) == SUCCESS

    def test_a_volume_that_cannot_be_written_does_not_fail_the_step(
        self, environ: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "run-1").write_text("a file", encoding="utf-8")
        assert run(Component(), Record.of(environ, "{}"), OUTPUT) == SUCCESS
        assert "the result of the step is not recorded" in caplog.text

    def test_old_runs_are_forgotten(self, tmp_path: Path) -> None:
        ages = {"old": KEPT_DAYS + 1, "young": KEPT_DAYS - 1, "run": 0}
        for name, days in ages.items():
            (tmp_path / name).mkdir()
            os.utime(tmp_path / name, (0, time.time() - 86400 * days))
        forget_old_runs(tmp_path / "run")
        assert {path.name for path in tmp_path.iterdir()} == {"young", "run"}


def test_a_container_runs_kfps_executor_through_it(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "executor.py").write_text(
        "import os, sys\n"
        "def executor_main():\n"
        "    assert os.environ['REDIS'] == 'address' and '--function_to_execute' in sys.argv\n"
        "    raise KeyError('a bug')\n",
        encoding="utf-8",
    )
    given = ["--executor_input", '{"outputs": {"outputFile": "/absent"}}', "--function_to_execute", "train"]
    path = {"PYTHONPATH": os.pathsep.join([*sys.path, str(tmp_path)])}
    done = subprocess.run(
        [sys.executable, "-m", "components._step", "executor", *given],
        env=os.environ | environ | path | {"ELCREC_SECRET_REDIS": "address"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == BUG, done.stderr
    assert done.stderr.endswith("KeyError: 'a bug'\n")
    folder = run_folder(environ)
    assert folder
    (result,) = read_results(folder)
    assert (result.step, result.state, result.message) == ("train", "failed", "KeyError: 'a bug'")
