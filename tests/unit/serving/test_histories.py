from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elcrec.data.split_points import DISLIKED
from elcrec.errors import UserError
from elcrec.serving import histories
from elcrec.serving.histories import (
    MAX_UNKNOWN,
    EventOutcome,
    History,
    add_events,
    instant,
    merge_publication,
    require_valid,
)
from elcrec.serving.ports import Event

WINDOW = 5
CATALOGUE = frozenset(f"i{number}" for number in range(100))
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def event(item: str, time: int, event_id: str | None = None, kind: str | None = None) -> Event:
    return Event(user_id="u", item_id=item, timestamp=instant(time), event_id=event_id, kind=kind)


def history(*rows: tuple[str, int], ids: Sequence[str] | None = None) -> History:
    ids = list(ids or [""] * len(rows))
    return History(item_ids=[item for item, _ in rows], times=[time for _, time in rows], event_ids=ids)


distinct_times = st.lists(st.integers(0, 40), unique=True, max_size=20)


@given(times=distinct_times, data=st.data())
def test_the_newest_window_remains_for_any_order_and_repeats(times: list[int], data: st.DataObject) -> None:
    events = [event(f"i{time}", time) for time in times]
    repeats = data.draw(st.lists(st.sampled_from(events), max_size=10)) if events else []
    replay = data.draw(st.permutations(events + repeats))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(replay)), max_size=3)))

    found, total = History(), 0
    for start, stop in zip([0, *cuts], [*cuts, len(replay)], strict=True):
        found, outcomes = add_events(found, replay[start:stop], WINDOW)
        total += sum(outcomes.values())
        assert min(outcomes.values(), default=0) >= 0

    assert found.times == sorted(times)[-WINDOW:]
    assert found.item_ids == [f"i{time}" for time in found.times]
    assert total == len(replay)


def test_a_dislike_is_no_part_of_a_history_and_stays_known_whatever_is_published() -> None:
    events = [event("i1", 1, kind="view"), event("i2", 2, kind="no"), event("elsewhere", 3, kind="no")]
    found, outcomes = add_events(History(), events, WINDOW, knows=CATALOGUE, dislikes=("no",))
    again, repeated = add_events(found, events, WINDOW, knows=CATALOGUE, dislikes=("no",))

    assert (found.item_ids, found.seen) == (["i1"], ["i2", f"{DISLIKED}i2"])
    assert (outcomes[EventOutcome.ACCEPTED], again) == (3, found)
    assert repeated[EventOutcome.DUPLICATE] == 2
    assert merge_publication(found, history(("i7", 9)), WINDOW, knows=CATALOGUE).seen == found.seen


def test_without_configured_dislikes_no_kind_is_a_dislike() -> None:
    found, _ = add_events(History(), [event("i2", 2, kind="no")], WINDOW)
    assert (found.item_ids, found.seen) == (["i2"], [])


def test_a_late_event_takes_its_place_in_time() -> None:
    found, outcomes = add_events(history(("a", 10), ("c", 30)), [event("b", 20)], WINDOW)

    assert found.item_ids == ["a", "b", "c"]
    assert outcomes[EventOutcome.ACCEPTED] == 1


def test_equal_times_are_in_order_of_arrival_and_a_replay_changes_nothing() -> None:
    events = [event(item, 7) for item in "abcdefg"]

    found, outcomes = add_events(History(), events, WINDOW)
    again, repeated = add_events(found, events, WINDOW)

    assert found.item_ids == list("abcde")
    assert (outcomes[EventOutcome.ACCEPTED], outcomes[EventOutcome.LATE]) == (5, 2)
    assert again == found
    assert (repeated[EventOutcome.DUPLICATE], repeated[EventOutcome.LATE]) == (5, 2)


def test_a_repeated_event_id_is_recognised_at_any_time() -> None:
    found, _ = add_events(History(), [event("a", 1, "click-1")], WINDOW)

    again, outcomes = add_events(found, [event("a", 2, "click-1"), event("a", 3, "click-2")], WINDOW)

    assert again.times == [1, 3]
    assert outcomes == {EventOutcome.DUPLICATE: 1, EventOutcome.ACCEPTED: 1, EventOutcome.LATE: 0}


def test_an_item_that_a_user_meets_twice_is_in_the_history_twice() -> None:
    found, _ = add_events(history(("a", 1)), [event("a", 2)], WINDOW)

    assert found.item_ids == ["a", "a"]


def test_a_publication_replaces_the_last_one_and_keeps_live_events() -> None:
    live, _ = add_events(history(("wrong", 10), ("b", 20)), [event("x", 15), event("y", 40)], WINDOW)

    merged = merge_publication(live, history(("a", 10), ("b", 20), ("c", 30)), WINDOW)

    assert merged.item_ids == ["a", "x", "b", "c", "y"]
    assert merge_publication(merged, history(("a", 10), ("b", 20), ("c", 30)), WINDOW) == merged


