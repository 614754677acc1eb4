"""What containers of `run --docker` are given."""

from pathlib import Path

import pytest

from pipelines.local import passed_on
from pipelines.platform import load_platform

SHIPPED = Path(__file__).parents[3] / "pipelines" / "platform.yaml"


def test_containers_get_the_variables_that_the_platforms_secrets_set_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variables = load_platform(SHIPPED, {}).variables
    assert {"REDIS", "FEAST_REGISTRY", "MLFLOW_TRACKING_PASSWORD", "AWS_ACCESS_KEY_ID", "ELCREC_WEBHOOK"} <= set(
        variables
    )
    for name in variables:
        monkeypatch.setenv(name, f"value of {name}")
    monkeypatch.setenv("HOME_SWEET_HOME", "not theirs")
    monkeypatch.delenv("FEAST_REGISTRY")
    assert passed_on(variables) == {name: f"value of {name}" for name in variables if name != "FEAST_REGISTRY"}
