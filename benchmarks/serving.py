"""`python -m benchmarks.serving`: latency and throughput of the server, beside a plain one, on SQLite and Redis."""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import yaml

from benchmarks.__main__ import bare_job, describe, launch, page_option, positive
from benchmarks.jobs import Result
from benchmarks.load import Load
from benchmarks.measurements import Section
from benchmarks.page import record
from benchmarks.runner import ROOT, elcrec, say
from benchmarks.servers import free_port, redis_server, wait_for

_RATES = {"redis": 100.0, "sqlite": 50.0}
_CONNECTIONS = 32
_USERS = 2000
_LAST_CHARACTERS = 2000
_TICKS = os.sysconf("SC_CLK_TCK")


def main(arguments: Sequence[str] | None = None) -> int:
    """Push into a store of each kind, serve it, load it; return the exit status."""
    return launch("benchmarks.serving", _parser(), _measure, arguments)


def _measure(options: argparse.Namespace, command: Sequence[str]) -> None:
    described, _ = describe(bare_job(), command)
    runs: dict[str, list[Result]] = {}
    batch: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.stores:
            with _store(kind, Path(folder) / kind, options) as (store, environment):
                runs |= _load_both(kind, store, environment, options)
                batch += [_recommend_all(store, options) for _ in range(options.pairs)]
    section: Section = {"facts": described, "dataset": options.dataset, "runs": runs, "batch": batch}
    record(options.out, "serving", section)
    say(f"wrote {options.out}")


def _load_both(
    kind: str, store: Path, environment: dict[str, str], options: argparse.Namespace
) -> dict[str, list[Result]]:
    """Latency of our server at a fixed rate; throughput of both servers, in turns."""
    users = pq.read_table(options.sequences / "histories.parquet", columns=["user_id"])["user_id"].to_pylist()
    stride = max(1, len(users) // _USERS)
    runs: dict[str, list[Result]] = {}

    def measure(name: str, plain: bool, rate: float | None) -> None:
        say(f"{kind}: {name} …")
        with _server(store, environment, plain=plain) as (process, port):
            load = Load(port=port, users=users[::stride], seconds=options.seconds, rate=rate, connections=_CONNECTIONS)
            runs.setdefault(f"{kind}, {name}", []).append(_under_load(process, load))

    measure(f"ours at {_RATES[kind]:.0f} requests/s", plain=False, rate=_RATES[kind])
    for turn in range(options.pairs):
        for plain in (False, True)[:: 1 if turn % 2 == 0 else -1]:
            measure("plain, as fast as it goes" if plain else "ours, as fast as it goes", plain=plain, rate=None)
    return runs


def _under_load(process: "subprocess.Popen[bytes]", load: Load) -> Result:
    """Load a server from another process; a first, short load is not counted, because it warms the server up."""
    for seconds in (min(2.0, load.seconds), load.seconds):
        before = _cpu_seconds(process.pid)
        timed = msgspec.structs.replace(load, seconds=seconds)
        command = [*_core(-1), sys.executable, "-m", "benchmarks.load"]
        # The generator has a core of its own where there is one: it must not take time from the server.
        done = subprocess.run(command, cwd=ROOT, input=msgspec.json.encode(timed), capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the load failed:\n{done.stderr.decode()[-_LAST_CHARACTERS:]}")
        result = msgspec.json.decode(done.stdout, type=Result)
        # A tenth more than is counted was sent.
        cost = (_cpu_seconds(process.pid) - before) / (1.1 * result["requests"])
    return {**result, "server_cpu_ms": 1000 * cost}


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@contextlib.contextmanager
def _server(
    store: Path, environment: dict[str, str], *, plain: bool
) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """Run a server on one core."""
    port = free_port()
    module = ["-m", "benchmarks.plain_server", str(store), str(port)]
    if not plain:
        module = ["-m", "elcrec", "serve", "--store", str(store), "--port", str(port), "--set", "serve.demo=false"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*_core(0), sys.executable, *module], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
        try:
            wait_for(port, process)
            yield process, port
        finally:
            process.kill()
            process.wait()


def _core(place: int) -> list[str]:
    """What to put before a command so that it keeps to one of this process's cores."""
    return ["taskset", "--cpu-list", str(sorted(os.sched_getaffinity(0))[place])]


@contextlib.contextmanager
def _store(kind: str, folder: Path, options: argparse.Namespace) -> Iterator[tuple[Path, dict[str, str]]]:
    """Push the model into a new store of this kind."""
    features = Path(shutil.copytree(ROOT / "features", folder / "features"))
    environment = {**os.environ, "ELCREC_FEATURES": str(features), "OMP_NUM_THREADS": "1"}
    with _redis(folder / "redis", features) if kind == "redis" else contextlib.nullcontext():
        say(f"{kind}: pushing …")
        inputs = [f"--{name}={getattr(options, name)}" for name in ("model", "sequences", "evaluation")]
        os.environ["ELCREC_FEATURES"] = str(features)
        elcrec(
            "push",
            *inputs,
            f"--store={folder / 'store'}",
            f"--out={folder / 'push'}",
            "--set=push.gate.floors.ndcg@20=0",
        )
        yield folder / "store", environment


@contextlib.contextmanager
def _redis(folder: Path, features: Path) -> Iterator[None]:
    """Run a Redis and point a Feast repository at it."""
    path = features / "feature_store.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    with redis_server(folder, _core(-1)) as address:
        options = f"{address},socket_timeout=0.2,socket_connect_timeout=0.2,retry=null"
        document["online_store"] = {"type": "redis", "connection_string": options}
        path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        yield


def _recommend_all(store: Path, options: argparse.Namespace) -> Result:
    """Recommend for all users by the command; its own seconds leave the start of the process out."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = (
            f"--store={store}",
            f"--histories={options.sequences / 'histories.parquet'}",
            f"--out={folder}/all",
        )
        started = time.perf_counter()
        said = dict(line.split() for line in elcrec("recommend-all", *arguments).splitlines())
        return {
            "users": int(said["users"]),
            "seconds": float(said["seconds"]),
            "command_seconds": time.perf_counter() - started,
        }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    for name in ("model", "sequences", "evaluation"):
        default = Path("artifacts") / name
        parser.add_argument(f"--{name}", type=Path, default=default, metavar="DIR", help=f"(default {default})")
    parser.add_argument("--dataset", default="beauty", help="what the model was trained on (default beauty)")
    parser.add_argument("--stores", nargs="+", choices=tuple(_RATES), default=tuple(_RATES))
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load (default 20)")
    parser.add_argument("--pairs", type=positive, default=3, help="rounds of the comparison (default 3)")
    page_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
