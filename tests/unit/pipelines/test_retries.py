"""Retries by the rules of the backend, Argo, not by those of kfp.local."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import PIPELINES
from pipelines.platform import load_platform
from tests.support.argo import Ending, attempts
from tests.support.packages import elcrec_pipeline, load_package

ROOT = Path(__file__).parents[3]
PENDING = 60 * 60.0
"""What the shipped platform allows a pod to wait for a machine."""


@pytest.fixture(scope="module", params=PIPELINES)
def steps(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every task of a package that is a container: its retry policy and the time-out of an attempt."""
    package = tmp_path_factory.mktemp("package") / "package.yaml"
    files = ["--params", str(ROOT / "params.yaml"), "--platform", str(ROOT / "pipelines" / "platform.yaml")]
    assert elcrec_pipeline(["compile", request.param, *files, "--output", str(package)]) == 0
    return dict(tasks_of(package))


def tasks_of(package: Path) -> Iterator[tuple[str, Any]]:
    spec, platform = load_package(package)
    configs = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for component in (spec["root"], *spec["components"].values()):
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            label = spec["components"][task["componentRef"]["name"]].get("executorLabel")
            if label:
                yield name, (task.get("retryPolicy"), float(configs[label]["activeDeadlineSeconds"]))


def test_every_attempt_of_every_step_has_its_whole_time_out(steps: dict[str, Any]) -> None:
    for name, (policy, time_out) in steps.items():

        def to_the_last_second(number: int, time_out: float = time_out) -> tuple[float, Ending]:
            return time_out, "failed"

        made = attempts(policy, pending=PENDING, work=to_the_last_second)
        assert len(made) == (policy["maxRetryCount"] if policy else 0) + 1, name
        assert {(attempt.ran, attempt.killed) for attempt in made} == {(time_out, False)}, name


def test_the_first_retry_of_a_step_that_fails_late_is_made(steps: dict[str, Any]) -> None:
    for name, (policy, time_out) in steps.items():
        late = time_out - 1
        endings: list[tuple[float, Ending]] = [(late, "failed"), (late, "succeeded")]
        made = attempts(policy, work=lambda number, endings=endings: endings[number])  # type: ignore[misc]
        assert [attempt.ran for attempt in made] == [late] * (2 if policy else 1), name


def test_a_lost_pod_is_retried_if_the_backend_reports_it(steps: dict[str, Any]) -> None:
    for policy, _ in steps.values():
        lost = attempts(policy, when="OnError", work=lambda _: (1.0, "lost"))
        failed = attempts(policy, when="OnError", work=lambda _: (1.0, "failed"))
        assert len(lost) == (policy["maxRetryCount"] if policy else 0) + 1
        assert len(failed) == 1


@pytest.mark.parametrize("changes", [{}, {"pending_minutes": 0}, {"backoff_seconds": 600}])
def test_the_retry_window_follows_from_the_platform(changes: dict[str, int]) -> None:
    platform = load_platform(ROOT / "pipelines" / "platform.yaml", changes)
    step, wait = platform.step("train"), platform.backoff_seconds
    attempt = 60 * (step.timeout_minutes + platform.pending_minutes)
    assert platform.retry_seconds("train") == 3 * attempt + wait + 2 * wait
    assert platform.retry_seconds("validate") == 60 * (60 + platform.pending_minutes)
