"""Results of the steps of a run, one small file each, in a folder that all pods of the run share.

A backend's report of how a run ended is not reliable: it differs between versions, and some states are wrong. KFP also
keeps no output of a failed step. So each step records that it began, and how it ended. The attempts of a step share a
file, members of a loop do not.

| variable | meaning |
|-|-|
| `ELCREC_RESULTS` | folder of all runs' results, on a volume; without it nothing is written |
| `ELCREC_RUN_ID` | id of the run, a folder in it |
| `ELCREC_STEP` | name of the step |
"""

import hashlib
import logging
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, Self

import msgspec

from elcrec.artifacts import write_json

logger = logging.getLogger("elcrec.step")

State = Literal["running", "succeeded", "failed"]
"""States of a step; a killed step stays at `running`."""
FACTS = ("decision", "reason", "model", "version", "verdict", "retrain")
"""Metadata of outputs from which the outcome of a run is made, written by gate, push and monitor."""
KEPT_DAYS = 30
"""Seconds for which the results of a run stay on the volume."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The last recorded result of a step."""

    step: str
    """Its name."""
    state: State
    """State of the step."""
    at: float
    """Time of the record, in seconds since 1970."""
    message: str = ""
    """The error."""
    permanent: bool = False
    """Whether another attempt would fail in the same way."""
    facts: dict[str, str] = {}
    """Some of `FACTS`."""


class Record:
    """The file with the result of one step."""

    def __init__(self, step: str, path: Path | None) -> None:
        """Take the step's name and the path of its file; without a path, nothing is recorded."""
        self._step, self._path = step, path

    @classmethod
    def of(cls, environ: Mapping[str, str], executor_input: str) -> Self:
        """Return the record of this container's step.

        Args:
            environ: The environment variables.
            executor_input: KFP's input for the step, the same for all its attempts, and different for every other step.
        """
        folder, step = run_folder(environ), environ.get("ELCREC_STEP", "step")
        key = hashlib.sha256(executor_input.encode()).hexdigest()[:16]
        return cls(step, folder / f"{step}-{key}.json" if folder else None)

    def read(self) -> Result | None:
        """Return the last result of an earlier attempt."""
        return _read(self._path) if self._path else None

    def write(
        self, state: State, *, message: str = "", permanent: bool = False, facts: Mapping[str, str] | None = None
    ) -> None:
        """Replace the earlier result; a failing volume must not fail the step."""
        result = Result(
            step=self._step, state=state, at=time.time(), message=message, permanent=permanent, facts=dict(facts or {})
        )
        try:
            if self._path:
                write_json(self._path, msgspec.to_builtins(result))
        except OSError as error:
            logger.warning("the result of the step is not recorded: %s", error)


def run_folder(environ: Mapping[str, str]) -> Path | None:
    """Return the folder of this run's results; `None` if none are recorded."""
    results, run = environ.get("ELCREC_RESULTS"), environ.get("ELCREC_RUN_ID")
    return Path(results, run) if results and run else None


def read_results(folder: Path) -> list[Result]:
    """Return the last results of the steps of a run, earliest first; damaged files are ignored."""
    found = [result for path in folder.glob("*.json") if (result := _read(path))]
    return sorted(found, key=lambda result: result.at)


def forget_old_runs(folder: Path) -> None:
    """Remove the results of runs that ended long ago, in the folder that holds this one's."""
    for run in folder.parent.glob("*"):
        with suppress(OSError):  # another run may be removing the same ones
            if run.stat().st_mtime < time.time() - KEPT_DAYS * 86400:
                shutil.rmtree(run)


def _read(path: Path) -> Result | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Result)
    except (OSError, msgspec.DecodeError):
        return None
