from datetime import UTC, datetime

import pytest

from elcrec.errors import UserError
from elcrec.serving.event_file import read_events
from elcrec.serving.ports import Event

AT = datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC)
EVENT = Event(user_id="u", item_id="7", timestamp=AT)


@pytest.mark.parametrize(
    "lines",
    [
        ["user_id,item_id,timestamp\n", "u,7,2026-03-01T12:00:00.000005Z\n"],
        ["\ufeffitem_id,timestamp,user_id,event_id\r\n", "7,2026-03-01 12:00:00.000005,u,\r\n"],
        ['{"user_id": "u", "item_id": 7, "timestamp": "2026-03-01T13:00:00.000005+01:00"}\n', "\n"],
    ],
)
def test_csv_and_json_lines_give_the_same_event(lines: list[str]) -> None:
    assert read_events(lines, name="f") == [EVENT]


def test_numbers_are_seconds_since_1970() -> None:
    lines = ['{"user_id": "u", "item_id": "i", "timestamp": 1700000000.25, "event_id": 9}']

    (event,) = read_events(lines, name="f")

    assert event.timestamp == datetime(2023, 11, 14, 22, 13, 20, 250_000, tzinfo=UTC)
    assert event.event_id == "9"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "f: no events"),
        (["user_id,item_id,timestamp"], "f: no events"),
        (["user_id,timestamp", "u,1"], "f: line 1: no column item_id"),
        (["user_id,item_id,timestamp", "u,i,1", "u,,1"], "f: line 3: item_id is empty"),
        (["user_id,item_id,timestamp", "u,i"], "f: line 2: not as many fields"),
        (["user_id,item_id,timestamp", "u,i,1,x"], "f: line 2: not as many fields"),
        (["user_id,item_id,timestamp", "u,i,soon"], "f: line 2: timestamp 'soon' is neither"),
        (["user_id,item_id,timestamp", "u,i,nan"], "f: line 2: timestamp 'nan' is neither"),
        (["user_id,item_id,timestamp", "u,i,1e30"], "f: line 2: timestamp '1e30' is neither"),
        (["user_id,item_id,timestamp", "u,i,4000000000"], "f: line 2: timestamp is in the future"),
        (["user_id,item_id,timestamp", 'u,"i'], "f: line 2: not CSV"),
        (['{"user_id": "u", "item_id": "i", "timestamp": 1}', "{"], "f: line 2: Input data was truncated"),
        (['{"user_id": "u", "item_id": "i"}'], "f: line 1: Object missing required field `timestamp`"),
        (['{"user_id": "u", "item_id": "i", "timestamp": 1, "x": 2}'], "f: line 1: Object contains unknown field"),
        (['{"user_id": null, "item_id": "i", "timestamp": 1}'], "f: line 1: Expected `int | str`, got `null`"),
    ],
)
def test_a_bad_line_is_named(lines: list[str], message: str) -> None:
    with pytest.raises(UserError) as raised:
        read_events(lines, name="f")

    assert message in str(raised.value)


@pytest.mark.parametrize(
    "written", ["20240301103000", "2024-03-01 10:30:00 UTC", "2024-03-01T10:30:00,0Z", "1709289000", "1709289000.0"]
)
def test_times_of_events_are_read_as_those_of_a_log(written: str) -> None:
    (event,) = read_events(["user_id,item_id,timestamp", f'u,i,"{written}"'], name="f")
    assert event.timestamp == datetime(2024, 3, 1, 10, 30, tzinfo=UTC)
