"""The facts on a measurement: machine, time and command."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.jobs import Result
from elcrec.artifacts import code_revision

Facts = dict[str, str]


def facts(command: Sequence[str], threads: int, rates: Result) -> Facts:
    """Describe the machine, the versions and the command.

    Args:
        command: command line after `python`.
        threads: number of threads of each measured process.
        rates: result of the job `rates`, which includes the device.
    """
    device = str(rates["device"])
    return {
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {threads} thread(s) used",
        "device": "the processor" if device == "cpu" else device,
        "fp32 matrix product": f"{rates['square_gflops']:.0f} GFLOP/s",
        "load when it began": f"{os.getloadavg()[0]:.1f} processes",
        "PyTorch": version("torch"),
        "Python": platform.python_version(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "revision": code_revision() or "unknown",
        "command": " ".join(["python", *map(without_folder, command)]),
    }


def peak_mib_of(pid: int | str) -> float:
    """Return the peak resident memory of a process (`self` for this one) in MiB; 0 if it has ended.

    Linux passes the `ru_maxrss` of a parent on to its child, so `wait4` and `getrusage` may return the parent's value.

    Raises:
        OSError: there is no such process, or no /proc.
    """
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return max((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), default=0.0)


def cpu_of(pid: int, *, with_children: bool = False) -> float:
    """Return the user and system time of a process in seconds, over all threads.

    Args:
        pid: the process.
        with_children: whether to add the time of the children that it has waited for.

    Raises:
        OSError: there is no such process, or no /proc.
    """
    # The name, in brackets, may hold blanks; user and system time are the 12th and 13th fields after it, and those of
    # the children the next two.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return sum(map(int, fields[11 : 15 if with_children else 13])) / os.sysconf("SC_CLK_TCK")


def without_folder(argument: str) -> str:
    """Return an argument of a command without the folders of this machine, which have no meaning elsewhere."""
    path = Path(argument)
    return path.name if path.is_absolute() else argument


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
