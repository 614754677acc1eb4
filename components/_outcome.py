"""How a run ended, in words and for programs, and where to send them."""

import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Literal

import msgspec

from components._faults import is_passing
from components._results import Result

logger = logging.getLogger(__name__)

BODY_VERSION = 1
"""Of the webhook's body; a field that is added leaves it, one that changes or goes raises it."""
SURE = frozenset({"COMPLETE", "SUCCEEDED"})
"""States of the steps as a backend tells them that mean what they say. FAILED may follow a retry that succeeded, and
RUNNING a refused gate."""
_KILLED = "it was stopped or killed: out of memory, out of time, or on a machine that was lost"
_SECONDS = 10
_WAITS = (2.0, 10.0)
_MARKS = {"pushed": "succeeded, pushed", "refused": "succeeded, not pushed"}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended: the body of the webhook, beside `text`."""

    outcome: Literal["pushed", "refused", "succeeded", "failed", "unknown"]
    """`refused` is the gate's answer and no failure; `succeeded` is a run that had nothing to push."""
    pipeline: str
    """Name of the pipeline."""
    run: str
    """Id of the run, or the backend's name of it where no id is known."""
    name: str = ""
    """What people call the run."""
    namespace: str = ""
    """Namespace of the run."""
    link: str = ""
    """Page of the run, where platform.yaml names the UI."""
    step: str = ""
    """The step that failed."""
    message: str = ""
    """Why it failed, why the model was refused, or the monitor's verdict."""
    model: str = ""
    """Name of the model that was pushed."""
    version: str = ""
    """Its version in the registry."""
    state: str = ""
    """The backend's own word."""

    @property
    def text(self) -> str:
        """One line of Markdown."""
        name = f"{self.model} version {self.version}".strip() if self.version else ""
        where = f"step {self.step}" if self.step else ""
        words = ": ".join(filter(None, (name, where, self.message)))
        called = self.name or self.run
        run = f"[{called}]({self.link})" if self.link else called
        line = f"**{self.pipeline} {_MARKS.get(self.outcome, self.outcome)}** ({run})"
        return f"{line}: {words}\n" if words else f"{line}\n"


def conclude(results: Sequence[Result], state: str, **facts: str) -> Outcome:
    """Return how a run ended.

    Args:
        results: What its steps wrote down, earliest first.
        state: The backend's word for the state of the steps, which decides only where the steps say nothing.
        facts: Fields of the outcome that are known besides.
    """
    said = _verdict([result for result in results if result.step != "outcome"], state)
    return Outcome(**said, state=state, **facts)  # type: ignore[arg-type] # its kind is one of those that are declared


def _verdict(results: Sequence[Result], state: str) -> dict[str, str]:
    """Return the fields of the outcome that the steps decide."""
    bad = next((result for kind in ("failed", "running") for result in results if result.state == kind), None)
    if bad:
        return {"outcome": "failed", "step": bad.step, "message": bad.message or _KILLED}
    facts = {name: value for result in results for name, value in result.facts.items()}
    if facts.get("decision") == "refused":
        return {"outcome": "refused", "message": facts.get("reason", "")}
    if "version" in facts:
        return {"outcome": "pushed", **{name: facts[name] for name in ("model", "version")}}
    if state in SURE or facts.get("retrain") == "no" or any(result.step == "recommend" for result in results):
        return {"outcome": "succeeded", "message": ": ".join(filter(None, map(facts.get, ("verdict", "reason"))))}
    if results:
        return {"outcome": "failed", "message": f"what follows step {results[-1].step} did not start"}
    return {"outcome": "unknown", "message": f"the steps left no result; {state} of Kubeflow may mean anything"}


def notify(address: str, outcome: Outcome) -> None:
    """POST `{"text": …, "elcrec": {…}}`, of which chats show `text`; an address that does not answer is logged alone.

    The address is a secret, so that it is never shown.
    """
    document = {"schema_version": BODY_VERSION, **msgspec.to_builtins(outcome)}
    # No opener but HTTP's: an address of another kind is refused.
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.HTTPHandler, urllib.request.HTTPSHandler, urllib.request.HTTPErrorProcessor):
        opener.add_handler(handler())
    opener.add_handler(urllib.request.HTTPDefaultErrorHandler())
    body = json.dumps({"text": outcome.text, "elcrec": document}).encode()
    for seconds in (*_WAITS, None):
        try:
            request = urllib.request.Request(address, body, {"Content-Type": "application/json"})  # noqa: S310 - as said
            if opener.open(request, timeout=_SECONDS) is None:
                logger.warning("the webhook was not told: not an address of HTTP")
        except (OSError, ValueError, urllib.error.URLError) as error:
            if seconds is None or not is_passing(error):
                logger.warning("the webhook was not told: %s", type(error).__name__)
                return
            time.sleep(seconds)
        else:
            return
