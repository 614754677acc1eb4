import io
import json
import logging
from collections.abc import Iterator

import pytest

from elcrec.serving.telemetry import JsonFormatter, Throttle


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(Throttle(faults=3, other=10))
    logger = logging.getLogger("flood")
    logger.propagate, logger.handlers = False, [handler]
    logger.setLevel(logging.INFO)
    yield stream
    logger.handlers, logger.propagate = [], True


def record(message: str, second: int, level: int = logging.WARNING) -> None:
    made = logging.getLogger("flood").makeRecord("flood", level, "", 0, message, ("x",), None)
    made.created = float(second)
    logging.getLogger("flood").handle(made)


def test_a_flood_of_one_kind_is_cut_counted_and_hides_no_other(written: io.StringIO) -> None:
    for _ in range(1000):
        record("flood %s", second=1)
    record("other %s", second=1, level=logging.ERROR)
    record("flood %s", second=2)

    lines = [json.loads(line) for line in written.getvalue().splitlines()]

    assert [line["message"] for line in lines] == ["flood x"] * 3 + ["other x", "flood x"]
    assert [line.get("kept_back") for line in lines] == [None] * 4 + [997]


def test_log_lines_that_report_no_fault_have_a_higher_limit(written: io.StringIO) -> None:
    for _ in range(1000):
        record("request %s", second=1, level=logging.INFO)

    assert len(written.getvalue().splitlines()) == 10
