"""Spark gives the files that the oracle gives: on this machine, through Spark Connect, and by way of a bucket."""

import errno
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from components._execution import engine_on
from elcrec.adapters import spark_application
from elcrec.adapters.engine import open_engine
from elcrec.adapters.spark_cluster import SparkCluster
from elcrec.artifacts import write_json
from elcrec.config import EngineConfig, KindsConfig, SequencesConfig
from elcrec.data import fold
from elcrec.data.engine import Engine
from elcrec.data.interactions import interaction_schema
from elcrec.data.sessions import SESSION_MARK
from elcrec.errors import LostWorkError, UserError
from elcrec.stages.sequences import build_sequences
from tests.support.engines import ENGINE
from tests.support.object_stores import s3_server
from tests.support.oracle_sequences import write_sequences
from tests.support.spark_operator import operating
from tests.unit.adapters import test_engine_equality as equality

pyspark = pytest.importorskip("pyspark", reason="the extra spark is not installed: make spark")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("java"), reason="no Java: apt-get install openjdk-17-jre-headless"),
    # What pyspark itself leaves open when a session stops.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SECONDS = 120


@pytest.fixture(scope="module")
def local() -> Engine:
    return open_engine(EngineConfig(kind="spark", threads=2, memory_mb=768))


BUCKET = "tables"


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    """A client of S3 that has a bucket; Spark's workers find the same server by their environment."""
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as client:
        client.create_bucket(Bucket=BUCKET)
        yield client


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, bucket: Any) -> Iterator[int]:
    """The port of a server of Spark Connect, which reaches the bucket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = Path(pyspark.__file__).parent
    settings = [f"spark.connect.grpc.binding.port={port}", "spark.ui.enabled=false", "spark.sql.shuffle.partitions=4"]
    command = [home / "bin" / "spark-submit", "--master", "local[2]", "--class", _SERVER]
    command += [word for setting in settings for word in ("--conf", setting)]
    log = (tmp_path_factory.mktemp("connect") / "log").open("wb")
    started = {
        "stdout": log,
        "stderr": log,
        "start_new_session": True,
        "env": {**os.environ, "PYSPARK_PYTHON": sys.executable},
    }
    with log, subprocess.Popen([*command, "spark-internal"], **started) as server:
        try:
            _wait_for(port, server, Path(log.name))
            yield port
        finally:
            os.killpg(server.pid, 15)


@pytest.fixture(scope="module")
def connect(server: int) -> Engine:
    """An engine that asks it."""
    return open_engine(EngineConfig(kind="spark", master=f"sc://127.0.0.1:{server}"))


_SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    pytest.fail(log.read_text()[-2000:])


@pytest.fixture(scope="module")
def log() -> pa.Table:
    return equality.large_log(3000)


def _accepted(log: pa.Table, folder: Path) -> pa.Table:
    """What the default engine accepts of a log."""
    equality.survey_of(log, folder, longest=60, size=1000)
    return pq.read_table(folder / "interactions.parquet")


def test_spark_makes_the_sequences_of_the_oracle_byte_for_byte(local: Engine, log: pa.Table, tmp_path: Path) -> None:
    config, accepted = SequencesConfig(k_core=2, split="temporal"), _accepted(log, tmp_path)
    # What a path may hold that is a pattern to Spark.
    found = tmp_path / "a [b] {c}"
    equality.build(config, accepted, found, local, files=2)
    write_sequences(config, accepted, tmp_path / "expected", users=fold.GROUP_USERS, events=fold.GROUP_EVENTS)
    assert equality.files_in(found) == equality.files_in(tmp_path / "expected")
    assert not list(tmp_path.rglob("*.partial"))


def test_spark_and_duckdb_take_the_same_events_by_kind_session_tie_and_number(
    local: Engine, log: pa.Table, tmp_path: Path
) -> None:
    accepted = _accepted(log, tmp_path)
    numbers = np.random.default_rng(0).integers(0, 4, (2, len(accepted)))
    schema = interaction_schema([*accepted.column_names, "kind", "tie"])
    kinds = pa.array(["view", "buy", "no", None]).take(pa.array(numbers[0]))
    accepted = accepted.append_column(schema.field("kind"), kinds).append_column(
        schema.field("tie"), pa.array(numbers[1])
    )
    meaning = KindsConfig(weights={"view": 0.5}, targets=("buy",), dislikes=("no",))
    options = {"kinds": meaning, "consecutive": "merge", "most_events": 60, "session_gap": 1e-6, "ties": "column"}
    for engine, name in ((local, "spark"), (ENGINE, "duckdb")):
        equality.build(SequencesConfig(**options), accepted, tmp_path / name, engine, files=2)
    assert equality.files_in(tmp_path / "spark") == equality.files_in(tmp_path / "duckdb")
    table = pq.read_table(tmp_path / "spark" / "sequences.parquet")
    assert pc.sum(pc.list_value_length(table["disliked"])).as_py() > 0
    assert pc.any(pc.match_substring(table["user_id"], SESSION_MARK)).as_py()


def test_a_bucket_gives_back_what_it_was_given(server: int, bucket: Any, tmp_path: Path) -> None:
    """Empty results, more rows than a group of Parquet has, types that Spark lacks, files of repeated tasks."""
    engine = open_engine(EngineConfig(kind="spark", master=f"sc://127.0.0.1:{server}", spill=f"s3://{BUCKET}"))
    rows = 1_200_000
    numbers = pa.table({"n": pa.array(np.arange(rows)), "small": pa.array(np.arange(rows) % 7, pa.uint8())})
    times = pa.array(np.arange(rows).astype("datetime64[ns]"))
    for number, part in enumerate((numbers.slice(0, 700_000), numbers.slice(700_000))):
        pq.write_table(part.append_column("given", times[: len(part)]), tmp_path / f"{number}.parquet")
    with engine.session(tmp_path / "out") as session:
        session.enter("numbers", numbers.select(["n"]))
        assert session.fetch("SELECT count(*) AS n, max(n) AS last FROM numbers").to_pylist() == [
            {"n": rows, "last": rows - 1}
        ]
        session.scan("files", [tmp_path / "0.parquet", tmp_path / "1.parquet"])
        wrong = "SELECT count(*) AS n FROM files WHERE n <> row OR small <> row % 7"
        assert session.fetch(wrong).to_pylist() == [{"n": 0}]
        session.table("none", "SELECT n FROM numbers WHERE n < 0")
        assert session.fetch("SELECT count(*) AS n FROM none").to_pylist() == [{"n": 0}]
        assert list(session.stream("SELECT n FROM none ORDER BY n", ["n"])) == []
        session.table("some", "SELECT n FROM numbers WHERE n < 1000")
        # What a task that was started twice leaves beside the file that counts.
        name = next(name for name in _files_of(bucket) if "/some-" in name and name.endswith(".parquet"))
        left = {"Bucket": BUCKET, "Key": f"{name}.left.parquet"}
        bucket.copy_object(CopySource={"Bucket": BUCKET, "Key": name}, **left)
        assert session.fetch("SELECT count(*) AS n FROM some").to_pylist() == [{"n": 1000}]
    assert _files_of(bucket) == []


def test_a_fault_of_the_bucket_may_be_tried_again_and_one_of_this_machine_is_told_as_it_is(
    server: int, bucket: Any, tmp_path: Path
) -> None:
    engine = open_engine(EngineConfig(kind="spark", master=f"sc://127.0.0.1:{server}", spill=f"s3://{BUCKET}"))
    with engine.session(tmp_path / "out") as session:
        session.table("some", "SELECT 1 AS n")
        for name in _files_of(bucket):
            bucket.delete_object(Bucket=BUCKET, Key=name)
        with pytest.raises(LostWorkError, match="the bucket fails"):
            list(session._tables.batches("some-1"))
    with pytest.raises(UserError, match="the disk is full"), engine.session(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_parquet_log_with_nanoseconds_is_read(local: Engine, tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1], "t": pa.array([1], pa.timestamp("ns"))}), tmp_path / "log.parquet")
    with local.session(tmp_path / "out") as session:
        session.scan("log", [tmp_path / "log.parquet"])
        assert session.fetch("SELECT n, row FROM log").to_pylist() == [{"n": 1, "row": 0}]


def _files_of(client: Any) -> list[str]:
    """Return all names but those of folders, which PyArrow leaves."""
    found = client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
    return [each["Key"] for each in found if not each["Key"].endswith("/")]


def test_a_bucket_that_is_not_there_is_one_clear_error(bucket: Any, tmp_path: Path) -> None:
    assert bucket is not None
    engine = open_engine(EngineConfig(kind="spark", spill="s3://absent/folder", threads=2, memory_mb=768))
    said = r"s3://absent/folder: cannot be written .*check the bucket"
    with pytest.raises(UserError, match=said), engine.session(tmp_path / "out"):
        pass


def test_a_missing_java_is_one_clear_line(log: pa.Table, tmp_path: Path) -> None:
    validated = tmp_path / "validated"
    validated.mkdir()
    pq.write_table(_accepted(log, tmp_path), validated / "interactions.parquet")
    write_json(validated / "validation.json", {"time": "real"})
    command = [sys.executable, "-m", "elcrec", "sequences", "--set", "engine.kind=spark"]
    command += ["--interactions", str(validated), "--out", str(tmp_path / "out")]
    environment = {**os.environ, "JAVA_HOME": str(tmp_path / "absent")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("elcrec: error: ")]
    assert "Spark does not start" in said
    assert "Java runtime of version 17" in said
    assert not (tmp_path / "out").exists()


def test_spark_connect_sorts_rows_out_as_the_oracle(connect: Engine, log: pa.Table, tmp_path: Path) -> None:
    found = equality.survey_of(log, tmp_path, connect, longest=60, size=1000)
    equality.assert_equals_the_oracle(found, log, tmp_path, longest=60)
    assert found.broken["event is unique"] > 10


def test_after_spark_connect_this_process_starts_a_spark_of_its_own(
    connect: Engine, local: Engine, tmp_path: Path
) -> None:
    for engine in (connect, local, connect):
        before = dict(os.environ)
        with engine.session(tmp_path / "out") as session:
            assert session.fetch("SELECT 1 AS one").to_pylist() == [{"one": 1}]
        assert dict(os.environ) == before


@pytest.mark.parametrize("shared", [{"workspace_claim": "w"}, {"bucket": f"s3://{BUCKET}/a folder/"}], ids="-".join)
def test_a_step_on_a_spark_application_makes_the_sequences_of_the_oracle(
    shared: dict[str, str], server: int, bucket: Any, log: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator is a fake; its driver is a real server, and what they share a folder or a bucket."""
    monkeypatch.setattr(spark_application, "PORT", server)
    monkeypatch.setattr("elcrec.adapters.kubernetes_api.POLL_SECONDS", 0.05)
    validated, config = tmp_path / "validated", SequencesConfig(k_core=2)
    validated.mkdir()
    (tmp_path / "workspace" / "spark").mkdir(parents=True)
    accepted = _accepted(log, tmp_path)
    pq.write_table(accepted, validated / "interactions.parquet")
    write_json(validated / "validation.json", {"time": "real"})
    described = SparkCluster(executors=1, workspace=str(tmp_path / "workspace"), **shared)
    with operating(tmp_path) as operator:
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(operator.kubeconfig))
        text = msgspec.json.encode(described).decode()
        with engine_on(text, EngineConfig(kind="spark"), validated) as (engine, given):
            build_sequences(config, given, tmp_path / "out", engine=engine)
    write_sequences(config, accepted, tmp_path / "expected", users=fold.GROUP_USERS, events=fold.GROUP_EVENTS)
    assert equality.files_in(tmp_path / "out") == equality.files_in(tmp_path / "expected")
    assert (len(operator.created), operator.applications) == (1, {})
    assert list((tmp_path / "workspace" / "spark").iterdir()) == []
    assert _files_of(bucket) == []
