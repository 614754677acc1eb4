"""Submit a package to Kubeflow Pipelines, schedule it, and report the status of a run."""

import json
import re
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from typing import Any

from elcrec.errors import UserError
from pipelines.package import Package
from pipelines.server import SCHEDULED_ACCOUNTS, Connection, ServerAwayError, explained, reached

FINISHED = frozenset({"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"})
TOLERATED = 10
"""Number of failed requests in a row, while waiting for a run, before we give up."""


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A run or a schedule that the server has accepted."""

    id: str
    link: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task of a run."""

    id: str
    name: str
    state: str
    seconds: float | None = None
    """How long it ran, or has been running; `None` before its start."""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Status:
    """The status of a run on the server."""

    run_id: str
    name: str
    state: str
    link: str
    tasks: tuple[Task, ...] = ()
    """Its tasks in the order of their start."""
    error: str = ""

    @property
    def finished(self) -> bool:
        """Whether the run has ended."""
        return self.state in FINISHED

    @property
    def succeeded(self) -> bool:
        """Whether every required task succeeded."""
        return self.state == "SUCCEEDED"


def submit(
    package: Package,
    arguments: Mapping[str, Any],
    connection: Connection,
    *,
    name: str | None = None,
    experiment: str = "Default",
    create_experiment: bool = False,
    service_account: str | None = None,
) -> Submitted:
    """Start a run of the package.

    Args:
        package: A package written by `elcrec-pipeline compile`.
        arguments: Parameters that differ from their defaults; checked before anything is sent.
        connection: The server.
        name: Name of the run; by default the pipeline's and the time.
        experiment: The experiment of the run.
        create_experiment: Whether to create the experiment if it does not exist.
        service_account: Kubernetes service account of the run's pods; the server's default otherwise.

    Raises:
        UserError: an argument is wrong, or the server cannot be reached or refuses.
    """
    common = _common(package, arguments, name, service_account=service_account)
    with reached(connection) as client, redirect_stdout(StringIO()):  # kfp prints its own links
        place = _experiment(client, connection, experiment, create=create_experiment)
        run = client.run_pipeline(experiment_id=place, **common)
    return Submitted(id=run.run_id, link=connection.link(f"runs/details/{run.run_id}"))


def schedule(
    package: Package,
    arguments: Mapping[str, Any],
    connection: Connection,
    *,
    name: str,
    cron: str | None = None,
    every_seconds: int | None = None,
    replace: bool = False,
    max_concurrency: int = 1,
    experiment: str = "Default",
    create_experiment: bool = False,
    service_account: str | None = None,
) -> Submitted:
    """Let the server start runs by itself; runs that it missed while it was down are not made up for.

    Args:
        package: What `elcrec-pipeline compile` wrote.
        arguments: As for `submit`.
        connection: The server.
        name: Name of the recurring run.
        cron: Six fields, the first of them seconds: `0 30 3 * * 1` is Mondays, half past three.
        every_seconds: Seconds from one run to the next, instead of `cron`.
        replace: Whether to replace recurring runs of the same name in the experiment.
        max_concurrency: Largest number of runs at a time, from 1 to 10.
        experiment: As for `submit`.
        create_experiment: As for `submit`.
        service_account: As for `submit`.

    Raises:
        UserError: an argument is wrong, the name is taken, or the server cannot be reached or refuses.
    """
    if cron is not None:
        _check_cron(cron)
    common = _common(package, arguments, name, service_account=service_account)
    with reached(connection) as client, redirect_stdout(StringIO()):
        if service_account and client.version and client.version < SCHEDULED_ACCOUNTS:
            raise UserError(
                f"before Kubeflow Pipelines {_dotted(SCHEDULED_ACCOUNTS)} a schedule's service account is ignored",
                where=f"--service-account {service_account}, on {_dotted(client.version)}",
                fix="leave it out and give the rights to the server's default account, or upgrade",
            )
        place = _experiment(client, connection, experiment, create=create_experiment)
        earlier = client.list_recurring_runs(experiment_id=place, filter=_named(name), page_size=100)
        ids = [run.recurring_run_id for run in earlier.recurring_runs or []]
        if ids and not replace:
            raise UserError(f"the recurring run {name} exists ({ids[0]})", fix="give --replace or another --name")
        run = client.create_recurring_run(
            experiment_id=place,
            cron_expression=cron,
            interval_second=every_seconds,
            max_concurrency=max_concurrency,
            no_catchup=True,
            **common,
        )
        for old in ids:
            client.delete_recurring_run(old)
    return Submitted(id=run.recurring_run_id, link=connection.link(f"recurringrun/details/{run.recurring_run_id}"))


def status(run_id: str, connection: Connection) -> Status:
    """Return the status of a run.

    Raises:
        UserError: there is no such run, or the server cannot be reached or refuses.
    """
    with reached(connection) as client:
        return _status(client.get_run(run_id), run_id, connection)


