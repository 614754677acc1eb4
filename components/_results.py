"""What the steps of a run say of themselves, a small file each, in a folder that all pods of the run see.

A backend's words for how a run ended are no guide: they differ between versions, and some are wrong. KFP also keeps no
output of a step that failed. So each step writes down that it began, and how it ended. Attempts of one step share a
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
"""A step that was killed stays at `running`."""
FACTS = ("decision", "reason", "model", "version", "verdict", "retrain")
"""Metadata of outputs that the outcome of a run is made from: gate, push and monitor write them."""
KEPT_DAYS = 30
"""How long the results of a run stay on the volume."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The last word of a step."""

    step: str
    """Its name."""
    state: State
    """How it fares."""
    at: float
    """When it said so, in seconds since 1970."""
    message: str = ""
    """What was wrong."""
    permanent: bool = False
    """Whether another attempt would fail alike."""
    facts: dict[str, str] = {}
    """Some of `FACTS`."""


class Record:
    """The file of one step."""

    def __init__(self, step: str, path: Path | None) -> None:
        """Take the step's name and the place of its file; without a place nothing is kept."""
        self._step, self._path = step, path

    @classmethod
    def of(cls, environ: Mapping[str, str], executor_input: str) -> Self:
        """Return the record of this container's step.

        Args:
            environ: The environment variables.
            executor_input: What KFP hands to the step; all its attempts get the same, and no other step does.
        """
        folder, step = run_folder(environ), environ.get("ELCREC_STEP", "step")
        key = hashlib.sha256(executor_input.encode()).hexdigest()[:16]
        return cls(step, folder / f"{step}-{key}.json" if folder else None)

    def read(self) -> Result | None:
        """Return what an earlier attempt said last."""
        return _read(self._path) if self._path else None

    def write(
        self, state: State, *, message: str = "", permanent: bool = False, facts: Mapping[str, str] | None = None
    ) -> None:
        """Replace what was said before; a volume that fails here must not fail the step."""
        result = Result(
            step=self._step, state=state, at=time.time(), message=message, permanent=permanent, facts=dict(facts or {})
        )
        try:
            if self._path:
                write_json(self._path, msgspec.to_builtins(result))
        except OSError as error:
            logger.warning("the result of the step is not written down: %s", error)


def run_folder(environ: Mapping[str, str]) -> Path | None:
    """Return the folder of this run's results; `None` where none are kept."""
    results, run = environ.get("ELCREC_RESULTS"), environ.get("ELCREC_RUN_ID")
    return Path(results, run) if results and run else None


def read_results(folder: Path) -> list[Result]:
    """Return what the steps of a run said last, earliest first; a file that is damaged says nothing."""
    found = [result for path in folder.glob("*.json") if (result := _read(path))]
    return sorted(found, key=lambda result: result.at)


def forget_old_runs(folder: Path) -> None:
    """Remove the results of runs that ended long ago, in the folder that holds this one's."""
    for run in folder.parent.glob("*"):
        with suppress(OSError):  # another run may be removing the same
            if run.stat().st_mtime < time.time() - KEPT_DAYS * 86400:
                shutil.rmtree(run)


def _read(path: Path) -> Result | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Result)
    except (OSError, msgspec.DecodeError):
        return None
