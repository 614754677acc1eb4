"""The process that stores events from a stream, however it ends."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from elcrec.adapters.feast_store import FeastStore
from tests.support.feature_tables import tables
from tests.support.servers import RedisServer, free_port, redis_server
from tests.support.serving import ROOT, eventually

pytestmark = pytest.mark.slow
USERS, EVENTS = 20, 1500
GROUP = "elcrec"


@contextmanager
def consumer(store: Path, redis: RedisServer, port: int) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "elcrec", "events", "consume", "--store", str(store)]
    settings = ["stream.batch=10", "stream.claim_after=0.2", f"stream.metrics_port={port}"]
    command += ["--params", str(ROOT / "params.yaml"), *(f"--set={setting}" for setting in settings)]
    environment = {**os.environ, "ELCREC_FEATURES": str(ROOT / "features"), "ELCREC_STREAM": redis.url}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_consumer_that_is_killed_loses_no_event_and_repeats_none_and_one_that_is_stopped_leaves_none_behind(
    tmp_path: Path,
) -> None:
    store, metrics = FeastStore(tmp_path / "store", ROOT / "features"), free_port()
    store.publish(tables({"ann": ["i1"]}), service="elcrec_v1")
    with redis_server() as redis:
        client = redis.client
        for number in range(EVENTS):
            event = {"user_id": f"u{number % USERS}", "item_id": f"x{number}", "event_id": f"e{number}"}
            client.xadd("elcrec-events", {"event": json.dumps(event)})
        client.xgroup_create("elcrec-events", GROUP, id="0")

        def left() -> int:
            (group,) = client.xinfo_groups("elcrec-events")
            return int(group["lag"]) + int(group["pending"])

        with consumer(tmp_path / "store", redis, free_port()) as killed:
            eventually(lambda: left() < EVENTS - 50)
            killed.send_signal(signal.SIGKILL)
            killed.wait()
        assert left() > 0, "it was done before it was killed"

        with consumer(tmp_path / "store", redis, metrics) as stopped:
            eventually(lambda: left() == 0)
            with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=10) as page:
                assert b"elcrec_stream_messages_total" in page.read()
            stopped.send_signal(signal.SIGTERM)
            output, _ = stopped.communicate(timeout=60)
        assert stopped.returncode == 0
        assert "events" in output

    logged = Counter(key for batch in store.event_log.batches() for key in batch["event_id"].to_pylist())
    assert logged == Counter(f"e{number}" for number in range(EVENTS))
    for user, features in enumerate(store.users([f"u{user}" for user in range(USERS)], service="elcrec_v1")):
        assert features is not None
        expected = [f"x{number}" for number in range(EVENTS) if number % USERS == user]
        assert features.item_ids == expected[-len(features.item_ids) :]
