"""Events: bring a file of live interactions into the online store."""

from collections.abc import Iterable

from elcrec.progress import track
from elcrec.serving.event_file import read_events
from elcrec.serving.ports import FeatureStore

_BATCH = 1_000


def push_events(lines: Iterable[str], *, name: str, features: FeatureStore) -> dict[str, int]:
    """Check every line, then push all events; return how many were accepted, repeated, late, and whose they are.

    Pushing the same file again changes nothing, so one that was stopped half-way is pushed again.

    Raises:
        UserError: a line is not an event; nothing was written.
        StoreUnavailable: the online store stopped answering; some events may have been written.
    """
    events = read_events(lines, name=name)
    # A user's events side by side: her history is read and written once a batch.
    events.sort(key=lambda event: event.user_id)
    starts = range(0, len(events), _BATCH)
    totals = {"accepted": 0, "duplicates": 0, "late": 0}
    for start in track(starts, total=len(starts), label="events", step=_BATCH):
        outcome = features.push_events(events[start : start + _BATCH])
        for field in totals:
            totals[field] += getattr(outcome, field)
    return {"events": len(events), "users": len({event.user_id for event in events}), **totals}
