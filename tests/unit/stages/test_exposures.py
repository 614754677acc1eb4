"""What follows from what was shown: exact beside a naive oracle, whatever comes late, twice or never."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv

from elcrec.config import ExposuresConfig
from elcrec.data.user_keys import user_key
from elcrec.errors import UserError
from elcrec.serving.exposure_files import EXPOSURE_SCHEMA
from elcrec.serving.ports import LOG_SCHEMA
from elcrec.stages.exposures import join_exposures
from tests.support.engines import ENGINE

SALT = "it's salt"
WINDOW = 10
START = datetime(2026, 3, 1, tzinfo=UTC)
USERS, ITEMS = ("ann", "bob", None), ("i1", "i2", "i3", "i4")
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Log:
    """An event log of some rows."""

    rows: Rows

    def batches(self) -> Iterator[pa.RecordBatch]:
        yield from pa.Table.from_pylist(self.rows, LOG_SCHEMA).to_batches()


def moment(seconds: int) -> datetime:
    return START + timedelta(seconds=seconds)


def answer(number: int, user: str | None, seconds: int, items: Sequence[str]) -> dict[str, Any]:
    return {
        "answer_id": f"a{number}",
        "time": moment(seconds),
        "user_key": None if user is None else user_key(user, SALT),
        "item_ids": list(items),
        "scores": [float(len(items) - place) for place in range(len(items))],
        "propensities": [0.5] * len(items) if number % 2 else None,
        "intent": number,
        "policy": "model",
        "known": 3,
        "denied": 0,
        "model": "elcrec",
        "version": "1",
        "digest": "d",
    }


def event(
    user: str, item: str, seconds: int, named: str | None = None, key: str | None = None, logged: int = 0
) -> dict[str, Any]:
    time = moment(seconds)
    own = key or f"{int(time.timestamp() * 1e6)}:{item}"
    keys = {"timestamp": time, "event_id": own, "answer_id": named, "logged": logged}
    return {"user_id": user, "item_id": item, **keys}


def once(events: Rows) -> Rows:
    """Each event once: the first that came under a key, and at a place."""
    kept: Rows = []
    order = sorted(events, key=lambda each: (each["logged"], each["timestamp"], each["item_id"]))
    by_key = {(each["user_id"], each["event_id"]): each for each in reversed(order)}
    firsts: dict[Any, Any] = {}
    for each in sorted(events, key=lambda each: (each["logged"], each["event_id"])):
        firsts.setdefault((each["user_id"], each["item_id"], each["timestamp"]), each["event_id"])
    for each in by_key.values():
        if firsts[each["user_id"], each["item_id"], each["timestamp"]] == each["event_id"]:
            kept.append(each)
    return sorted(kept, key=lambda each: (each["timestamp"], each["user_id"], each["item_id"], each["event_id"]))


def oracle(answers: Rows, events: Rows) -> Rows:
    """The table, by looking at every pair."""
    shown = sorted({each["answer_id"]: each for each in answers}.values(), key=lambda a: (a["time"], a["answer_id"]))
    unmatched = {"events": 0, "event_time": None, "found_by": None}
    table = [
        {"answer_id": a["answer_id"], "position": place, "item_id": item} | unmatched
        for a in shown
        for place, item in enumerate(a["item_ids"], start=1)
    ]
    at = {(row["answer_id"], row["item_id"]): row for row in table}
    real = once(events)
    for each in real:
        key = user_key(each["user_id"], SALT)
        fits = [a for a in shown if a["user_key"] in (None, key) and a["answer_id"] == each["answer_id"]]
        if each["answer_id"] is None:
            age = [a for a in shown if a["user_key"] == key and each["item_id"] in a["item_ids"]]
            fits = [a for a in age if a["time"] <= each["timestamp"] <= a["time"] + timedelta(seconds=WINDOW)][-1:]
        row = at.get((fits[0]["answer_id"], each["item_id"])) if fits else None
        if row is not None:
            by = "window" if each["answer_id"] is None else "answer"
            row |= {"found_by": row["found_by"] or by, "events": row["events"] + 1}
            row["event_time"] = row["event_time"] or each["timestamp"]
    for a in shown:
        later = [
            each
            for each in real
            if user_key(each["user_id"], SALT) == a["user_key"]
            and a["time"] <= each["timestamp"] <= a["time"] + timedelta(seconds=WINDOW)
        ]
        for row in (row for row in table if row["answer_id"] == a["answer_id"]):
            row["next_time"] = later[0]["timestamp"] if later else None
            row["is_next"] = bool(later) and later[0]["item_id"] == row["item_id"]
    return table


def joined(folder: Path, answers: Rows, events: Rows, **more: Any) -> Rows:
    shown = folder / "shown"
    shown.mkdir(parents=True, exist_ok=True)
    half = len(answers) // 2
    for name, rows in (("a", answers[:half]), ("b", answers[half:])):
        pq.write_table(pa.Table.from_pylist(rows, EXPOSURE_SCHEMA), shown / f"{name}.parquet")
    config, log = ExposuresConfig(window=WINDOW, page=False), Log(events)
    counted = join_exposures(config, shown, folder / "out", salt=SALT, engine=ENGINE, log=log, **more)  # type: ignore[arg-type]
    rows = pq.read_table(folder / "out" / "attributed.parquet").to_pylist()
    assert sum(counted[name] for name in ("by_answer", "by_window")) == sum(row["events"] for row in rows)
    assert counted["events"] == counted["by_answer"] + counted["by_window"] + counted["unattributed"]
    return rows


answers_drawn = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.sampled_from(USERS),
        st.integers(0, 30),
        st.lists(st.sampled_from(ITEMS), unique=True, max_size=4),
    ),
    min_size=1,
    max_size=20,
)
events_drawn = st.lists(
    st.builds(
        event,
        st.sampled_from(("ann", "bob", "eve")),
        st.sampled_from(ITEMS),
        st.integers(0, 45),
        st.sampled_from((None, None, "a0", "a1", "a2", "gone")),
        st.sampled_from((None, None, "x", "y")),
        st.integers(0, 2),
    ),
    max_size=40,
)


@given(answers_drawn, events_drawn)
@settings(max_examples=8, deadline=None)
def test_the_table_is_what_looking_at_every_pair_gives(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[Any], events: Rows
) -> None:
    answers = [answer(*each) for each in {each[0]: each for each in drawn}.values()]
    repeated = answers + answers[::2]
    names = ("answer_id", "position", "item_id", "events", "event_time", "found_by", "next_time", "is_next")

    found = joined(tmp_path_factory.mktemp("world"), repeated, events)

    assert [{name: row[name] for name in names} for row in found] == [
        {name: row[name] for name in names} for row in oracle(answers, events)
    ]


def test_an_event_that_names_an_answer_belongs_to_it_or_to_none(tmp_path: Path) -> None:
    answers = [answer(0, "ann", 0, ["i1"]), answer(1, "ann", 5, ["i1", "i2"]), answer(2, None, 0, ["i3"])]
    late = [event("ann", "i1", 900, "a0"), event("bob", "i2", 6, "a1"), event("bob", "i3", 7, "a2")]
    lost = [event("ann", "i2", 8, "gone")]

    found = joined(tmp_path, answers, late + lost)

    at = {(row["answer_id"], row["item_id"]): (row["events"], row["found_by"]) for row in found}
    assert at == {
        ("a0", "i1"): (1, "answer"),
        ("a1", "i1"): (0, None),
        ("a1", "i2"): (0, None),
        ("a2", "i3"): (1, "answer"),
    }


def test_the_same_inputs_give_the_same_bytes_and_a_late_event_is_in_the_next_run(tmp_path: Path) -> None:
    answers, first = [answer(0, "ann", 0, ["i1", "i2"])], [event("ann", "i2", 3)]
    path = tmp_path / "out" / "attributed.parquet"

    joined(tmp_path, answers, first)
    before = path.read_bytes()
    joined(tmp_path, answers, first)
    assert path.read_bytes() == before

    late = joined(tmp_path, answers, [*first, event("ann", "i1", 1, logged=99)])
    assert [(row["item_id"], row["events"], row["is_next"]) for row in late] == [("i1", 1, True), ("i2", 1, False)]


def test_an_export_beside_the_log_counts_once(tmp_path: Path) -> None:
    events = [event("ann", "i1", 3, key="x")]
    old = pa.Table.from_pylist(events, LOG_SCHEMA).drop_columns(["logged", "answer_id"])
    pq.write_table(old, tmp_path / "log.parquet")

    (found,) = joined(tmp_path, [answer(0, "ann", 0, ["i1"])], events, export=tmp_path / "log.parquet")

    assert (found["events"], found["propensity"], found["found_by"]) == (1, 1.0, "window")


def test_a_dislike_is_no_click(tmp_path: Path) -> None:
    events = [event("ann", "i1", 3) | {"kind": "no"}, event("ann", "i2", 4) | {"kind": "buy"}]

    found = joined(tmp_path, [answer(0, "ann", 0, ["i1", "i2"])], events, dislikes=["no", "it's no"])

    assert [row["events"] for row in found] == [0, 1]
    assert [row["next_time"] for row in found] == [moment(4)] * 2


def test_online_metrics_are_what_counting_by_hand_gives(tmp_path: Path) -> None:
    answers = [answer(0, "ann", 0, ["i1", "i2"]), answer(1, "bob", 20, ["i2"]), answer(2, "eve", 40, ["i1", "i3"])]
    answers[1] |= {"known": 0, "policy": "popular"}
    events = [event("ann", "i2", 3), event("ann", "i1", 4), event("bob", "i4", 22), event("eve", "i9", 900)]

    joined(tmp_path, answers, events)
    rows = csv.read_csv(tmp_path / "out" / "online.csv").to_pylist()
    found = {(row["by"], str(row["group"] or "")): row for row in rows}
    total, first = found["all", ""], found["position", "1"]

    counts = ("answers", "impressions", "clicks", "converted", "followed", "hits")
    assert [total[name] for name in counts] == [3, 5, 2, 1, 2, 1]
    assert (total["ctr"], total["conversion"], total["hit_rate"]) == pytest.approx((2 / 5, 1 / 3, 1 / 2))
    assert total["ndcg"] == pytest.approx(1 / np.log2(3) / 2)
    assert (total["coverage"], total["cold"]) == pytest.approx((3 / 5, 1 / 3))
    shares = np.array([2, 2, 1]) / 5
    assert total["diversity"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    bits = {"i1": 2, "i2": 2, "i3": 1}  # events and one; i4 and i9 have two each
    shown = ("i1", "i2", "i2", "i1", "i3")
    assert total["novelty"] == pytest.approx(np.mean([-np.log2(bits[item] / 9) for item in shown]))
    assert [first[name] for name in counts] == [3, 3, 1, 1, 2, 0]
    assert found["policy", "popular"]["cold"] == 1
    assert {name for by, name in found if by == "intent"} == {"0", "1", "2"}


def test_what_is_missing_or_no_exposure_is_one_clear_error(tmp_path: Path) -> None:
    config = ExposuresConfig()
    with pytest.raises(UserError, match=r"serve\.exposures\.folder"):
        join_exposures(config, tmp_path, tmp_path / "out", salt=SALT, engine=ENGINE)
    pq.write_table(pa.table({"user_id": ["ann"]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match="no column answer_id"):
        join_exposures(config, tmp_path, tmp_path / "out", salt=SALT, engine=ENGINE)
    assert not (tmp_path / "out").exists()


def test_files_of_older_servers_which_knew_no_arms_are_read_beside_those_of_today(tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    shown.mkdir()
    of = [answer(0, "ann", 0, ["x", "y"]), {**answer(1, "bob", 5, ["y"]), "arm": "challenger"}]
    older = pa.schema([field for field in EXPOSURE_SCHEMA if field.name != "arm"])
    for row, schema, name in ((of[0], older, "a"), (of[1], EXPOSURE_SCHEMA, "b"), (of[0], older, "c")):
        pq.write_table(pa.Table.from_pylist([row], schema), shown / f"{name}.parquet")

    config, events = ExposuresConfig(window=WINDOW, page=False), [event("ann", "y", 3, None, None, 0)]
    counted = join_exposures(config, shown, tmp_path / "out", salt=SALT, engine=ENGINE, log=Log(events))  # type: ignore[arg-type]

    rows = pq.read_table(tmp_path / "out" / "attributed.parquet").to_pylist()
    assert (counted["answers"], counted["repeated_answers"], counted["by_window"]) == (2, 1, 1)
    assert [(row["answer_id"], row["item_id"], row["arm"], row["events"]) for row in rows] == [
        ("a0", "x", None, 0),
        ("a0", "y", None, 1),
        ("a1", "y", "challenger", 0),
    ]
