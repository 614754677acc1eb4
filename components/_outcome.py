"""How a run ended, in words, and where to send them."""

import json
import logging
import urllib.request
from typing import Any
from urllib.error import URLError

logger = logging.getLogger(__name__)

_SECONDS = 10


def describe_run(pipeline: str, status: Any) -> str:
    """Return a line of Markdown on a run; `status` is KFP's `PipelineTaskFinalStatus`."""
    run = status.pipeline_job_resource_name
    if status.state == "SUCCEEDED":
        return f"**{pipeline} succeeded** ({run})\n"
    reason = status.error_message or "no reason given"
    return f"**{pipeline} {status.state.lower()}** ({run}): {reason}\n"


def notify(address: str, text: str) -> None:
    """POST `{"text": …}`, which Slack, Mattermost and Teams take; an address that does not answer is logged alone.

    The address is a secret, so that it is never shown.
    """
    body = json.dumps({"text": text}).encode()
    try:
        # No opener but HTTP's: an address of another kind is refused.
        opener = urllib.request.OpenerDirector()
        opener.add_handler(urllib.request.HTTPHandler())
        opener.add_handler(urllib.request.HTTPSHandler())
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})  # noqa: S310 - as said
        if opener.open(request, timeout=_SECONDS) is None:
            logger.warning("the webhook was not told: not an address of HTTP")
    except (OSError, ValueError, URLError) as error:
        logger.warning("the webhook was not told: %s", type(error).__name__)
