"""The outcome of a run, as text and for programs, and the webhook to which it is sent."""

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
"""Version of the webhook's body; it is raised if a field changes or is removed, not if one is added."""
SURE = frozenset({"COMPLETE", "SUCCEEDED"})
"""The backend's states of steps that are reliable. FAILED may be reported after a successful retry, and RUNNING after a
refused gate."""
_KILLED = "it was stopped or killed: out of memory, out of time, or on a machine that was lost"
_SECONDS = 10
_WAITS = (2.0, 10.0)
_MARKS = {"pushed": "succeeded, pushed", "refused": "succeeded, not pushed"}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a run: the body of the webhook, besides `text`."""

    outcome: Literal["pushed", "refused", "succeeded", "failed", "unknown"]
    """`refused` is the gate's decision, not a failure; `succeeded` is a run that had nothing to push."""
    pipeline: str
    """Name of the pipeline."""
    run: str
    """Id of the run, or the backend's name of it if the id is unknown."""
    name: str = ""
    """Display name of the run."""
    namespace: str = ""
    """Namespace of the run."""
    link: str = ""
    """Page of the run, if platform.yaml names the UI."""
    step: str = ""
    """Name of the step that failed."""
    message: str = ""
    """Reason of the failure or of the refusal, or the monitor's verdict."""
    model: str = ""
    """Name of the pushed model."""
    version: str = ""
    """Its version in the registry."""
    state: str = ""
    """The state in the backend's own words."""

    @property
    def text(self) -> str:
        """The outcome as one line of Markdown."""
        name = f"{self.model} version {self.version}".strip() if self.version else ""
        where = f"step {self.step}" if self.step else ""
        words = ": ".join(filter(None, (name, where, self.message)))
        called = self.name or self.run
        run = f"[{called}]({self.link})" if self.link else called
        line = f"**{self.pipeline} {_MARKS.get(self.outcome, self.outcome)}** ({run})"
        return f"{line}: {words}\n" if words else f"{line}\n"


def conclude(results: Sequence[Result], state: str, **facts: str) -> Outcome:
    """Return the outcome of a run.

    Args:
        results: The results that its steps recorded, earliest first.
        state: The backend's word for the state of the steps, used only if the steps recorded nothing.
        facts: Further known fields of the outcome.
    """
    said = _verdict([result for result in results if result.step != "outcome"], state)
    return Outcome(**said, state=state, **facts)  # type: ignore[arg-type] # its kind is one of the declared ones


def _verdict(results: Sequence[Result], state: str) -> dict[str, str]:
    """Return the fields of the outcome that follow from the steps."""
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
        return {"outcome": "failed", "message": f"the steps after {results[-1].step} did not start"}
    return {
        "outcome": "unknown",
        "message": f"the steps recorded no result, and the state {state} of Kubeflow is not reliable",
    }


def notify(address: str, outcome: Outcome) -> None:
    """POST `{"text": …, "elcrec": {…}}`, of which chats show `text`; if that fails, only log it.

    The address is a secret, so it is never shown.
    """
    document = {"schema_version": BODY_VERSION, **msgspec.to_builtins(outcome)}
    # Only openers for HTTP: any other kind of address is refused.
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.HTTPHandler, urllib.request.HTTPSHandler, urllib.request.HTTPErrorProcessor):
        opener.add_handler(handler())
    opener.add_handler(urllib.request.HTTPDefaultErrorHandler())
    body = json.dumps({"text": outcome.text, "elcrec": document}).encode()
    for seconds in (*_WAITS, None):
        try:
            request = urllib.request.Request(address, body, {"Content-Type": "application/json"})  # noqa: S310 - HTTP only
            if opener.open(request, timeout=_SECONDS) is None:
                logger.warning("the webhook was not called: not an http or https address")
        except (OSError, ValueError, urllib.error.URLError) as error:
            if seconds is None or not is_passing(error):
                logger.warning("the webhook was not called: %s", type(error).__name__)
                return
            time.sleep(seconds)
        else:
            return
