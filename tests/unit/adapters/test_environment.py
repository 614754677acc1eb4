"""Environment variables are set for the duration of a block."""

import os

import pytest

from elcrec.adapters.environment import environment
from elcrec.adapters.spark_engine import _variables


def test_variables_are_restored_after_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELCREC_ONE", "before")
    monkeypatch.delenv("ELCREC_TWO", raising=False)
    with pytest.raises(ZeroDivisionError), environment(ELCREC_ONE=None, ELCREC_TWO="inside"):  # noqa: PT012 - what the block does is the point
        assert (os.environ.get("ELCREC_ONE"), os.environ["ELCREC_TWO"]) == (None, "inside")
        os.environ["ELCREC_ONE"] = "left behind"
        _ = 1 / 0
    assert (os.environ["ELCREC_ONE"], os.environ.get("ELCREC_TWO")) == ("before", None)


def test_spark_on_this_machine_needs_no_name_service_and_an_address_that_is_set_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SPARK_LOCAL_IP", raising=False)
    assert _variables("local[2]")["SPARK_LOCAL_IP"] == "127.0.0.1"
    assert "SPARK_LOCAL_IP" not in _variables("sc://spark:15002")
    monkeypatch.setenv("SPARK_LOCAL_IP", "10.0.0.7")
    assert _variables("local[2]")["SPARK_LOCAL_IP"] == "10.0.0.7"
