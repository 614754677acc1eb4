"""The pipeline on one machine through kfp.local: in subprocesses, or in containers of the image."""

import os
import uuid
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from kfp import local

from elcrec.errors import UserError
from pipelines.progress import RunLog, Say, following

RECORDED = ("ELCREC_RESULTS", "ELCREC_RUN_ID")
"""Variables by which a run's components find its record."""
NO_IMAGE = "none"
"""The image named in artifacts of components in subprocesses."""


@dataclass(frozen=True, kw_only=True)
class LocalRun:
    """A run that has ended."""

    succeeded: bool
    log: Path
    """Log of all output of kfp and the components."""
    folder: Path | None
    """Its artifacts, one folder per task; `None` if not even the first task began."""


def run(pipeline: Any, arguments: Mapping[str, Any], *, runner: Any, root: Path, say: Say) -> LocalRun:
    """Run the pipeline's components and wait for them.

    Args:
        pipeline: Result of one of the functions in `pipelines.training` or `pipelines.recommendation`.
        arguments: The pipeline's parameters that differ from their defaults.
        runner: `subprocess_runner()` or `docker_runner(…)`.
        root: Folder of all runs' artifacts.
        say: Takes each line of progress, in the form of `elcrec-pipeline status`.
    """
    local.init(runner, pipeline_root=str(root), raise_on_error=True, enable_caching=False)
    root.mkdir(parents=True, exist_ok=True)
    spec = json_format.MessageToDict(pipeline.pipeline_spec)
    name = spec["pipelineInfo"]["name"]
    path = root / f"{name}-{datetime.now():%Y-%m-%d-%H-%M-%S-%f}.log"  # noqa: DTZ005 - as kfp names the folder
    log = RunLog(path, folder=_next_folder(root, name), settled=lambda place: say(f"log: {place}"))
    with log, following(log, _names(spec), say), warnings.catch_warnings():
        # Warnings about images without "python" in their name, and about names and mounts for clusters.
        warnings.filterwarnings("ignore", "You may be attemping to run a task", RuntimeWarning)
        warnings.filterwarnings("ignore", "Task '.*': settings .* have no effect", UserWarning)
        try:
            pipeline(**arguments)
        except RuntimeError as error:  # kfp raises this if a component failed
            log.write(f"{error}\n")
            succeeded = False
        else:
            succeeded = True
    return LocalRun(succeeded=succeeded, log=log.path, folder=log.folder)


@contextmanager
def recording(root: Path, name: str) -> Iterator[Path]:
    """Yield a folder in which the components of a run record how they end, for the outcome."""
    results = (root / "results").absolute()
    results.mkdir(parents=True, exist_ok=True)
    named = dict(zip(RECORDED, (str(results), f"{name}-{uuid.uuid4().hex[:12]}"), strict=True))
    before = {variable: os.environ.get(variable) for variable in named}
    os.environ.update(named)
    try:
        yield results
    finally:
        for variable, value in before.items():
            os.environ.pop(variable)
            if value is not None:
                os.environ[variable] = value


def subprocess_runner() -> Any:
    """Return a runner whose components are subprocesses of this environment."""
    return local.SubprocessRunner(use_venv=False)


def docker_runner(*folders: Path, variables: Collection[str]) -> Any:
    """Return a runner whose components are containers, as this user, on the host's network, with these folders.

    Args:
        folders: Folders to mount at the same paths as here.
        variables: Names of environment variables to pass on to containers, if they are set.

    Raises:
        UserError: no Docker daemon answers.
    """
    import docker  # noqa: PLC0415 - the Docker SDK is needed only here
    from docker.types import Mount  # noqa: PLC0415 - as above

    try:
        docker.from_env().ping()
    except docker.errors.DockerException as error:
        fix = "start it, or set DOCKER_HOST"
        raise UserError(f"no Docker daemon answers ({error})", where="--docker", fix=fix) from error
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    return local.DockerRunner(
        user=f"{os.getuid()}:{os.getgid()}",
        network_mode="host",
        mounts=[Mount(target=str(folder), source=str(folder), type="bind") for folder in folders],
        environment=passed_on(variables),
    )


def passed_on(variables: Collection[str]) -> dict[str, str]:
    """Return the named environment variables of this process that are set."""
    return {name: os.environ[name] for name in variables if name in os.environ}


def _next_folder(root: Path, name: str) -> Callable[[], Path | None]:
    """Return a function that finds the folder of kfp's next run, whose name has a time that only kfp knows."""

    def folders() -> set[Path]:
        return {path for path in root.glob(f"{name}-*") if path.is_dir()}

    earlier = folders()
    return lambda: min(folders() - earlier, default=None)


def _names(spec: Mapping[str, Any]) -> dict[str, str]:
    """Return each task's name in the UI by the name of its component, which kfp.local uses."""
    names: dict[str, set[str]] = {}
    for component in (spec["root"], *spec["components"].values()):
        for task in component.get("dag", {}).get("tasks", {}).values():
            key = task["componentRef"]["name"].removeprefix("comp-")
            names.setdefault(key, set()).add(task["taskInfo"]["name"])
    return {key: found.pop() for key, found in names.items() if len(found) == 1}
