"""A simulation of Argo Workflows' retries of a step, from its documentation and docs/kubeflow.md.

`backoff.maxDuration` is wall clock from the creation of the first attempt's pod: an attempt that would begin later is
not begun, one that runs then is killed. Each wait is `duration * factor ** n`. `OnFailure` tries again after a
container that failed, `OnError` after a pod that was lost.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Ending = Literal["succeeded", "failed", "lost"]
Policy = Literal["OnFailure", "OnError"]
RETRIED: dict[Policy, Ending] = {"OnFailure": "failed", "OnError": "lost"}


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One pod of a step."""

    began: float
    ran: float
    """Seconds of work; a pod that waits for a machine does none."""
    killed: bool
    """Whether the window ended it before its own end."""


def seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


def attempts(
    policy: dict[str, Any] | None,
    *,
    when: Policy = "OnFailure",
    pending: float = 0.0,
    work: Callable[[int], tuple[float, Ending]],
) -> list[Attempt]:
    """Return the attempts of a step with this `retryPolicy` of the package.

    Args:
        policy: `retryPolicy` of the task; `None` tries once.
        when: Argo's `retryPolicy`, which the backend decides.
        pending: Seconds for which each pod waits for a machine.
        work: Returns, for the nth attempt, how long it would run and how it would end.
    """
    limit = int(policy["maxRetryCount"]) if policy else 0
    window = seconds(policy["backoffMaxDuration"]) if policy else float("inf")
    made: list[Attempt] = []
    now = 0.0
    for number in range(limit + 1):
        if policy and number:
            now += seconds(policy["backoffDuration"]) * policy["backoffFactor"] ** (number - 1)
            if now > window:
                break
        long, ending = work(number)
        end = now + pending + long
        killed = end > window
        made.append(Attempt(began=now, ran=max(min(end, window) - now - pending, 0.0), killed=killed))
        now = min(end, window)
        if ending != RETRIED[when]:
            break
    return made
