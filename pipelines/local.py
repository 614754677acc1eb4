"""The pipeline on one machine through kfp.local: in subprocesses, or in containers of the image."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp import local

PASSED_ON = ("MLFLOW_TRACKING_URI", "REDIS")
"""Environment of this process that containers get too."""


def run_here(pipeline: Any, arguments: Mapping[str, Any], *, root: Path, store: Path) -> Path:
    """Run every component in a subprocess of this environment; return the folder of the run's artifacts.

    Raises:
        RuntimeError: a component failed.
    """
    return _run(local.SubprocessRunner(use_venv=False), pipeline, arguments, root=root, store=store)


def run_in_docker(pipeline: Any, arguments: Mapping[str, Any], *, root: Path, store: Path) -> Path:
    """Run every component in a container of its image, as this user, on the host's network.

    Raises:
        RuntimeError: a component failed.
    """
    from docker.types import Mount  # noqa: PLC0415 - only this runner needs the Docker SDK

    place = str(store.absolute())
    store.mkdir(parents=True, exist_ok=True)
    runner = local.DockerRunner(
        user=f"{os.getuid()}:{os.getgid()}",
        network_mode="host",
        mounts=[Mount(target=place, source=place, type="bind")],
        environment={name: os.environ[name] for name in PASSED_ON if name in os.environ},
    )
    return _run(runner, pipeline, arguments, root=root, store=store)


def _run(runner: Any, pipeline: Any, arguments: Mapping[str, Any], *, root: Path, store: Path) -> Path:
    local.init(runner, pipeline_root=str(root), raise_on_error=True)
    earlier = set(root.glob("*"))
    with warnings.catch_warnings():
        # kfp warns of images without "python" in their name; here the components run without the image.
        warnings.filterwarnings("ignore", "You may be attemping to run a task", RuntimeWarning)
        pipeline(**arguments, store=str(store.absolute()))
    (folder,) = set(root.glob("*")) - earlier
    return folder
