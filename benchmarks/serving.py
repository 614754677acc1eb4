"""`python -m benchmarks.serving`: latency and throughput of the server and of a plain one, on SQLite and Redis."""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pyarrow.parquet as pq

from benchmarks.__main__ import bare_job, describe, launch, page_option, positive
from benchmarks.jobs import Result
from benchmarks.load import Load
from benchmarks.machine import cpu_of
from benchmarks.measurements import Section
from benchmarks.page import record
from benchmarks.runner import ROOT, elcrec, say
from benchmarks.servers import add_inputs, core, pushed_store, server

_RATES = {"redis": 100.0, "sqlite": 50.0}
_CONNECTIONS = 32
_USERS = 2000
_LAST_CHARACTERS = 2000


def main(arguments: Sequence[str] | None = None) -> int:
    """Push into a store of each kind, serve it, load it; return the exit status."""
    return launch("benchmarks.serving", _parser(), _measure, arguments)


def _measure(options: argparse.Namespace, command: Sequence[str]) -> None:
    described, _ = describe(bare_job(), command)
    runs: dict[str, list[Result]] = {}
    batch: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.stores:
            with pushed_store(kind, Path(folder) / kind, options) as (store, environment):
                runs |= _load_both(kind, store, environment, options)
                batch += [_recommend_all(store, environment, options) for _ in range(options.pairs)]
    section: Section = {"facts": described, "dataset": options.dataset, "runs": runs, "batch": batch}
    record(options.out, "serving", section)
    say(f"wrote {options.out}")


def _load_both(
    kind: str, store: Path, environment: dict[str, str], options: argparse.Namespace
) -> dict[str, list[Result]]:
    """Measure the latency of our server at a fixed rate, and the throughput of both servers, alternately."""
    users = pq.read_table(options.sequences / "histories.parquet", columns=["user_id"])["user_id"].to_pylist()
    stride = max(1, len(users) // _USERS)
    runs: dict[str, list[Result]] = {}

    def measure(name: str, plain: bool, rate: float | None) -> None:
        say(f"{kind}: {name} …")
        with server(store, environment, plain=plain) as (process, port):
            load = Load(port=port, users=users[::stride], seconds=options.seconds, rate=rate, connections=_CONNECTIONS)
            runs.setdefault(f"{kind}, {name}", []).append(_under_load(process, load))

    for turn in range(options.pairs):
        measure(f"ours at {_RATES[kind]:.0f} requests/s", plain=False, rate=_RATES[kind])
        for plain in (False, True)[:: 1 if turn % 2 == 0 else -1]:
            measure("plain, as fast as it goes" if plain else "ours, as fast as it goes", plain=plain, rate=None)
    return runs


def _under_load(process: "subprocess.Popen[bytes]", load: Load) -> Result:
    """Load a server from another process, after a short warm-up."""
    for seconds in (min(2.0, load.seconds), load.seconds):
        before = cpu_of(process.pid)
        timed = msgspec.structs.replace(load, seconds=seconds)
        command = [*core(-1), sys.executable, "-m", "benchmarks.load"]
        # The generator runs on another core if there is one, so that it does not take time from the server.
        done = subprocess.run(command, cwd=ROOT, input=msgspec.json.encode(timed), capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the load failed:\n{done.stderr.decode()[-_LAST_CHARACTERS:]}")
        result = msgspec.json.decode(done.stdout, type=Result)
        # A tenth more requests were sent than are counted.
        cost = (cpu_of(process.pid) - before) / (1.1 * result["requests"])
    return {**result, "server_cpu_ms": 1000 * cost}


def _recommend_all(store: Path, environment: dict[str, str], options: argparse.Namespace) -> Result:
    """Run `elcrec recommend-all`; its own seconds do not include the start of the process."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = (
            f"--store={store}",
            f"--histories={options.sequences / 'histories.parquet'}",
            f"--out={folder}/all",
        )
        started = time.perf_counter()
        said = dict(line.split() for line in elcrec("recommend-all", *arguments, environment=environment).splitlines())
        return {
            "users": int(said["users"]),
            "seconds": float(said["seconds"]),
            "command_seconds": time.perf_counter() - started,
        }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    add_inputs(parser)
    parser.add_argument("--stores", nargs="+", choices=tuple(_RATES), default=tuple(_RATES))
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds of each load (default 20)")
    parser.add_argument("--pairs", type=positive, default=3, help="rounds of the comparison (default 3)")
    page_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
