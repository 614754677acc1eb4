"""The outcome of a run in a comparable form, equal for two runs with the same inputs: files and their content."""

import hashlib
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq

from elcrec.artifacts import MEASURED, read_json
from elcrec.custody import CHECKSUMS

Outcome = dict[str, str]

_BESIDE_DATABASES = ("-wal", "-shm", "registry.db-journal")
"""Files of SQLite that exist while a reader may use them, and the journal of a database after a kill, which the next
writer removes."""
_RUN = re.compile(r"(?<=/)[0-9a-f]{32}(?=/)")
_OF_A_RUN = ("time", "timestamp", "_ts", "_proto", "_uuid", "run_id", "_uri", "_location", "_intervals")
"""Suffixes of columns whose values differ between runs."""
_OF_A_ROW = {
    *(("runs", "name"), ("elcrec_identity", "name"), ("model_versions", "source")),
    *(("events", "number"), ("events", "logged"), ("feast_metadata", "metadata_value")),
    ("", "created"),
}
_DRAWN_TAGS = {"mlflow.runName"}
_UNREAD = {"feature_view_version_history"}
"""Tables that are never read. Feast writes a view and the row of its version in two transactions, so a kill between
them loses that row permanently."""
_COMPARED = {"gate.json": ("accepted", "digest", "challenger"), "checked.json": ("services",)}
"""Fields of documents that are compared. The gate's reason tells a champion that was there before from none; what Feast
was found to serve is noted with a digest of definitions that say when they were made."""


def outcome_of(folder: Path) -> Outcome:
    """Return the content of each file below a folder, by path; folders are included, so that none is left over."""
    walked = os.walk(folder, followlinks=True)
    # List all files first, because opening a database removes its journal.
    paths = sorted(Path(place, name) for place, folders, files in walked for name in (*folders, *files))
    found: Outcome = {}
    for path in paths:
        if not path.name.endswith(_BESIDE_DATABASES):
            name = _name(path, folder)
            while name in found:
                name += " (once more)"
            found[name] = "" if path.is_dir() else _content(path)
    return found


def differences(expected: Outcome, found: Outcome) -> list[str]:
    """Return the names of files that are missing, left over, or different."""
    missing = [f"missing: {name}" for name in expected if name not in found]
    extra = [f"left over: {name}" for name in found if name not in expected]
    other = [f"other: {name}" for name, content in expected.items() if found.get(name, content) != content]
    return missing + extra + other


def _name(path: Path, folder: Path) -> str:
    return _RUN.sub("RUN", f"/{path.relative_to(folder)}/").strip("/")


def _content(path: Path) -> str:
    of_a_gate = path.name in {CHECKSUMS, "gate.md"} and (path.parent / "gate.json").exists()
    if of_a_gate or path.name == MEASURED or path.suffix in {".html", ".lock"}:
        return "there"
    if path.name in _COMPARED:
        return str([read_json(path)[name] for name in _COMPARED[path.name]])
    if path.name == "manifest.json":  # it has the time at which the bundle was written
        return str({name: value for name, value in read_json(path).items() if name != "created"})
    if path.suffix == ".db":
        return _digest(_rows(path))
    if path.suffix == ".parquet" and "feast" in path.parts:
        table = pq.read_table(path)
        # After a kill between a publication and the end of its push, the rows are published again.
        return _digest(dict.fromkeys(map(str, table.select(_lasting("", table.column_names)).to_pylist())))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _rows(path: Path) -> Iterator[str]:
    """Yield the sorted rows of every table, without values that differ between runs."""
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        for table in sorted({name for (name,) in tables} - _UNREAD):
            columns = [name for _, name, *_ in connection.execute(f'PRAGMA table_info("{table}")')]
            kept = ", ".join(f'"{name}"' for name in _lasting(table, columns)) or "1"
            rows = Counter(connection.execute(f'SELECT {kept} FROM "{table}"'))
            yield from sorted(f"{table} {row} {count}" for row, count in rows.items() if row[0] not in _DRAWN_TAGS)


def _lasting(table: str, columns: Iterable[str]) -> list[str]:
    kept = [name for name in columns if not name.endswith(_OF_A_RUN) and (table, name) not in _OF_A_ROW]
    return [*kept, "time"] if table == "events" else kept


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()
