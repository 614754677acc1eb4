from datetime import UTC, datetime

import pytest

from elcrec.config import CsvConfig, LimitsConfig, ValidateConfig
from elcrec.errors import UserError
from elcrec.serving import messages
from elcrec.serving.event_file import EventColumns, read_events
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
        (["user_id,item_id,timestamp", "u,i"], "f: line 2: the number of fields differs"),
        (["user_id,item_id,timestamp", "u,i,1,x"], "f: line 2: the number of fields differs"),
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


def test_a_file_in_the_columns_and_times_of_the_log_is_read() -> None:
    config = ValidateConfig(
        user_column="customer",
        item_column="product",
        time_column="when",
        time_format="%d/%m/%Y %H:%M",
        csv=CsvConfig(delimiter=";"),
    )
    columns = EventColumns.of(config)
    (event,) = read_events(["customer;product;when", "u;7;01/03/2026 12:00"], name="f", columns=columns)
    assert (event.user_id, event.item_id, event.timestamp) == ("u", "7", datetime(2026, 3, 1, 12, tzinfo=UTC))
    (same,) = read_events(['{"customer": "u", "product": 7, "when": "01/03/2026 12:00"}'], name="f", columns=columns)
    assert same == event


def test_numbers_of_the_logs_unit_are_times_in_a_file_of_events() -> None:
    columns = EventColumns.of(ValidateConfig(epoch_unit="ms"))
    lines = ["user_id,item_id,timestamp", "u,i,1700000000250"]
    (event,) = read_events(lines, name="f", columns=columns)
    assert event.timestamp == datetime(2023, 11, 14, 22, 13, 20, 250_000, tzinfo=UTC)


@pytest.mark.parametrize(
    "value", ["1700000000.25", '"1700000000.25"', '"2023-11-14T22:13:20.25Z"', '"2023-11-14 22:13:20,25 UTC"']
)
def test_the_server_reads_times_as_files_do(value: str) -> None:
    body = f'{{"events": [{{"user_id": "u", "item_id": "i", "timestamp": {value}}}]}}'.encode()
    (event,) = messages.read_events(body, LimitsConfig())
    assert event.timestamp == datetime(2023, 11, 14, 22, 13, 20, 250_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('"2023-11-14T22:13:20"', "names no zone"),
        ('"soon"', "neither ISO 8601"),
        ("17000000000000", "timestamp"),
        ("-100000000000", "timestamp"),
        ('"-100000000000"', "timestamp"),
    ],
)
def test_the_server_refuses_what_is_no_time(value: str, said: str) -> None:
    body = f'{{"events": [{{"user_id": "u", "item_id": "i", "timestamp": {value}}}]}}'.encode()
    with pytest.raises(messages.Refusal, match=said):
        messages.read_events(body, LimitsConfig())
