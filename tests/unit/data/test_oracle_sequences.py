import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from elcrec.data.times import TIMESTAMP
from tests.support.oracle_sequences import (
    NO_TARGET,
    Codes,
    SplitIndex,
    history_table,
    in_training,
    item_table,
    k_core,
    leave_one_out,
    sequence_table,
    temporal,
)

Event = tuple[str, str, int]
logs = st.lists(
    st.tuples(st.sampled_from("ABCDE"), st.sampled_from("vwxyz"), st.integers(0, 6)), min_size=1, max_size=40
)


def codes_of(log: list[Event]) -> Codes:
    users, items, times = zip(*log, strict=True)
    time = pa.chunked_array([pa.array(times, pa.int64()).cast(TIMESTAMP)])
    return Codes.of(pa.table({"user_id": list(users), "item_id": list(items), "timestamp": time}))


def by_user(log: list[Event]) -> dict[str, list[Event]]:
    """The sequences in plain Python: sorted() is stable, so ties keep the order of the log."""
    users = dict.fromkeys(user for user, _, _ in log)
    return {user: sorted((e for e in log if e[0] == user), key=lambda event: event[2]) for user in users}


@given(logs)
def test_sequences_are_in_time_order_and_ties_keep_the_order_of_the_log(log: list[Event]) -> None:
    codes = codes_of(log).in_order()
    names = ["", *codes.item_ids.to_pylist()]
    table = sequence_table(codes, leave_one_out(np.diff(codes.offsets)))
    found = {row["user_id"]: [names[item] for item in row["items"]] for row in table.to_pylist()}
    expected = {user: [item for _, item, _ in events] for user, events in by_user(log).items()}
    assert found == expected
    assert list(found) == list(expected)  # users by first appearance


@given(logs)
def test_items_are_numbered_by_first_appearance_in_the_log(log: list[Event]) -> None:
    codes = codes_of(log).in_order()
    assert codes.item_ids.to_pylist() == list(dict.fromkeys(item for _, item, _ in log))


@given(logs, st.integers(0, 5))
def test_k_core_is_the_largest_set_in_which_everyone_has_k(log: list[Event], k: int) -> None:
    codes = codes_of(log)
    kept = list(range(len(log)))
    while True:  # one at a time, the definition
        users, items = ([log[n][column] for n in kept] for column in (0, 1))
        poor = [n for n in kept if users.count(log[n][0]) < k or items.count(log[n][1]) < k]
        if not poor:
            break
        kept.remove(poor[0])
    assert np.flatnonzero(k_core(codes.user, codes.item, k)).tolist() == kept


@given(logs, st.integers(0, 3))
def test_filtering_numbers_the_rest_as_if_it_were_the_whole_log(log: list[Event], k: int) -> None:
    codes = codes_of(log)
    mask = k_core(codes.user, codes.item, k)
    if mask.any():
        rest = codes_of([event for event, stays in zip(log, mask, strict=True) if stays])
        kept = codes.keep(mask)
        assert kept.user_ids == rest.user_ids
        assert kept.item_ids == rest.item_ids
        assert kept.user.tolist() == rest.user.tolist()
        assert kept.item.tolist() == rest.item.tolist()


@given(logs)
def test_leave_one_out_takes_the_last_two_of_three_or_more(log: list[Event]) -> None:
    lengths = np.diff(codes_of(log).in_order().offsets)
    split = leave_one_out(lengths)
    for row, length in enumerate(lengths):
        found = (split.train_end[row], split.valid[row], split.test[row])
        assert found == ((length - 2, length - 2, length - 1) if length >= 3 else (length, -1, -1))


@given(logs, st.floats(0.05, 0.45), st.floats(0.05, 0.45))
def test_temporal_targets_are_first_items_from_the_cuts_on(log: list[Event], valid: float, test: float) -> None:
    codes = codes_of(log).in_order()
    split = temporal(codes, valid, test)
    assert split.valid_cut is not None
    assert split.test_cut is not None
    for row, user in enumerate(codes.user_ids.to_pylist()):
        times = [time for _, _, time in by_user(log)[user]]
        before_valid = sum(time < split.valid_cut for time in times)
        before_test = sum(time < split.test_cut for time in times)
        assert split.train_end[row] == before_valid
        has_valid = before_valid > 0 and before_test > before_valid
        has_test = before_test > 0 and len(times) > before_test
        assert split.valid[row] == (before_valid if has_valid else NO_TARGET)
        assert split.test[row] == (before_test if has_test else NO_TARGET)


@given(logs, st.booleans())
def test_events_after_training_change_no_training_count(log: list[Event], is_temporal: bool) -> None:
    codes = codes_of(log).in_order()
    split = temporal(codes, 0.2, 0.2) if is_temporal else leave_one_out(np.diff(codes.offsets))
    table = item_table(codes, split).to_pylist()
    training = [
        item
        for row, user in enumerate(codes.user_ids.to_pylist())
        for _, item, _ in by_user(log)[user][: split.train_end[row]]
    ]
    assert {row["item_id"]: row["count"] for row in table} == {
        row["item_id"]: training.count(row["item_id"]) for row in table
    }
    assert sum(row["total"] for row in table) == len(log)
    assert in_training(codes, split).sum() == len(training)


@given(logs, st.floats(0.05, 0.45), st.floats(0.05, 0.45))
def test_temporal_training_lies_strictly_before_the_first_cut(log: list[Event], valid: float, test: float) -> None:
    codes = codes_of(log).in_order()
    split = temporal(codes, valid, test)
    training = in_training(codes, split)
    assert (codes.time[training] < split.valid_cut).all()
    assert (codes.time[~training] >= split.valid_cut).all()


@given(logs, st.integers(1, 6))
def test_histories_hold_the_most_recent_raw_ids(log: list[Event], most: int) -> None:
    table = history_table(codes_of(log).in_order(), most).to_pylist()
    for row in table:
        events = by_user(log)[row["user_id"]][-most:]
        assert row["item_ids"] == [item for _, item, _ in events]
        assert [time.microsecond for time in row["event_times"]] == [time for _, _, time in events]
        assert row["event_timestamp"] == row["event_times"][-1]


def test_the_columns_have_the_types_of_the_contract() -> None:
    codes = codes_of([("A", "v", 1), ("A", "w", 2), ("A", "v", 3)]).in_order()
    split: SplitIndex = leave_one_out(np.diff(codes.offsets))
    instants = "timestamp[us, tz=UTC]"
    assert {field.name: str(field.type) for field in sequence_table(codes, split).schema} == {
        "user_id": "string",
        "items": "list<item: int32>",
        "timestamps": f"list<item: {instants}>",
        "train_end": "int32",
        "valid_index": "int32",
        "test_index": "int32",
    }
    assert {field.name: str(field.type) for field in history_table(codes, 50).schema} == {
        "user_id": "string",
        "item_ids": "list<item: string>",
        "event_times": f"list<item: {instants}>",
        "event_timestamp": instants,
    }
    assert {field.name: str(field.type) for field in item_table(codes, split).schema} == {
        "item_index": "int32",
        "item_id": "string",
        "count": "int64",
        "total": "int64",
        "event_timestamp": instants,
    }
