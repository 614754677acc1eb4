"""`python -m release.monitoring`: write the dashboard and the alerts of deploy/monitoring from the metrics."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from release.alerts import RUNBOOK, rules
from release.dashboard import dashboard

FOLDER = Path(__file__).parents[1] / "deploy" / "monitoring"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write both files; return 0."""
    parser = argparse.ArgumentParser(prog="python -m release.monitoring", description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help="(default deploy/monitoring)")
    parser.add_argument("--runbook", default=RUNBOOK, metavar="URL", help=f"where it is read (default {RUNBOOK})")
    options = parser.parse_args(arguments)
    for name, content in written(options.runbook).items():
        (options.out / name).write_text(content, encoding="utf-8")
    return 0


def written(runbook: str = RUNBOOK) -> dict[str, str]:
    """Return the files by their names."""
    head = "# Written by `python -m release.monitoring` from release/alerts.py.\n"
    return {
        "dashboard.json": json.dumps(dashboard(), indent=1) + "\n",
        "alerts.yaml": head + yaml.safe_dump(rules(runbook), sort_keys=False, width=120),
    }


if __name__ == "__main__":
    sys.exit(main())
