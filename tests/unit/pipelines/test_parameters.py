from pathlib import Path
from typing import Any

import pytest

from elcrec.config import Config
from elcrec.errors import UserError
from pipelines import training
from pipelines.parameters import check_arguments, read_arguments
from pipelines.platform import load_platform

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def sweep() -> Any:
    return training.sweep(Config(), load_platform(ROOT / "pipelines" / "platform.yaml", {}))


def test_texts_become_what_the_pipeline_declares(sweep: Any) -> None:
    given = ["epochs=5", "learning_rate=1e-2", "dataset=beauty", 'overrides={"train": {}}']
    expected = {"epochs": 5, "learning_rate": 0.01, "dataset": "beauty", "overrides": '{"train": {}}'}
    assert read_arguments(given, sweep) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("epochs", "not NAME=VALUE"),
        ("epoch=5", "no parameter 'epoch'; there are batch_size"),
        ("epochs=many", "parameter epochs: 'many' is no int"),
        ("epochs=0", "train.epochs"),
        ("objective=best", "train.objective"),
        ("max_regression=2", "push.gate.max_regression"),
        ("overrides={", "parameter overrides"),
        ('overrides={"train": {"epoch": 1}}', "epoch"),
        ('grid={"seeds": [1]}', "seeds"),
        ('grid={"epochs": [0]}', "train.epochs"),
    ],
)
def test_a_wrong_parameter_is_one_clear_line_before_the_run(sweep: Any, given: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        check_arguments(read_arguments([given], sweep), Config())
    assert "\n" not in str(raised.value)