def wait(run_id: str, connection: Connection, *, say: Callable[[str], None], poll_seconds: float = 10.0) -> Status:
    """Wait until a run has finished, and report each change of its tasks as a line.

    kfp's own wait does not handle cancelled runs, and would wait for them forever.

    Raises:
        UserError: there is no such run, or the server remains unreachable.
    """
    known: dict[str, str] = {}
    failures = 0
    with reached(connection) as client:
        while True:
            try:
                with explained(connection):
                    found = _status(client.get_run(run_id), run_id, connection)
            except ServerAwayError as error:
                failures += 1
                if failures == TOLERATED:
                    raise
                say(f"{error}; asking again")
            else:
                failures = 0
                for task in found.tasks:
                    if known.get(task.id) != task.state:
                        known[task.id] = task.state
                        say(describe(task))
                if found.finished:
                    return found
            time.sleep(poll_seconds)


def describe(task: Task) -> str:
    """Return a task as one line."""
    duration = "" if task.seconds is None else f"{task.seconds:>7.0f} s"
    line = f"{task.state:<10} {duration:>9}  {task.name}"
    return f"{line}: {task.error}" if task.error else line


def _common(
    package: Package, arguments: Mapping[str, Any], name: str | None, *, service_account: str | None
) -> dict[str, Any]:
    """Return the arguments of kfp that runs and recurring runs share, with checked parameters."""
    return {
        "params": package.resolve(arguments),
        "job_name": name or f"{package.name} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
        "pipeline_package_path": str(package.path),
        "service_account": service_account,
    }


def _experiment(client: Any, connection: Connection, name: str, *, create: bool) -> str:
    """Return the id of an experiment."""
    if create:
        return str(client.create_experiment(name, namespace=connection.namespace).experiment_id)
    found = client.list_experiments(filter=_named(name), namespace=connection.namespace).experiments
    if not found:
        raise UserError(
            f"no experiment {name}", where=connection.host, fix="correct --experiment, or give --create-experiment"
        )
    return str(found[0].experiment_id)


def _named(name: str) -> str:
    """Return the filter for resources of this name."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "string_value": name}]})


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _check_cron(cron: str) -> None:
    """Refuse a cron expression of five fields: the server would read the first field as seconds."""
    if len(cron.split()) != 6 and not cron.startswith("@"):  # noqa: PLR2004 - see the message
        fix = "seconds minutes hours day-of-month month day-of-week, such as 0 30 3 * * 1"
        raise UserError(f"{cron!r} has not six fields", where="--cron", fix=fix)


def _status(run: Any, run_id: str, connection: Connection) -> Status:
    if run.run_id != run_id:  # a login page after the session has ended, which the client reads as an empty run
        raise ServerAwayError(
            "the answer is not a run", where=connection.host, fix="check whether the token has expired"
        )
    details = (run.run_details and run.run_details.task_details) or []
    now = datetime.now(UTC)
    shown = [detail for detail in sorted(details, key=_started) if not _is_plumbing(detail, _pipeline_name(run))]
    return Status(
        run_id=run_id,
        name=run.display_name or "",
        state=run.state or "PENDING",
        link=connection.link(f"runs/details/{run_id}"),
        tasks=tuple(_task(detail, details, now) for detail in shown),
        error=_error(run),
    )


def _task(detail: Any, details: list[Any], now: datetime) -> Task:
    """Return a task with its own error, or that of its driver or pod."""
    children = {key for child in detail.child_tasks or [] for key in (child.task_id, child.pod_name) if key}
    related = [detail, *(other for other in details if {other.task_id, other.pod_name} & children)]
    related += [other for other in details if other.display_name == f"{detail.display_name}-driver"]
    began, ended = detail.start_time or detail.create_time, detail.end_time
    seconds = ((ended if ended and began and ended >= began else now) - began).total_seconds() if began else None
    return Task(
        id=detail.task_id,
        name=detail.display_name or detail.task_id,
        state=detail.state or "PENDING",
        seconds=seconds,
        error=next(filter(None, map(_error, related)), ""),
    )


def _error(thing: Any) -> str:
    """Return the error of a run or task as one line."""
    errors = [thing.error, *(entry.error for entry in thing.state_history or [])]
    return next((" ".join(e.message.split()) for e in errors if e and e.message), "")


def _started(detail: Any) -> tuple[datetime, str]:
    return detail.start_time or detail.create_time or datetime.max.replace(tzinfo=UTC), detail.display_name or ""


def _is_plumbing(detail: Any, pipeline: str) -> bool:
    """Return whether it is internal to KFP: the workflow, its graph, a driver, the pod below a task."""
    name = detail.display_name or ""
    workflow = re.fullmatch(f"{re.escape(pipeline)}-[a-z0-9]{{5}}", name)
    return name in {"root", "executor"} or name.endswith("-driver") or workflow is not None


def _pipeline_name(run: Any) -> str:
    spec = run.pipeline_spec or {}
    info = spec.get("pipeline_spec", spec).get("pipelineInfo", {})
    return str(info.get("name", ""))
