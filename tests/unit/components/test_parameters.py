"""A run's parameters become each component's section."""

import json

import pytest

from components._parameters import PARAMETERS, apply, values_of
from components._sections import write_sections
from components.configure import configure
from elcrec.config import Config, to_dict
from elcrec.errors import UserError

DEFAULTS = json.dumps(to_dict(Config()))


def test_overrides_win_over_the_data_set_and_the_defaults() -> None:
    config = apply(DEFAULTS, {"dataset": "sample", "seed": 9}, '{"train": {"epochs": 5}, "validate": {"min_rows": 7}}')
    assert (config.fetch.dataset, config.train.epochs, config.validate.min_rows) == ("sample", 5, 7)
    assert config.train.seed == 9
    assert config.train.batch_size == Config().train.batch_size


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ('{"train": {"epoch": 5}}', "train"),
        ('{"train": {"epochs": 0}}', "train.epochs"),
        ("[1]", "parameter overrides: not a JSON object"),
        ("{", "parameter overrides: not a JSON object"),
    ],
)
def test_faulty_overrides_are_one_clear_line(overrides: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        apply(DEFAULTS, {}, overrides)
    assert "\n" not in str(raised.value)


def test_configure_hands_out_its_sections_in_the_order_of_its_outputs() -> None:
    outputs = list(configure.component_spec.outputs)
    own = values_of(Config())
    values = configure.python_func(defaults=DEFAULTS, **own, overrides="{}")
    assert dict(zip(outputs, values, strict=True)) == write_sections(apply(DEFAULTS, own, "{}"))


def test_each_parameter_of_a_run_replaces_a_field_that_is_there() -> None:
    own = values_of(Config())
    assert own["min_ndcg"] == 0.0
    changed = {
        name: {
            "dataset": "file",
            "file_location": "s3://logs/log.csv",
            "objective": "iclrec",
            "loss": "softmax",
            "min_ndcg": 0.2,
            "max_regression": 0.5,
        }.get(name, 7)
        for name in own
    }
    assert values_of(apply(DEFAULTS, changed, "{}")) == changed


def test_configure_takes_each_parameter_of_a_run() -> None:
    assert set(configure.component_spec.inputs) == {*PARAMETERS, "defaults", "overrides"}
