import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from elcrec import cli
from elcrec.artifacts import read_json, write_json
from elcrec.config import load_config
from release.results import METRICS, main

ROOT = Path(__file__).parents[3]


def run_folder(folder: Path, *, seed: int = 1, level: float = 0.05, **metrics: float) -> Path:
    trained = {"objective": "elcrec", "seed": seed}
    config: dict[str, Any] = {"train": trained, "epochs": 9, "best_epoch": 7, "seconds": 90}
    documents = {
        "raw/source.json": {"dataset": "beauty"},
        "model/config.json": config,
        "evaluation/metrics.json": dict.fromkeys(METRICS, level) | metrics,
    }
    for name, document in documents.items():
        write_json(folder / name, document)
    return folder


def add(run: Path, docs: Path) -> int:
    return main(["--run", str(run), "--preset", "paper", "--docs", str(docs), "--device", "CPU"])


def rows_of(docs: Path, run: str) -> list[str]:
    return [line for line in (docs / "RESULTS.md").read_text().splitlines() if line.startswith(f"| {run}")]


def test_a_row_is_shown_beside_the_published_one(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", effective_intents=3.21, largest_intent_share=0.4)
    assert add(run, tmp_path) == 0
    (row,) = rows_of(tmp_path, "paper, elcrec")
    assert "9 (7)" in row
    assert "0.0500" in row
    assert "3.2 | 40.0% |  | 1.5 | CPU" in row
    assert "0.0529" in rows_of(tmp_path, "ELCRec, published")[0]


def test_the_same_run_replaces_its_row(tmp_path: Path) -> None:
    add(run_folder(tmp_path / "run"), tmp_path)
    first = (tmp_path / "RESULTS.md").read_bytes(), (tmp_path / "results.json").read_bytes()
    add(run_folder(tmp_path / "run"), tmp_path)
    assert first == ((tmp_path / "RESULTS.md").read_bytes(), (tmp_path / "results.json").read_bytes())
    add(run_folder(tmp_path / "run", level=0.06), tmp_path)
    assert ["0.0600" in row for row in rows_of(tmp_path, "paper, elcrec")] == [True]


def test_runs_of_two_seeds_have_a_row_each_and_a_mean(tmp_path: Path) -> None:
    add(run_folder(tmp_path / "run"), tmp_path)
    add(run_folder(tmp_path / "run", seed=2, level=0.06), tmp_path)
    assert len(rows_of(tmp_path, "paper, elcrec |")) == 2
    (mean,) = rows_of(tmp_path, "paper, elcrec, mean")
    assert "2 seeds" in mean
    assert "0.0550 ± 0.0071" in mean
    assert "108.1% / 51.0%; less one deviation 94.2% / 44.4%" in mean


def test_a_paper_run_is_given_in_percent_of_the_published_one(tmp_path: Path) -> None:
    add(run_folder(tmp_path / "run", **{"ndcg@20": 0.0509, "hr@20": 0.0971}), tmp_path)
    assert "100.0% / 90.0%" in rows_of(tmp_path, "paper, elcrec")[0]


def test_the_best_preset_is_given_beside_the_best_published_and_beside_itself_without_intents(tmp_path: Path) -> None:
    deltas = {"delta_ndcg@20": 0.0021, "delta_ndcg@20_low": 0.0004, "delta_ndcg@20_high": 0.0038}
    run = run_folder(tmp_path / "run", **{"ndcg@20": 0.0725, "hr@20": 0.291, "kept_intent_share": 0.81}, **deltas)
    config = read_json(run / "model" / "config.json")
    write_json(run / "model" / "config.json", config | {"train": {"objective": "elcrec2", "seed": 1}})
    assert main(["--run", str(run), "--preset", "best", "--docs", str(tmp_path)]) == 0
    (row,) = rows_of(tmp_path, "best, elcrec2")
    assert "100.0% / 200.0% | +0.0021 (+0.0004 to +0.0038) |" in row
    assert "81.0%" in row
    assert "0.1455" in rows_of(tmp_path, "KERec")[0]


def test_a_run_beside_another_preset_has_a_table_of_its_own(tmp_path: Path) -> None:
    add(run_folder(tmp_path / "best"), tmp_path)
    deltas = {"delta_ndcg@20": -0.0021, "delta_ndcg@20_low": -0.0038, "delta_ndcg@20_high": -0.0004}
    run = run_folder(tmp_path / "run", **deltas)
    assert main(["--run", str(run), "--preset", "without it", "--against", "paper", "--docs", str(tmp_path)]) == 0
    (row,) = rows_of(tmp_path, "without it, elcrec")
    assert "| -0.0021 (-0.0038 to -0.0004) |" in row
    page = (tmp_path / "RESULTS.md").read_text()
    assert page.index("Beside `paper`") < page.index(row)
    assert len(rows_of(tmp_path, "paper, elcrec")) == 1


def test_both_protocols_are_shown_where_they_differ(tmp_path: Path) -> None:
    add(run_folder(tmp_path / "run"), tmp_path)
    assert "history left in" not in (tmp_path / "RESULTS.md").read_text()
    unmasked = {f"unmasked_{name}": 0.0123 for name in METRICS}
    add(run_folder(tmp_path / "run", **unmasked), tmp_path)
    assert "history left in" in (tmp_path / "RESULTS.md").read_text()
    assert rows_of(tmp_path, "paper, elcrec")[1].count("0.0123") == 4


def test_each_command_of_the_results_runs_what_its_row_says() -> None:
    for row in read_json(ROOT / "docs" / "results.json")["rows"]:
        if row["command"] is None:
            continue
        # The variables before the command set what the environment has.
        arguments = shlex.split(row["command"][row["command"].index("make ") :])[1:]
        shown = subprocess.run(
            ["make", "--dry-run", "--no-print-directory", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        options = cli._parser().parse_args(shlex.split(shown.stdout.splitlines()[-1])[1:])
        presets = [ROOT / preset for preset in options.presets]
        config = load_config(ROOT / "params.yaml", presets=presets, overrides=options.overrides)
        assert (config.fetch.dataset, config.train.seed) == (row["dataset"], row["seed"])
        # A run trains its baseline, too.
        assert row["objective"] in {config.train.objective, config.train.as_baseline().objective}


def test_a_run_without_evaluation_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_folder(tmp_path / "run")
    (run / "evaluation" / "metrics.json").unlink()
    assert add(run, tmp_path) == 2
    assert "metrics.json: no such file" in capsys.readouterr().err
    assert not (tmp_path / "RESULTS.md").exists()
