"""Servers on this machine, and the store behind them."""

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.runner import ROOT, elcrec, say

_START_SECONDS = 180


@contextlib.contextmanager
def redis_server(folder: Path, prefix: Sequence[str] = ()) -> Iterator[str]:
    """Run a Redis without persistence; yield its address.

    Args:
        folder: its working directory, which is created.
        prefix: prefix of the command.
    """
    folder.mkdir()
    port = free_port()
    command = [*prefix, "redis-server", "--port", str(port), "--dir", str(folder), "--save", "", "--bind", "127.0.0.1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_for(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until a process listens on the port.

    Raises:
        RuntimeError: the process ended, or it took too long.
    """
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if time.monotonic() > deadline or process.poll() is not None:
            raise RuntimeError(f"nothing listens on port {port}")
        time.sleep(0.1)


def free_port() -> int:
    """Return an unused port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def core(place: int) -> list[str]:
    """Return the prefix of a command that pins it to one of this process's cores."""
    return ["taskset", "--cpu-list", str(sorted(os.sched_getaffinity(0))[place])]


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add the options for the inputs of a push."""
    for name in ("model", "sequences", "evaluation"):
        default = Path("artifacts") / name
        parser.add_argument(f"--{name}", type=Path, default=default, metavar="DIR", help=f"(default {default})")
    parser.add_argument("--dataset", default="beauty", help="data set on which the model was trained (default beauty)")


@contextlib.contextmanager
def pushed_store(kind: str, folder: Path, options: argparse.Namespace) -> Iterator[tuple[Path, dict[str, str]]]:
    """Push the inputs into a new store of this kind; yield it and the environment of its readers."""
    folder.mkdir()
    environment = {"ELCREC_FEATURES": str(ROOT / "features"), "OMP_NUM_THREADS": "1"}
    redis = redis_server(folder / "redis", core(-1)) if kind == "redis" else contextlib.nullcontext("")
    with redis as address:
        say(f"{kind}: pushing …")
        environment["REDIS"] = address
        push(folder / "store", options.model, options.sequences, options.evaluation, environment)
        yield folder / "store", environment


def push(store: Path, model: Path, sequences: Path, evaluation: Path, environment: Mapping[str, str]) -> None:
    """Push a model regardless of its quality."""
    inputs = [f"--model={model}", f"--sequences={sequences}", f"--evaluation={evaluation}"]
    gate = ["--set=push.gate.floors.ndcg@20=0", "--set=push.gate.max_regression=1"]
    elcrec("push", *inputs, f"--store={store}", f"--out={store.parent / 'push'}", *gate, environment=environment)


@contextlib.contextmanager
def server(
    store: Path, environment: Mapping[str, str], *, plain: bool = False, overrides: Sequence[str] = ()
) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """Run our server, or the plain one, on one core; yield it and its port."""
    port = free_port()
    module = ["-m", "benchmarks.plain_server", str(store), str(port)]
    if not plain:
        module = ["-m", "elcrec", "serve", "--store", str(store), "--port", str(port), "--set", "serve.demo=false"]
        module += [word for override in overrides for word in ("--set", override)]
    command, variables = [*core(0), sys.executable, *module], {**os.environ, **environment}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=log, stderr=log)
        try:
            wait_for(port, process)
            yield process, port
        finally:
            process.kill()
            process.wait()
