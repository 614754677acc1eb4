"""The state that `elcrec monitor` keeps from run to run: monitor.json."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from elcrec.artifacts import SCHEMA_VERSION, read_document
from elcrec.monitoring.verdict import Day, Judgement, Reference, Verdict

MONITOR_FILE = "monitor.json"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request to retrain: its time and its bundle."""

    time: datetime
    digest: str


class BundleState(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle that was served.

    Attributes:
        first: the day on which it was first shown, which is not a whole day and is left out.
        edges: lower edges of the 2nd to the 10th decile of its scores, on its first day with enough users.
        reference: the reference days; `None` until there are enough.
        days: whole days, without the reference days once there is a reference.
        limits: limit of each check, once there is a reference.
        judgements: judgements of `days`, once there is a reference.
    """

    digest: str
    model: str
    version: str
    first: str
    edges: tuple[float, ...] = ()
    reference: Reference | None = None
    days: tuple[Day, ...] = ()
    limits: dict[str, float] = {}
    judgements: tuple[Judgement, ...] = ()


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The document.

    Attributes:
        config: the section `monitor`.
        window: window of the exposures, in seconds.
        time: time of the judgement.
        bundle: digest of the bundle that the verdict is about; `None` if none was shown yet.
        verdict: the overall verdict.
        reasons: its reasons as sentences.
        retrain: whether this run requests retraining.
        requests: all requests, including one by this run.
    """

    config: dict[str, Any] = {}
    window: float = 0.0
    time: datetime | None = None
    bundle: str | None = None
    verdict: Verdict = "learning"
    reasons: tuple[str, ...] = ()
    retrain: bool = False
    requests: tuple[Request, ...] = ()
    bundles: tuple[BundleState, ...] = ()
    schema_version: int = SCHEMA_VERSION


def read_state(folder: Path) -> State:
    """Read the state of an earlier run; on the first run there is none.

    Raises:
        UserError: the file is something else.
    """
    path = folder / MONITOR_FILE
    if not path.exists():
        return State()
    fix = "name the folder of an earlier `elcrec monitor`, or move it away to start again"
    return read_document(path, State, name="what a monitor has written", fix=fix)


def document(state: State) -> Mapping[str, Any]:
    """Return the state as plain values, with the version first."""
    plain: dict[str, Any] = msgspec.to_builtins(state)
    return {"schema_version": plain.pop("schema_version"), **plain}
