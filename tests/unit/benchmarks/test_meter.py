import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import ours
from benchmarks.anatomy import group_of
from benchmarks.meter import DATA_RANGE, Clock, peak_mib
from elcrec.training import loop
from tests.unit.training.helpers import ring_data, tiny_config

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")


def test_the_clock_counts_the_work_between_the_first_batch_and_the_end_of_the_last_step() -> None:
    clock = Clock(device=CPU, limits=(2, None), whole=3)
    for _ in range(2):
        for _ in clock.watch(iter(range(10))):
            torch.randn(300, 300) @ torch.randn(300, 300)
    assert [epoch.steps for epoch in clock.epochs] == [2, 3]
    assert all(epoch.cost.cpu > 0 for epoch in clock.epochs)
    assert clock.epochs[1].start.wall >= clock.epochs[0].end.wall


def test_our_loop_takes_the_steps_that_the_clock_allows_and_no_more(tmp_path: Path) -> None:
    data, config = ring_data(), tiny_config()
    clock = Clock(device=CPU, limits=(1, None, 2))
    original = loop.TrainingData
    ours.train(data, config, clock, tmp_path)
    assert clock.whole == 4
    assert [epoch.steps for epoch in clock.epochs] == [1, 4, 2]
    assert loop.TrainingData is original


def test_a_loop_that_passes_the_clock_by_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "fit", lambda *_: None)
    with pytest.raises(RuntimeError, match="saw 0 of 2 epochs"):
        ours.train(ring_data(), tiny_config(), Clock(device=CPU, limits=(1, 1)), tmp_path)


def test_one_validation_target_is_left() -> None:
    data = ours.with_one_validation_target(ring_data())
    assert len(data.evaluation("valid").users) == 1
    assert len(data.evaluation("test").users) == data.num_users


@pytest.mark.parametrize(
    ("names", "group"),
    [
        (["aten::addmm", "aten::linear"], "matrix products"),
        (["aten::bernoulli_", "aten::dropout"], "dropout and random numbers"),
        (["aten::fill_", "aten::embedding_dense_backward"], "embedding"),
        (["aten::fill_", "aten::zeros"], "filling and copying memory"),
        (["aten::native_layer_norm_backward"], "normalisation and activation"),
        (["aten::_fused_adam_"], "optimiser"),
        (["aten::randint", DATA_RANGE], "data (drawing the batch)"),
        (["aten::where"], "other operators"),
    ],
)
def test_an_operator_counts_with_its_kind_or_its_callers(names: list[str], group: str) -> None:
    assert group_of(names) == group


def test_a_process_is_not_charged_with_the_memory_of_its_parent() -> None:
    held = b"x" * (400 << 20)
    code = "from benchmarks.meter import peak_mib; print(peak_mib())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < peak_mib() - 200
    assert len(held) == 400 << 20
