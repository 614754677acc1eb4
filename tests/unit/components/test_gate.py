"""A refused model's log is published to the feature store anyway, and the verdict names the champion."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kfp import dsl

from components._sections import write_section
from components.gate import gate
from elcrec.config import GateConfig, PushConfig
from tests.support.push_inputs import Inputs, make_inputs
from tests.support.serving import Installation

ROOT = Path(__file__).parents[3]
REFUSING = GateConfig(floors={"ndcg@20": 1.0})


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation.make(tmp_path_factory.mktemp("installation"))


@pytest.fixture(autouse=True)
def features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELCREC_FEATURES", str(ROOT / "features"))


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """A later log: six users more, and five items that the champion does not know."""
    return make_inputs(tmp_path_factory.mktemp("newer"), users=30, items=20)


def judge(store: Path, inputs: Inputs, folder: Path, conditions: GateConfig) -> tuple[bool, dsl.Markdown]:
    reason = dsl.Markdown(name="reason", uri=str(folder / "reason"))
    paths = zip(("model", "sequences", "evaluation"), inputs.paths, strict=True)
    ports: dict[str, Any] = {name: dsl.Artifact(name=name, uri=str(path)) for name, path in paths}
    config = write_section(PushConfig(gate=conditions))
    return gate.python_func(config=config, store=str(store), reason=reason, **ports), reason


def test_a_refused_model_s_histories_are_published_and_the_reason_names_the_champion(
    installation: Installation, newer: Inputs, tmp_path: Path
) -> None:
    accepted, reason = judge(installation.folder, newer, tmp_path, REFUSING)

    assert not accepted
    for text in (Path(reason.path).read_text(), reason.metadata["reason"]):
        assert "version 1 still serves" in text
    table = pq.read_table(newer.sequences / "histories.parquet").to_pydict()
    found = installation.store.histories(table["user_id"], service="elcrec_v1")
    assert [history.item_ids for history in found if history] == table["item_ids"]


def test_an_accepted_model_s_histories_wait_for_the_push(
    installation: Installation, newer: Inputs, tmp_path: Path
) -> None:
    path = tmp_path / "sequences"
    path.mkdir()
    for file in newer.sequences.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    table = pq.read_table(path / "histories.parquet")
    users = pa.array([f"new-{row}" for row in range(len(table))])
    pq.write_table(table.set_column(0, "user_id", users), path / "histories.parquet")

    accepted, _ = judge(installation.folder, replace(newer, sequences=path), tmp_path, GateConfig(max_regression=1.0))

    assert accepted
    assert installation.store.histories(["new-0"], service="elcrec_v1") == [None]


def test_without_a_champion_the_log_of_a_refused_model_is_not_published(newer: Inputs, tmp_path: Path) -> None:
    accepted, reason = judge(tmp_path / "store", newer, tmp_path, REFUSING)

    assert not accepted
    assert "no version serves yet" in Path(reason.path).read_text()
    assert not (tmp_path / "store" / "feast").exists()
