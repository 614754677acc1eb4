"""Run as a program: a publication in chunks, killed by SIGKILL at its nth write in a child process, then again.

Arguments: a JSON list of cases, each with its store, the write to be killed at, and the bundle of the second one.
Leaves in each store how many rows of each view the second publication wrote.
"""

import json
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from feast.infra.online_stores.sqlite import SqliteOnlineStore

from elcrec.adapters import publication
from elcrec.adapters.feast_store import FeastStore
from elcrec.adapters.quiet import quiet
from tests.support.feature_tables import tables

# Late imports of a publication, loaded before the fork so that children need not load them.
with quiet():
    for late in (
        "feast.infra.registry.sql",
        "feast.infra.offline_stores.duckdb",
        "ibis.backends.duckdb",
        "redis.cluster",
    ):
        import_module(late)

REPOSITORY = Path(__file__).parents[2] / "features"
SERVICE = "elcrec_v1"
USERS, CHUNK = 30, 10
HISTORIES = {f"u{user}": [f"i{item}" for item in range(user % 7 + 1)] for user in range(USERS)}
publication._CHUNK = CHUNK


def watch_writes(written: Counter[str], *, kill_at: int | None) -> None:
    write = SqliteOnlineStore.online_write_batch

    def watched(self: Any, config: Any, table: Any, data: Any, progress: Any) -> None:
        written["calls"] += 1
        if written["calls"] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        written[table.name] += len(data)
        write(self, config, table, data, progress)

    SqliteOnlineStore.online_write_batch = watched


def publish(store: Path, bundle: str) -> None:
    FeastStore(store, REPOSITORY).publish(tables(HISTORIES, bundle=bundle), service=SERVICE)


def killed(store: Path, kill_at: int) -> None:
    watch_writes(Counter(), kill_at=kill_at)
    publish(store, "first")


def resumed(store: Path, second: str) -> None:
    written: Counter[str] = Counter()
    watch_writes(written, kill_at=None)
    publish(store, second)
    served = FeastStore(store, REPOSITORY).users(list(HISTORIES), service=SERVICE)
    assert [user.item_ids for user in served if user] == list(HISTORIES.values())
    assert {user.bundle for user in served if user} == {second}
    assert not (store / "feast" / "publication.json").exists()
    outputs = pq.read_table(store / "feast" / "data" / "model_outputs.parquet")
    kept = {
        (row["bundle"], row["event_timestamp"]) for row in outputs.select(["bundle", "event_timestamp"]).to_pylist()
    }
    assert len({bundle for bundle, _ in kept}) == len(kept), "rows of a publication that nobody knows of"
    (store / "written.json").write_text(json.dumps(written))


def in_child(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    return os.waitpid(child, 0)[1]


def main() -> None:
    for case in json.loads(sys.argv[1]):
        store = Path(case["store"])
        status = in_child(partial(killed, store, case["kill_at"]))
        assert os.WIFSIGNALED(status), "the publication ended before it could be killed"
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert in_child(partial(resumed, store, case["second"])) == 0


if __name__ == "__main__":
    main()
