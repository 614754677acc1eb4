"""Events: bring live events into the online store, from a file or from the event log."""

import logging
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import replace

from elcrec.data.ids import normal_id
from elcrec.progress import track
from elcrec.serving.event_file import OWN_COLUMNS, EventColumns, read_events
from elcrec.serving.ports import Event, FeatureStore

logger = logging.getLogger(__name__)

_BATCH = 1_000
_COLUMNS = ["user_id", "item_id", "timestamp", "event_id", "answer_id", "kind"]
_OUTCOMES = ("accepted", "duplicates", "late")


def push_events(
    lines: Iterable[str],
    *,
    name: str,
    features: FeatureStore,
    columns: EventColumns = OWN_COLUMNS,
    dislikes: Container[str] = (),
) -> dict[str, int]:
    """Check every line, then push all events; return the numbers accepted, repeated and late, and of users.

    Pushing the same file again changes nothing, so after an interruption push it again. `dislikes` are the kinds of
    events that express dislike.

    Raises:
        UserError: a line is not a valid event; nothing was written.
        StoreUnavailable: the online store stopped answering; some events may have been written.
    """
    events = read_events(lines, name=name, columns=columns)
    # Events are grouped by user, so that each history is read and written once per batch.
    events.sort(key=lambda event: event.user_id)
    starts = range(0, len(events), _BATCH)
    totals = Counter[str]()
    for start in track(starts, total=len(starts), label="events", step=_BATCH):
        totals += _push(events[start : start + _BATCH], features, dislikes, logged=False)
    return {"events": len(events), "users": len({event.user_id for event in events}), **_outcomes(totals)}


def replay_events(features: FeatureStore, dislikes: Container[str] = ()) -> dict[str, int]:
    """Push the events of the event log again, into an online store that lost them; return the outcome.

    Repeating it changes nothing. `dislikes` are the kinds of events that express dislike.

    Raises:
        UserError: nothing was published to this store yet.
        StoreUnavailable: the online store or the log does not answer.
    """
    totals = Counter[str]()
    for batch in features.event_log.batches():
        events = [_normal(Event(**row)) for row in batch.select(_COLUMNS).to_pylist()]
        events.sort(key=lambda event: event.user_id)
        totals += _push(events, features, dislikes, logged=True)
        logger.info("%d events so far", totals["events"])
    return {"events": totals["events"], **_outcomes(totals)}


def _normal(event: Event) -> Event:
    """Return an event with ids in their normal form, which logs of earlier versions lack."""
    return replace(event, user_id=normal_id(event.user_id), item_id=normal_id(event.item_id))


def _push(events: Sequence[Event], features: FeatureStore, dislikes: Container[str], *, logged: bool) -> Counter[str]:
    outcome = features.push_events(events, dislikes=dislikes, logged=logged)
    return Counter({"events": len(events), **{name: getattr(outcome, name) for name in _OUTCOMES}})


def _outcomes(totals: Counter[str]) -> dict[str, int]:
    return {name: totals[name] for name in _OUTCOMES}
