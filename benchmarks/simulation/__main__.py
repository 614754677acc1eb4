"""`python -m benchmarks.simulation`: simulate thirty days; write simulation.html and simulation.json."""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.__main__ import launch, positive
from benchmarks.runner import ROOT, say
from benchmarks.simulation.month import DayPlayed, Month
from benchmarks.simulation.page import write_page
from benchmarks.simulation.shop import Habits, Shop
from elcrec.adapters.store import open_store
from elcrec.artifacts import SCHEMA_VERSION, write_json
from elcrec.config import load_config
from elcrec.errors import UserError

_MARK = "simulation.json"
_PARAMS = Path(__file__).with_name("params.yaml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the simulation; return the exit status."""
    return launch("benchmarks.simulation", _parser(), _play, arguments)


def _play(options: argparse.Namespace, _: Sequence[str]) -> None:
    config = load_config(ROOT / "params.yaml", presets=[_PARAMS], overrides=options.overrides)
    habits = Habits(users=options.users)
    folder = _empty(options.out)
    # The folder is marked as a simulation's, so that the next one may remove it.
    write_json(folder / _MARK, {"schema_version": SCHEMA_VERSION})
    shop = Shop(habits, options.seed)
    month = Month(config, folder, open_store(folder / "store"), shop, drift_day=options.drift_day, seed=options.seed)
    started = time.monotonic()
    say("training on the log before the first day")
    month.open()
    days: list[DayPlayed] = []
    for day in month.play(options.days):
        days.append(day)
        say(f"{time.monotonic() - started:5.0f} s  {_line(day)}")
    write_json(folder / _MARK, {"schema_version": SCHEMA_VERSION, "seed": options.seed, **_numbers(days, month)})
    write_page(folder / "simulation.html", days, habits, month.gate)
    say(f"wrote {folder / 'simulation.html'}")


def _empty(folder: Path) -> Path:
    """Return the folder after removing the output of an earlier simulation.

    Raises:
        UserError: it has other content.
    """
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARK).exists():
            raise UserError("holds something that is no simulation", where=folder, fix="name another with --out")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _line(day: DayPlayed) -> str:
    rate = day.served.ctr()
    beside = "" if day.mode == "off" else f", challenger: {day.mode}"
    notes = "".join(f"\n         {name}: {text}" for name, text in day.notes)
    return f"day {day.number}: version {day.champion}{beside}, CTR {rate or 0:.1%}, {day.verdict}{notes}"


def _numbers(days: Sequence[DayPlayed], month: Month) -> dict[str, Any]:
    return {
        "days": [
            {
                "number": day.number,
                "date": day.date,
                "version": day.champion,
                "mode": day.mode,
                "ctr": day.served.ctr(),
                "ctr_challenger": day.served.ctr("challenger"),
                "answers": day.served.answers.total(),
                "intents": {str(intent): count for intent, count in sorted(day.served.wanted.items())},
                "overlap": day.served.overlap,
                "verdict": day.verdict,
                "notes": [name for name, _ in day.notes],
            }
            for day in days
        ],
        "gate": msgspec.to_builtins(month.gate),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    parser.add_argument("--days", type=positive, default=30, help="(default 30)")
    parser.add_argument("--drift-day", type=positive, default=15, help="day on which taste drifts (default 15)")
    parser.add_argument("--users", type=positive, default=Habits.users, help=f"(default {Habits.users:,})")
    parser.add_argument("--seed", type=int, default=1, help="(default 1)")
    text = "one parameter; may be repeated"
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE", help=text)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/simulation"), metavar="DIR", help="(default runs/simulation)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
