"""`elcrec-pipeline submit`, `schedule` and `status`: argument parsing and output."""

import argparse
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pipelines.options import COMPILED, arguments_of, refuse
from pipelines.settings import add_cluster_settings, add_param, add_settings, build_pipeline, compile_to

if TYPE_CHECKING:  # importing kfp takes two seconds, which --help should not
    from pipelines.client import Status, Submitted
    from pipelines.package import Package
    from pipelines.server import Connection

Options = argparse.Namespace
EXPERIMENT = "Default"
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def add_commands(commands: Any) -> None:
    """Add the commands that talk to a cluster to the subparsers of `elcrec-pipeline`."""

    def add(name: str, command: Callable[..., int], text: str) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        _add_connection(sub)
        return sub

    starting = add("submit", _submit, "start a run on Kubeflow Pipelines")
    _add_settings(starting)
    _add_run(starting, name="name of the run (default: the pipeline's and the time)")
    starting.add_argument("--wait", action="store_true", help="wait until it ends; exit status 1 if it fails")
    schedule = add("schedule", _schedule, "let Kubeflow Pipelines start runs by itself")
    _add_settings(schedule)
    _add_run(schedule, name="name of the recurring run", required=True)
    when = schedule.add_mutually_exclusive_group(required=True)
    when.add_argument("--cron", metavar="FIELDS", help="cron expression of six fields, seconds first: '0 30 3 * * 1'")
    when.add_argument("--every", type=_seconds, metavar="TIME", help="interval, such as 12h or 7d")
    schedule.add_argument(
        "--max-concurrency", type=int, default=1, metavar="N", help="largest number of runs at a time (default 1)"
    )
    schedule.add_argument("--replace", action="store_true", help="replace the recurring run of this name")
    status = add("status", _status, "show the status of a run; exit status 1 if it has failed")
    status.add_argument("run", metavar="RUN", help="id of the run")
    status.add_argument("--wait", action="store_true", help="wait until it ends")


def _add_settings(sub: argparse.ArgumentParser) -> None:
    add_settings(sub)
    add_cluster_settings(sub)


def _add_connection(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--host", metavar="URL", help="address of Kubeflow Pipelines (default: KF_PIPELINES_ENDPOINT)")
    sub.add_argument(
        "--namespace", metavar="NAME", help="namespace, on a server with several users (default: KFP_NAMESPACE)"
    )
    sub.add_argument("--ca-file", type=Path, metavar="FILE", help="file with certificates of a private authority")


def _add_run(sub: argparse.ArgumentParser, *, name: str, required: bool = False) -> None:
    package = "a compiled package, instead of compiling one with the options of `compile`"
    sub.add_argument("--package", type=Path, metavar="FILE", help=package)
    add_param(sub)
    sub.add_argument("--name", required=required, help=name)
    sub.add_argument("--experiment", metavar="NAME", help=f"(default {EXPERIMENT})")
    sub.add_argument("--create-experiment", action="store_true", help="create the experiment if it does not exist")
    sub.add_argument("--service-account", metavar="NAME", help="service account of the pods (default: the server's)")
    sub.add_argument("--no-cache", action="store_true", help="take no task from the cache")


def _submit(options: Options) -> int:
    from pipelines import client

    connection = _connection(options)
    with _package(options) as package:
        run = client.submit(package, arguments_of(options), connection, name=options.name, **_placing(options))
    _show_submitted("run", run)
    return _follow(run.id, connection) if options.wait else 0


def _schedule(options: Options) -> int:
    from pipelines.client import schedule

    with _package(options) as package:
        recurring = schedule(
            package,
            arguments_of(options),
            _connection(options),
            name=options.name,
            cron=options.cron,
            every_seconds=options.every,
            replace=options.replace,
            max_concurrency=options.max_concurrency,
            **_placing(options),
        )
    _show_submitted("recurring run", recurring)
    return 0


def _status(options: Options) -> int:
    from pipelines.client import describe, status

    connection = _connection(options)
    if options.wait:
        return _follow(options.run, connection)
    found = status(options.run, connection)
    for task in found.tasks:
        print(describe(task))
    return _show_outcome(found)


def _follow(run_id: str, connection: "Connection") -> int:
    from pipelines.client import wait

    return _show_outcome(wait(run_id, connection, say=lambda line: print(line, flush=True)))


def _show_outcome(status: "Status") -> int:
    print(f"{status.name}: {status.state}{f': {status.error}' if status.error else ''}\n{status.link}")
    return 0 if status.succeeded or not status.finished else 1


def _show_submitted(what: str, submitted: "Submitted") -> None:
    print(f"{what} {submitted.id}\n{submitted.link}", flush=True)


@contextmanager
def _package(options: Options) -> Iterator["Package"]:
    """Yield the named package, or one compiled from the options."""
    from pipelines.package import load_package

    if options.package:
        refuse(options, COMPILED, because="--package is compiled already")
    with TemporaryDirectory() as scratch:
        path = options.package or Path(scratch, "pipeline.yaml")
        if not options.package:
            compile_to(path, build_pipeline(options))
        package = load_package(path)
        yield package.without_cache(Path(scratch, "uncached.yaml")) if options.no_cache else package


def _connection(options: Options) -> "Connection":
    from pipelines.server import Connection

    return Connection.from_environment(host=options.host, namespace=options.namespace, ca_file=options.ca_file)


def _placing(options: Options) -> dict[str, Any]:
    names = ("create_experiment", "service_account")
    return {"experiment": options.experiment or EXPERIMENT} | {name: getattr(options, name) for name in names}


def _seconds(text: str) -> int:
    match = re.fullmatch(r"([1-9]\d*)([smhd])", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number and one of s, m, h, d")
    return int(match[1]) * SECONDS[match[2]]