@pytest.mark.parametrize("ids", [None, ["\0p", "\0q", "\0r"]])
def test_a_log_that_ends_earlier_takes_nothing_from_what_a_later_one_has_published(ids: list[str] | None) -> None:
    newer = history(("a", 10), ("b", 20), ("c", 30), ids=ids)
    older = history(("a", 10), ("wrong", 15), ids=ids and ["\0p", "\0x"])

    merged = merge_publication(newer, older, WINDOW, until=15)

    assert merged.item_ids == ["a", "wrong", "b", "c"]
    assert merge_publication(merged, older, WINDOW, until=15) == merged
    assert merge_publication(merged, newer, WINDOW, until=30) == newer


def test_events_of_a_later_log_without_ids_at_one_time_all_stay() -> None:
    merged = merge_publication(history(("b", 20), ("c", 20)), history(("a", 10)), WINDOW, until=10)
    assert merged.item_ids == ["a", "b", "c"]


def test_a_live_event_that_the_log_has_by_now_is_a_published_one() -> None:
    live, _ = add_events(History(), [event("a", 10)], WINDOW)

    assert merge_publication(live, history(("a", 10)), WINDOW) == history(("a", 10))


def test_items_that_leave_the_window_or_come_too_late_are_seen() -> None:
    found, outcomes = add_events(History(), [event(f"i{time}", time) for time in range(1, 9)], WINDOW)
    later, _ = add_events(found, [event("old", 1)], WINDOW)

    assert found.seen == ["i1", "i2", "i3"]
    assert later.seen == ["i1", "i2", "i3", "old"]
    assert add_events(later, [event("old", 1)], WINDOW)[0] == later
    assert outcomes[EventOutcome.ACCEPTED] == WINDOW


def test_seen_items_are_limited_and_survive_a_publication(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "MAX_SEEN", 1000)
    live, _ = add_events(History(), [event(f"i{time}", time) for time in range(1020)], WINDOW)
    published = replace(history(("p", 1)), seen=["q"])

    merged = merge_publication(live, published, WINDOW)

    assert len(live.seen) == 1000
    assert {"i100", "i500"} <= set(merged.seen)
    assert merge_publication(merged, published, WINDOW) == merged


def test_items_that_the_catalogue_lacks_push_out_no_known_one_and_are_bounded() -> None:
    known, _ = add_events(History(), [event(f"i{time}", time) for time in range(WINDOW)], WINDOW, knows=CATALOGUE)

    bogus = [event(f"bogus-{time}", 100 + time) for time in range(50)]
    found, outcomes = add_events(known, bogus, WINDOW, knows=CATALOGUE)

    assert found.item_ids[:WINDOW] == known.item_ids
    assert found.item_ids[WINDOW:] == [f"bogus-{time}" for time in range(50 - MAX_UNKNOWN, 50)]
    assert found.seen == []
    assert outcomes == {EventOutcome.ACCEPTED: MAX_UNKNOWN, EventOutcome.LATE: 50 - MAX_UNKNOWN}


@pytest.mark.parametrize("logged", [7_000_000, 8_000_000])
def test_a_live_event_whose_time_the_log_has_cut_or_rounded_is_the_log_s(logged: int) -> None:
    live, _ = add_events(History(), [event("a", 7_654_321, "click"), event("b", 7_654_321)], WINDOW)

    merged = merge_publication(live, history(("a", logged)), WINDOW, resolution=1_000_000)

    assert sorted(merged.item_ids) == ["a", "b"]
    assert merge_publication(merged, history(("a", logged)), WINDOW, resolution=1_000_000) == merged


def test_a_full_publication_is_cut_for_newer_live_events() -> None:
    published = history(*((f"p{time}", time) for time in range(1, 6)))
    live, _ = add_events(published, [event("new", 9)], WINDOW)

    assert merge_publication(live, published, WINDOW).item_ids == ["p2", "p3", "p4", "p5", "new"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_id": " "}, "user_id is empty"),
        ({"item_id": "x" * 257}, "item_id is longer than 256 characters"),
        ({"event_id": ""}, "event_id is empty"),
        ({"timestamp": NOW.replace(tzinfo=None)}, "no time zone"),
        ({"timestamp": NOW + timedelta(minutes=6)}, "in the future"),
        ({"timestamp": datetime(1969, 12, 31, tzinfo=UTC)}, "before 1970"),
    ],
)
def test_an_event_that_makes_no_sense_is_refused(change: dict[str, object], message: str) -> None:
    fields: dict[str, object] = {"user_id": "u", "item_id": "i", "timestamp": NOW}

    with pytest.raises(UserError, match=message):
        require_valid(Event(**(fields | change)), now=NOW)  # type: ignore[arg-type]
