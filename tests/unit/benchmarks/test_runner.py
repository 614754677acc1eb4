"""The whole runner, on a sample so small that only its bookkeeping matters."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import benchmarks.__main__
from benchmarks import runner, task
from benchmarks.__main__ import main
from benchmarks.jobs import Job
from benchmarks.logs import prepare
from elcrec.artifacts import read_json

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
TINY = {
    "fetch": {"dataset": "sample", "synthetic": {"users": 300, "items": 60, "intents": 4}},
    "train": {"encoder": {"window": 10, "hidden_size": 16, "num_blocks": 1}, "intents": {"num_intents": 4}},
}


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parameters") / "params.yaml"
    path.write_text(yaml.safe_dump(TINY), encoding="utf-8")
    return path


def options(params: Path, out: Path) -> list[str]:
    common = ["--device", "cpu", "--steps", "2", "--dataset", "sample"]
    return [*common, "--params", str(params), "--out", str(out)]


def test_one_run_takes_every_measurement_and_writes_the_page(
    params: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A process for each of its jobs would do nothing but import PyTorch; the test below starts some.
    monkeypatch.setattr(runner, "run", task.measure)
    out = tmp_path / "docs" / "BENCHMARKS.md"
    assert main([*options(params, out), "--pairs", "1", "--sizes", "200", "--catalogues", "300"]) == 0
    page = out.read_text()
    titles = (
        "Training epoch",
        "Memory",
        "Full ranking",
        "Objectives",
        "Cost by number of users",
        "A step by",
        "Where our",
    )
    for title in titles:
        assert f"# {title}" in page
    assert "| textbook | the baseline | 2 of 2 |" in page
    assert "round 1 of 1: textbook" in capsys.readouterr().err
    runs = read_json(out.parent / "benchmarks.json")["sections"]["train"]["runs"]
    assert all(run["steps_cpu"] > 0 for one in runs.values() for run in one)


def test_sequences_that_are_at_hand_are_not_made_again(
    params: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences = prepare("sample", str(params), tmp_path, None)
    monkeypatch.setattr(benchmarks.__main__, "prepare", lambda *_: pytest.fail("made again"))
    monkeypatch.setattr(runner, "run", task.measure)
    out = tmp_path / "BENCHMARKS-GPU.md"
    assert main([*options(params, out), "--pairs", "1", "--only", "rank", "--sequences", str(sequences)]) == 0
    assert list(read_json(tmp_path / "benchmarks-gpu.json")["sections"]) == ["rank"]


def test_the_large_log_has_a_section_of_its_own_from_fresh_processes(params: Path, tmp_path: Path) -> None:
    out = tmp_path / "BENCHMARKS.md"
    sizes = ["--users", "300", "--interactions", "3000", "--items", "100"]
    command = [sys.executable, "-m", "benchmarks.scale", *options(params, out), *sizes]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "over 300 users" in out.read_text()
    (run,) = read_json(out.parent / "benchmarks.json")["sections"]["scale"]["runs"]["ours"]
    # Linux counts a thread's pages in batches, so two readings of one peak differ by some of them.
    assert run["total_mib"] + 2 >= run["steps_mib"] > run["imported_mib"] > 0


def test_a_refused_configuration_is_an_error_with_a_reason(
    params: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options(params.parent / "absent.yaml", tmp_path / "page.md")) == 2
    assert "absent.yaml: no such file" in capsys.readouterr().err
    assert not (tmp_path / "page.md").exists()


@pytest.mark.parametrize("option", ["--pairs", "--steps", "--threads", "--sizes"])
def test_an_option_that_counts_is_at_least_one(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([option, "0"])
    assert option in capsys.readouterr().err


def test_rounds_alternate_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(runner, "run", lambda job: seen.append(job.engine) or {"cpu": 1.0})
    runs = runner.alternate({"a": Job(kind="rank"), "b": Job(kind="rank", engine="textbook")}, 3)
    assert seen == ["ours", "textbook", "textbook", "ours", "ours", "textbook"]
    assert [len(one) for one in runs.values()] == [3, 3]


@pytest.mark.parametrize(("after", "kept"), [(3, [1, 2]), (1, None)])
def test_an_interrupt_keeps_the_rounds_once_every_job_has_run(
    monkeypatch: pytest.MonkeyPatch, after: int, kept: list[int] | None
) -> None:
    seen: list[str] = []

    def run(job: Job) -> dict[str, float]:
        if len(seen) == after:
            raise KeyboardInterrupt
        seen.append(job.engine)
        return {"cpu": 1.0}

    monkeypatch.setattr(runner, "run", run)
    jobs = {"a": Job(kind="rank"), "b": Job(kind="rank", engine="textbook")}
    if kept is None:
        with pytest.raises(KeyboardInterrupt):
            runner.alternate(jobs, 3)
    else:
        assert [len(one) for one in runner.alternate(jobs, 3).values()] == kept
