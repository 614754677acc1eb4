"""A killed publication resumes where it stopped; one with other features begins at its first row."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "support" / "killed_publication.py"
CASES: list[tuple[int, str, dict[str, int]]] = [
    (1, "first", {"user_history": 30, "user_model_output": 30, "item_statistics": 2}),
    (2, "first", {"user_history": 20, "user_model_output": 30, "item_statistics": 2}),
    (5, "first", {"user_model_output": 20, "item_statistics": 2}),
    (5, "second", {"user_model_output": 30, "item_statistics": 2}),
]


def test_killed_at_a_chunk_and_run_again_only_the_rest_is_written(tmp_path: Path) -> None:
    stores = [tmp_path / str(place) for place in range(len(CASES))]
    cases = [
        {"store": str(store), "kill_at": kill_at, "second": second}
        for store, (kill_at, second, _) in zip(stores, CASES, strict=True)
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}

    subprocess.run([sys.executable, str(PROGRAM), json.dumps(cases)], env=environment, check=True, timeout=300)

    for store, (_, _, expected) in zip(stores, CASES, strict=True):
        written = json.loads((store / "written.json").read_text())
        assert {view: rows for view, rows in written.items() if view != "calls" and rows} == expected
