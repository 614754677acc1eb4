"""The entry point of a step's container: kfp's executor, with our secrets, retries and records around it.

    python3 -m components._step MODULE …

runs the module's `executor_main`, which reads the rest of the command line as usual. The exit status is one of the
constants below. KFP's launcher, which starts this, always ends with 1 after an error, so a backend cannot distinguish a
wrong input from a lost machine. So an attempt that would fail like the previous one is cut short here.
"""

import importlib
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path

from components._faults import is_passing
from components._results import FACTS, Record
from elcrec.errors import LostWorkError, UserError

SUCCESS, BUG, PERMANENT, PASSING = 0, 1, 2, 75
"""Exit status: done; an unforeseen error or lost work; a wrong input; a fault that did not pass (EX_TEMPFAIL)."""
SECRET = "ELCREC_SECRET_"  # noqa: S105 - a prefix
"""Prefix of our secrets' names in a pod, so that neither KFP's launcher nor its plugins use them as their own."""
WAITS = (5.0, 15.0, 45.0, 120.0)
"""Seconds before each further attempt after a passing fault."""
AGAIN_WITHIN = 900.0
"""Seconds after a permanent failure within which an attempt is a retry of Argo's; a later one follows a correction."""
_LOGIN = tuple(f"MLFLOW_TRACKING_{part}" for part in ("AUTH", "TOKEN", "USERNAME", "PASSWORD"))
_INJECTED = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_WORKSPACE", *_LOGIN)
"""Variables that a backend sets besides the address of its own MLflow server."""

logger = logging.getLogger("elcrec.step")


def main(arguments: Sequence[str], environ: MutableMapping[str, str]) -> int:
    """Run the step of this container; return the exit status."""
    take_secrets(environ)
    module, given = importlib.import_module(arguments[0]), arguments[arguments.index("--executor_input") + 1]
    return run(module.executor_main, Record.of(environ, given), Path(json.loads(given)["outputs"]["outputFile"]))


def take_secrets(environ: MutableMapping[str, str]) -> None:
    """Give our secrets their usual names, in this process only.

    A backend may have its own MLflow server. If ours is named, all variables of the other are removed.
    """
    private = [name for name in environ if name.startswith(SECRET)]
    own = {name.removeprefix(SECRET): environ.pop(name) for name in private}
    own = {name: value for name, value in own.items() if value}
    if "MLFLOW_TRACKING_URI" in own:
        for name in _INJECTED:
            environ.pop(name, None)
    environ.update(own)


def run(execute: Callable[[], object], record: Record, output: Path, *, waits: Sequence[float] = WAITS) -> int:
    """Run a component, record how it ended, and return the exit status.

    Args:
        execute: Runs the component.
        record: The record of the step's result.
        output: The file in which kfp's executor describes the outputs.
        waits: Seconds before each further attempt after a passing fault.
    """
    earlier = record.read()
    if earlier and earlier.permanent and time.time() - earlier.at < AGAIN_WITHIN:
        logger.warning("not tried again, because it would fail in the same way; remove the cause, then start a new run")
        _show(UserError(earlier.message))
        return PERMANENT
    record.write("running")
    try:
        _patiently(execute, waits)
    except Exception as error:  # noqa: BLE001 - every error is recorded
        status = status_of(error)
        record.write("failed", message=_line(error), permanent=status == PERMANENT)
        _show(error)
        return status
    record.write("succeeded", facts=_facts(output))
    return SUCCESS


def status_of(error: Exception) -> int:
    """Return the exit status for the kind of error."""
    if is_passing(error):
        return PASSING
    return PERMANENT if isinstance(error, UserError) and not isinstance(error, LostWorkError) else BUG


def _patiently(execute: Callable[[], object], waits: Sequence[float]) -> None:
    for seconds in waits:
        try:
            execute()
        except Exception as error:
            if not is_passing(error):
                raise
            logger.warning("%s; trying again in %.0f s", _line(error), seconds)
            time.sleep(seconds)
        else:
            return
    execute()


def _facts(output: Path) -> dict[str, str]:
    """Return the facts in the component's outputs for the outcome of the run."""
    if not output.is_file():
        return {}
    artifacts = json.loads(output.read_text(encoding="utf-8")).get("artifacts", {}).values()
    known = [artifact.get("metadata", {}) for group in artifacts for artifact in group["artifacts"]]
    return {name: str(metadata[name]) for metadata in known for name in FACTS if name in metadata}


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def _show(error: Exception) -> None:
    """Print an error so that the log ends with its one-line message."""
    if isinstance(error, UserError):
        details = f"{error.details}\n" if error.details else ""
        sys.stderr.write(f"{details}elcrec: error: {error}\n")
    else:
        traceback.print_exception(error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
