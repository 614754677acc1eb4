"""The image with Spark: it gives the same sequences as DuckDB, and serves as driver of a SparkApplication."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml

from elcrec.adapters.spark_cluster import PORT, SparkSettings
from elcrec.artifacts import read_json
from tests.support.containers import TOOL, build_image, docker, start_engine

TAG = "elcrec-spark:test"
BASE = "elcrec-base:test"
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
CONNECT = "org.apache.spark.sql.connect.service.SparkConnectServer"
_START_SECONDS = 180

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The tag of an image built from this checkout."""
    with pytest.MonkeyPatch.context() as patch:
        build = start_engine(patch)
        base = ["--build-arg", f"BASE={with_packages(build, tmp_path_factory)}"] if build[0] == str(TOOL) else []
        build_image(build, TAG, "spark", *base)
        yield TAG


def with_packages(build: list[str], folders: pytest.TempPathFactory) -> str:
    """Return a base that knows where Debian's packages are; the tool's own knows no place."""
    folder = folders.mktemp("base")
    (folder / SOURCES.name).write_bytes(SOURCES.read_bytes())
    lines = ["FROM python:3.11-slim-bookworm", f"COPY {SOURCES.name} {SOURCES}"]
    (folder / "Dockerfile").write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run([*build, "--tag", BASE, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return BASE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log, and with what DuckDB makes of it on this machine."""
    folder = tmp_path_factory.mktemp("log")
    sample = {"dataset": "sample", "synthetic": {"users": 200, "items": 60, "intents": 4}}
    (folder / "params.yaml").write_text(yaml.safe_dump({"fetch": sample}), encoding="utf-8")
    for stage in ("fetch --out raw", "validate --raw raw --out validated", made_by("duckdb")):
        subprocess.run([sys.executable, "-m", "elcrec", *stage.split()], cwd=folder, check=True, capture_output=True)
    return folder


def made_by(name: str) -> str:
    return f"sequences --interactions validated --out {name}"


def run_inside(image: str, folder: Path, *options: str, out: str, network: str = "none") -> None:
    """Run validate and sequences in a container, with a read-only root and another user."""
    # Spark unpacks libraries of its own to /tmp.
    locked = ["--network", network, "--read-only", "--tmpfs", "/tmp:exec", "--user", str(os.getuid())]
    engine = " ".join(f"--set {option}" for option in ("engine.kind=spark", "engine.threads=1", *options))
    script = f"elcrec validate {engine} --raw raw --out {out}-validated && elcrec {made_by(out)} {engine}"
    script = script.replace("--interactions validated", f"--interactions {out}-validated")
    docker("run", "--rm", *locked, "-v", f"{folder}:{folder}", "-w", str(folder), image, "sh", "-ec", script)


def test_a_stage_in_the_image_makes_what_duckdb_makes(image: str, folder: Path) -> None:
    run_inside(image, folder, "engine.memory_mb=1024", out="alone")

    assert read_json(folder / "alone" / "split.json")["md5"] == read_json(folder / "duckdb" / "split.json")["md5"]


@contextmanager
def driver(image: str, folder: Path) -> Iterator[str]:
    """Yield a container that was started as Spark's Kubernetes backend starts a driver: a server of Spark Connect."""
    settings = SparkSettings()
    jar = f"local://{settings.home}/jars/spark-connect_2.13-{settings.version}.jar"
    place = [
        "-e",
        "SPARK_DRIVER_BIND_ADDRESS=127.0.0.1",
        "-e",
        "SPARK_LOCAL_IP=127.0.0.1",
        "--network",
        "none",
        "--user",
        str(os.getuid()),
    ]
    command = ["driver", "--master", "local[1]", "--class", CONNECT, jar]
    name = docker("run", "-d", *place, "-v", f"{folder}:{folder}", image, *command)
    try:
        await_port(name)
        yield name
    finally:
        docker("rm", "-f", name)


def await_port(name: str) -> None:
    knock = f"import socket; socket.create_connection(('127.0.0.1', {PORT}), 1)"
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        with suppress(AssertionError):
            docker("exec", name, "python3", "-c", knock)
            return
        time.sleep(1)
    pytest.fail(docker("logs", "--tail", "50", name))


def test_the_image_is_the_driver_that_steps_talk_to(image: str, folder: Path) -> None:
    with driver(image, folder) as server:
        run_inside(image, folder, f"engine.master=sc://127.0.0.1:{PORT}", out="remote", network=f"container:{server}")

    assert read_json(folder / "remote" / "split.json")["md5"] == read_json(folder / "duckdb" / "split.json")["md5"]


def test_the_image_starts_an_executor_that_needs_its_driver(image: str) -> None:
    told = {
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_DRIVER_URL": "spark://CoarseGrainedScheduler@127.0.0.1:9",
        "SPARK_EXECUTOR_ID": "1",
        "SPARK_EXECUTOR_CORES": "1",
        "SPARK_EXECUTOR_MEMORY": "512m",
        "SPARK_APPLICATION_ID": "spark-1",
        "SPARK_EXECUTOR_POD_IP": "127.0.0.1",
        "SPARK_EXECUTOR_POD_NAME": "executor-1",
        "SPARK_RESOURCE_PROFILE_ID": "0",
        "SPARK_JAVA_OPT_0": "-Dspark.driver.port=9",
    }
    variables = [part for name, value in told.items() for part in ("-e", f"{name}={value}")]
    command = ["docker", "run", "--rm", "--network", "none", *variables, image, "executor"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_START_SECONDS)
    assert done.returncode != 0
    assert "Connection refused: /127.0.0.1:9" in done.stdout + done.stderr
