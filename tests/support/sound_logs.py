"""Ten valid logs of different shapes, made from a seed, which must cause no warnings."""

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

START = datetime(2024, 1, 1, tzinfo=UTC)
Rows = list[tuple[str, str, datetime]]
Sound = tuple[Path, dict[str, Any]]


def _rows(seed: int, *, users: int = 60, items: int = 40, least: int = 4, most: int = 12, hours: float = 30.0) -> Rows:
    """Users who come and go, items of uneven popularity, times in their order."""
    draw = random.Random(seed)
    found = []
    for user in range(users):
        moment = START + timedelta(minutes=draw.randrange(60 * 24 * 60))
        for item in draw.sample(range(items), draw.randint(least, most)):
            moment += timedelta(seconds=1 + draw.randrange(int(hours * 3600)))
            found.append((f"u{user}", f"i{int(item**1.2)}", moment))
    return sorted(found, key=lambda row: row[2])


def _csv(path: Path, rows: Rows, time: Callable[[datetime], object], delimiter: str = ",") -> Path:
    lines = [delimiter.join(["user_id", "item_id", "timestamp"])]
    lines += [delimiter.join([user, item, str(time(moment))]) for user, item, moment in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def iso_csv(folder: Path) -> Sound:
    """Clicks of a shop, ISO 8601."""
    return _csv(folder / "log.csv", _rows(1), datetime.isoformat), {}


def milliseconds_tsv(folder: Path) -> Sound:
    """Tabs, and milliseconds since 1970."""
    return _csv(folder / "log.tsv", _rows(2), lambda at: _seconds(at) * 1000, "\t"), {"epoch_unit": "ms"}


def whole_days(folder: Path) -> Sound:
    """Purchases by day, in the order in which they were made, with repeats of a day."""
    return _csv(folder / "log.csv", _rows(3), lambda at: at.date()), {"duplicates": "keep"}


def grouped_by_user(folder: Path) -> Sound:
    """A file sorted by user, then time, with numbers as ids."""
    rows = sorted((f"{user[1:]}", f"{item[1:]}", at) for user, item, at in _rows(4))
    return _csv(folder / "log.csv", sorted(rows, key=lambda row: (int(row[0]), row[2])), _seconds), {}


def uuids_in_parquet(folder: Path) -> Sound:
    """Sixteen bytes as ids, real timestamps."""
    rows = _rows(5)
    users = pa.array([UUID(int=hash_of(user)).bytes for user, _, _ in rows], pa.binary(16))
    table = {"user_id": users, "item_id": [int(item[1:]) for _, item, _ in rows], "timestamp": [at for *_, at in rows]}
    pq.write_table(pa.table(table), folder / "log.parquet")
    return folder / "log.parquet", {"format": "parquet"}


def hash_of(text: str) -> int:
    """A large number of a short text."""
    return int.from_bytes(text.encode().rjust(8, b"~"), "big") << 40


def json_lines(folder: Path) -> Sound:
    """Reviews, with texts of several lines."""
    rows = [
        {"user_id": user, "item_id": item, "timestamp": _seconds(at), "text": 'He said "fine,\nindeed"'}
        for user, item, at in _rows(6)
    ]
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "log.jsonl", {"format": "jsonl"}


def quoted_texts(folder: Path) -> Sound:
    """CSV with quotes, commas and line ends in a column that nobody asked for."""
    rows = [f'{user},{item},"a, ""b""\nand more",{_seconds(at)}' for user, item, at in _rows(7)]
    (folder / "log.csv").write_text("user_id,item_id,note,timestamp\n" + "\n".join(rows) + "\n")
    return folder / "log.csv", {}


def sessions(folder: Path) -> Sound:
    """Many short sessions, each a user of its own, within seconds."""
    return _csv(folder / "log.csv", _rows(8, users=200, least=3, most=5, hours=0.01), datetime.isoformat), {}


def an_order_alone(folder: Path) -> Sound:
    """No times: a sequence number."""
    places = {at: place for place, at in enumerate(sorted(at for *_, at in _rows(9)))}
    return _csv(folder / "log.csv", _rows(9), lambda at: places[at]), {"time": "order"}


def a_small_club(folder: Path) -> Sound:
    """Twelve users and ten items: nobody's share is small, and nobody's is implausible."""
    rows = _rows(10, users=12, items=14, least=8, most=12)
    return _csv(folder / "log.csv", rows, datetime.isoformat), {}


SOUND_LOGS = (
    iso_csv,
    milliseconds_tsv,
    whole_days,
    grouped_by_user,
    uuids_in_parquet,
    json_lines,
    quoted_texts,
    sessions,
    an_order_alone,
    a_small_club,
)
