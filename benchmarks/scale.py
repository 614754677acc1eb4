"""`python -m benchmarks.scale`: one epoch over a million users, ten million interactions, 100,000 items."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks import runner
from benchmarks.__main__ import common_options, describe, launch, positive, start_job
from benchmarks.logs import synthesise
from benchmarks.measurements import Section
from benchmarks.page import record
from benchmarks.runner import say
from elcrec.artifacts import read_json


def main(arguments: Sequence[str] | None = None) -> int:
    """Create the log, train an epoch, add the section to the page; return the exit status."""
    return launch("benchmarks.scale", _parser(), _measure, arguments)


def _measure(options: argparse.Namespace, command: Sequence[str]) -> None:
    start = start_job(options)
    described, _ = describe(start, command)
    with tempfile.TemporaryDirectory() as folder:
        mean = options.interactions / options.users
        sequences = synthesise(Path(folder), users=options.users, items=options.items, mean_length=mean)
        counts = {name: value for name, value in read_json(sequences / "split.json").items() if name.startswith("num_")}
        say("training an epoch …")
        job = msgspec.structs.replace(start, kind="train", sequences=str(sequences), steps=options.steps)
        section: Section = {"facts": described, "counts": counts, "runs": {"ours": [runner.run(job)]}}
    record(options.out, "scale", section)
    say(f"wrote {options.out}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--users", type=positive, default=1_000_000, help="(default 1000000)")
    parser.add_argument("--interactions", type=positive, default=10_000_000, help="(default 10000000)")
    parser.add_argument("--items", type=positive, default=100_000, help="(default 100000)")
    parser.add_argument("--dataset", default="beauty", help="data set whose preset is used (default beauty)")
    common_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
