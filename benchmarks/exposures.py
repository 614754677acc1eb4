"""`python -m benchmarks.exposures`: the cost of recording exposures for a server.

Two servers over one store, one of which records exposures, alternate under the same load, each on one core.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq

from benchmarks.__main__ import launch, positive
from benchmarks.jobs import Numbers
from benchmarks.load import Load
from benchmarks.machine import cpu_of
from benchmarks.runner import ROOT, say
from benchmarks.servers import add_inputs, pushed_store, server

_CONNECTIONS, _USERS = 16, 2000


def main(arguments: Sequence[str] | None = None) -> int:
    """Load both servers alternately; print the ratios; return the exit status."""
    return launch("benchmarks.exposures", _parser(), _measure, arguments)


def _measure(options: argparse.Namespace, _: Sequence[str]) -> None:
    users = pq.read_table(options.sequences / "histories.parquet", columns=["user_id"])["user_id"].to_pylist()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with pushed_store("sqlite", folder / "sqlite", options) as (store, environment):
            writes = [f"serve.exposures.folder={folder / 'exposures'}"]
            with (
                server(store, environment) as off,
                server(store, environment, overrides=writes) as on,
            ):
                runs: dict[str, list[Numbers]] = {"off": [], "on": []}
                for number in range(options.pairs):
                    order = [("off", off), ("on", on)]
                    for kind, (process, port) in order if number % 2 else reversed(order):
                        load = Load(
                            port=port,
                            users=users[:_USERS],
                            seconds=options.seconds,
                            rate=options.rate,
                            connections=_CONNECTIONS,
                        )
                        runs[kind].append(_loaded(load, process.pid))
        for figure in ("per_second", "p50_ms", "p99_ms", "server_cpu_ms"):
            _say_ratio(figure, runs)


def _loaded(load: Load, pid: int) -> Numbers:
    """Return the measurements of a load, and the server's CPU time per request in milliseconds."""
    before = cpu_of(pid)
    command = [sys.executable, "-m", "benchmarks.load"]
    done = subprocess.run(command, cwd=ROOT, input=msgspec.json.encode(load), stdout=subprocess.PIPE, check=True)
    numbers: Numbers = msgspec.json.decode(done.stdout)
    # The warm-up, a tenth of the time, is load as well.
    asked = numbers["requests"] * 1.1
    return {**numbers, "server_cpu_ms": (cpu_of(pid) - before) / asked * 1000}


def _say_ratio(figure: str, runs: dict[str, list[Numbers]]) -> None:
    off, on = (np.array([run[figure] for run in runs[kind]]) for kind in ("off", "on"))
    ratios = on / off
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    say(
        f"{figure}: off {np.median(off):.3f}, on {np.median(on):.3f}, on/off by pair {middle:.3f}"
        f" (quartiles {low:.3f} to {high:.3f}, {len(ratios)} pairs)"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exposures", description=__doc__)
    add_inputs(parser)
    parser.add_argument("--pairs", type=positive, default=10, help="rounds of both servers (default 10)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load (default 5)")
    parser.add_argument("--rate", type=float, help="requests per second; without it, as many as possible")
    return parser


if __name__ == "__main__":
    sys.exit(main())
