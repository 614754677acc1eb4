"""`python -m benchmarks`: measure, and write docs/BENCHMARKS.md beside docs/benchmarks.json."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from benchmarks import runner
from benchmarks.jobs import Job
from benchmarks.logs import prepare, presets_of
from benchmarks.machine import Facts, facts
from benchmarks.measurements import MEASUREMENTS, Section, Setting
from benchmarks.page import record
from benchmarks.runner import say
from elcrec.errors import UserError
from elcrec.process import set_up_process

_SIZES = (10_000, 100_000, 1_000_000)
_CATALOGUES = (30_000, 300_000, 1_000_000)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen measurements; return the exit status."""
    return launch("benchmarks", _parser(), measure, arguments)


def launch(
    module: str,
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace, Sequence[str]], None],
    arguments: Sequence[str] | None,
) -> int:
    """Call `work` with the options and the command line; return the exit status, 2 after an error."""
    set_up_process()
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        work(parser.parse_args(arguments), ["-m", module, *arguments])
    except (UserError, RuntimeError) as error:
        say(f"benchmarks: error: {error}")
        return 2
    return 0


def measure(options: argparse.Namespace, command: Sequence[str]) -> None:
    """Prepare the data and take the measurements one by one; each is added to the page when it is done."""
    start = start_job(options)
    described, gpu = describe(start, command)
    with tempfile.TemporaryDirectory() as folder:
        sequences = options.sequences or prepare(options.dataset, options.params, Path(folder), options.data)
        job = msgspec.structs.replace(start, sequences=str(sequences.resolve()))
        setting = Setting(
            job=job,
            gpu=gpu,
            rounds=options.pairs,
            steps=options.steps,
            sizes=tuple(options.sizes),
            catalogues=tuple(options.catalogues),
        )
        for name in options.only:
            if gpu and name == "profile":
                say("left out: profile, as a GPU replays its steps and a profiler sees no operator of a replay")
                continue
            say(f"== {name}")
            section: Section = {"dataset": options.dataset, "facts": described, **MEASUREMENTS[name](setting)}
            record(options.out, name, section)
    say(f"wrote {options.out}")


def start_job(options: argparse.Namespace) -> Job:
    """Return the common part of all jobs of a run."""
    return Job(
        kind="train",
        params=str(Path(options.params).resolve()),
        presets=presets_of(options.dataset),
        overrides=(f"train.device={options.device}",),
        threads=options.threads,
        workers=options.workers,
    )


def bare_job() -> Job:
    """Return a job that describes only the machine, for measurements without training."""
    return Job(kind="rates", params=str(runner.ROOT / "params.yaml"), overrides=("train.device=cpu",), threads=1)


def describe(start: Job, command: Sequence[str]) -> tuple[Facts, bool]:
    """Return the facts of the machine, and whether the jobs run on a GPU."""
    rates = runner.run(msgspec.structs.replace(start, kind="rates"))
    return facts(command, start.threads, rates), rates["device"] != "cpu"


def positive(text: str) -> int:
    """Read a whole number from 1.

    Raises:
        ValueError: it is not one; argparse turns this into its own message.
    """
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of all benchmarks."""
    parser.add_argument("--params", default="params.yaml", metavar="FILE", help="(default params.yaml)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default auto)")
    parser.add_argument("--threads", type=positive, default=1, help="threads of each process (default 1)")
    parser.add_argument("--workers", type=int, default=0, help="workers of the textbook's data loader (default 0)")
    parser.add_argument("--steps", type=positive, help="largest number of steps per epoch; the rest is extrapolated")
    page_option(parser)


def page_option(parser: argparse.ArgumentParser) -> None:
    """Add the option for the path of the page."""
    parser.add_argument(
        "--out", type=Path, default=Path("docs/BENCHMARKS.md"), metavar="FILE", help="(default docs/BENCHMARKS.md)"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    mirror = os.environ.get("ELCREC_MIRROR")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(mirror) if mirror else None,
        metavar="FOLDER",
        help="folder with the benchmark sets (default $ELCREC_MIRROR, else the download)",
    )
    parser.add_argument("--dataset", default="beauty", help="a data set of params.yaml (default beauty)")
    parser.add_argument(
        "--sequences",
        type=Path,
        metavar="FOLDER",
        help="output of its sequences stage, run elsewhere; a GPU machine then needs only torch and pyarrow",
    )
    parser.add_argument("--pairs", type=positive, default=3, help="rounds of every comparison (default 3)")
    parser.add_argument(
        "--sizes", type=positive, nargs="+", default=_SIZES, metavar="USERS", help="sizes of the random logs"
    )
    parser.add_argument(
        "--catalogues", type=positive, nargs="+", default=_CATALOGUES, metavar="ITEMS", help="of others"
    )
    parser.add_argument("--only", nargs="+", choices=tuple(MEASUREMENTS), default=tuple(MEASUREMENTS))
    common_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
