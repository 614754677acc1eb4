"""The pipeline on one machine through kfp.local: in subprocesses, or in containers of the image."""

import os
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from kfp import local


def run(pipeline: Any, arguments: Mapping[str, Any], *, runner: Any, root: Path, cache: bool) -> Path:
    """Run the pipeline's components; return the folder of the run's artifacts, a folder a task.

    Args:
        pipeline: What `pipelines.training.build` returns.
        arguments: The pipeline's parameters that differ from their defaults.
        runner: `subprocess_runner()` or `docker_runner(…)`.
        root: Folder of all runs' artifacts.
        cache: Whether tasks that ran before with the same inputs are taken from the cache under `root`.

    Raises:
        RuntimeError: a component failed.
    """
    local.init(runner, pipeline_root=str(root), raise_on_error=True, enable_caching=cache)
    earlier = set(root.glob("elcrec-*"))
    with warnings.catch_warnings():
        # Of images without "python" in their name, and of names and mounts that only a cluster knows.
        warnings.filterwarnings("ignore", "You may be attemping to run a task", RuntimeWarning)
        warnings.filterwarnings("ignore", "Task '.*': settings .* have no effect", UserWarning)
        pipeline(**arguments)
    (folder,) = set(root.glob("elcrec-*")) - earlier
    return folder


def subprocess_runner() -> Any:
    """Return the runner whose components are subprocesses of this environment."""
    return local.SubprocessRunner(use_venv=False)


def docker_runner(*folders: Path, variables: Collection[str]) -> Any:
    """Return the runner whose components are containers, as this user, on the host's network, with these folders.

    Args:
        folders: Mounted where they are here.
        variables: Names of this process's environment variables that containers get too, where they are set.
    """
    from docker.types import Mount  # noqa: PLC0415 - only this runner needs the Docker SDK

    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    return local.DockerRunner(
        user=f"{os.getuid()}:{os.getgid()}",
        network_mode="host",
        mounts=[Mount(target=str(folder), source=str(folder), type="bind") for folder in folders],
        environment={name: os.environ[name] for name in variables if name in os.environ},
    )
