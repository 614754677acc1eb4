"""A challenger becomes champion, stays or goes, by what its users did: on a real registry and store."""

import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elcrec import cli
from elcrec.artifacts import read_json
from elcrec.config import ChallengerConfig, Config, PromoteConfig, ServeConfig
from elcrec.errors import UserError
from elcrec.serving.bundle import read_manifest
from elcrec.stages.promote import promote
from tests.support.engines import ENGINE
from tests.support.serving import NAME, Installation
from tests.support.shown_days import two_arms

PARAMS = Path(__file__).parents[3] / "params.yaml"
START = datetime(2026, 3, 2, tzinfo=UTC)
DAYS = 5
CONFIG = PromoteConfig(min_days=3, min_users=300, page=False)


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    installation = Installation.make(tmp_path_factory.mktemp("promote"))
    installation.push_another(seed=1, alias="challenger")
    return installation


@pytest.fixture
def installation(pushed: Installation, tmp_path: Path) -> Installation:
    shutil.copytree(pushed.folder, tmp_path / "store")
    return Installation(folder=tmp_path / "store", inputs=pushed.inputs, features=pushed.features)


def digests(installation: Installation) -> dict[str, str]:
    found = {
        "champion": installation.registry.version(NAME, "1"),
        "challenger": installation.registry.version(NAME, "2"),
    }
    return {arm: read_manifest(each.bundle).digest for arm, each in found.items() if each is not None}


@pytest.fixture(scope="module")
def tables(pushed: Installation) -> dict[str, list[pa.Table]]:
    of = digests(pushed)
    return {
        name: list(two_arms(DAYS, of, lift=lift, seed=4))
        for name, lift in (("better", 0.6), ("worse", -0.4), ("same", 0))
    }


def written(folder: Path, tables: Sequence[pa.Table]) -> Path:
    """What `elcrec exposures` writes, of these days."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"schema_version": 1, "config": {"window": 86_400.0, "page": True}, "counts": {}}
    (folder / "exposures.json").write_text(json.dumps(document), encoding="utf-8")
    pq.write_table(pa.concat_tables(tables), folder / "attributed.parquet")
    return folder


def run(
    installation: Installation, tables: Sequence[pa.Table], *, day: float = DAYS + 1.1, share: float = 0.5, **more: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Decide so many days after the first; return what the stage says, and promote.json."""
    root, dry = installation.folder.parent, more.pop("dry_run", False)
    section = msgspec.structs.replace(CONFIG, **more)
    found = promote(
        written(root / "attributed", tables),
        registry=installation.registry,
        features=installation.store,
        config=Config(promote=section, serve=ServeConfig(challenger=ChallengerConfig(share=share))),
        out=root / "out",
        engine=ENGINE,
        now=START + timedelta(days=day),
        dry_run=dry,
    )
    return found, read_json(root / "out" / "promote.json")


def aliases(installation: Installation) -> tuple[str | None, str | None]:
    found = [installation.registry.champion(NAME), installation.registry.challenger(NAME)]
    return tuple(None if each is None else each.version for each in found)  # type: ignore[return-value]


def test_a_better_challenger_becomes_champion_and_running_again_changes_nothing(
    installation: Installation, tables: dict[str, list[pa.Table]]
) -> None:
    found, document = run(installation, tables["better"])

    assert (found["outcome"], found["challenger"]) == ("promote", "2")
    assert found["lift_low"] > 0
    # The first day is left out: the test may have begun at noon.
    assert [look["date"] for look in document["looks"]] == [f"2026-03-0{day}" for day in (3, 4, 5, 6)]
    assert aliases(installation) == ("2", None)
    again, document = run(installation, tables["better"])
    assert (again["outcome"], document["looks"], aliases(installation)) == ("none", [], ("2", None))


def test_a_worse_challenger_is_rejected_with_the_reason_and_the_gate_refuses_it_from_then_on(
    installation: Installation, tables: dict[str, list[pa.Table]]
) -> None:
    found, document = run(installation, tables["worse"])

    assert found["outcome"] == "drop"
    assert aliases(installation) == ("1", None)
    assert installation.registry.rejected(NAME, digests(installation)["challenger"]) == "2"
    tags = installation.registry._client.get_model_version(NAME, "2").tags
    assert tags["elcrec.rejected.reason"] == document["reason"] == found["reason"]
    assert found["reason"].startswith("the challenger is worse: click-through rate ")


def test_equal_versions_stay_in_the_test(installation: Installation, tables: dict[str, list[pa.Table]]) -> None:
    found, _ = run(installation, tables["same"])

    assert found["outcome"] == "collect"
    assert aliases(installation) == ("1", "2")


def test_a_dry_run_decides_and_changes_nothing(installation: Installation, tables: dict[str, list[pa.Table]]) -> None:
    for name, outcome in (("better", "promote"), ("worse", "drop")):
        found, document = run(installation, tables[name], dry_run=True)
        assert (found["outcome"], document["dry_run"]) == (outcome, True)
    assert aliases(installation) == ("1", "2")
    assert installation.registry.rejected(NAME, digests(installation)["challenger"]) is None


def test_a_split_that_differs_from_the_configuration_prevents_a_decision(
    installation: Installation, tables: dict[str, list[pa.Table]]
) -> None:
    found, _ = run(installation, tables["better"], share=0.3)

    assert (found["outcome"], aliases(installation)) == ("refused", ("1", "2"))


@pytest.mark.parametrize(("day", "seen"), [(1.5, 0), (2.9, 0), (3.0, 1), (4.0, 2)])
def test_only_whole_days_whose_events_have_come_in_count(
    installation: Installation, tables: dict[str, list[pa.Table]], day: float, seen: int
) -> None:
    found, document = run(installation, tables["better"], day=day)

    assert (found["outcome"], len(document["looks"])) == ("collect", seen)


def test_days_before_since_do_not_count(installation: Installation, tables: dict[str, list[pa.Table]]) -> None:
    _, document = run(installation, tables["better"], since="2026-03-05", dry_run=True)

    assert [look["date"] for look in document["looks"]] == ["2026-03-05", "2026-03-06"]


def test_without_arms_in_the_exposures_it_says_what_the_servers_need(
    installation: Installation, tables: dict[str, list[pa.Table]]
) -> None:
    nobody = [
        table.set_column(table.schema.get_field_index("arm"), "arm", pa.nulls(len(table), pa.string()))
        for table in tables["better"]
    ]

    found, _ = run(installation, nobody)

    assert found["outcome"] == "collect"
    assert "serve.challenger.mode=split" in found["reason"]
    older = [table.drop_columns(["arm"]) for table in tables["better"]]
    with pytest.raises(UserError, match="no column arm"):
        run(installation, older)


def test_a_challenger_that_cannot_be_served_is_not_promoted(
    installation: Installation, tables: dict[str, list[pa.Table]]
) -> None:
    challenger = installation.registry.challenger(NAME)
    assert challenger is not None
    (challenger.bundle / "model.safetensors").write_bytes(b"")

    with pytest.raises(UserError, match=r"changed: model\.safetensors"):
        run(installation, tables["better"])
    assert aliases(installation) == ("1", "2")
    assert not (installation.folder.parent / "out" / "promote.json").exists()


def test_a_challenger_whose_features_are_gone_is_not_promoted(
    installation: Installation, tables: dict[str, list[pa.Table]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise UserError("service elcrec_v1 is gone")

    monkeypatch.setattr(type(installation.store), "check", gone)

    with pytest.raises(UserError, match="elcrec_v1 is gone"):
        run(installation, tables["better"])
    assert aliases(installation) == ("1", "2")


def test_without_a_champion_it_says_what_to_do(installation: Installation, tables: dict[str, list[pa.Table]]) -> None:
    installation.registry._client.delete_registered_model_alias(NAME, "champion")

    with pytest.raises(UserError, match="no champion of model 'elcrec'"):
        run(installation, tables["better"])


def test_the_command_promotes_and_writes_a_page_that_needs_nothing_else(
    installation: Installation,
    tables: dict[str, list[pa.Table]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ELCREC_FEATURES", str(installation.features))
    folder = written(tmp_path / "attributed", tables["better"])
    overrides = [f"--set=promote.{each}" for each in ("min_days=3", "min_users=300")]
    places = ["--store", str(installation.folder), "--attributed", str(folder), "--out", str(tmp_path / "out")]

    assert cli.main(["promote", "--params", str(PARAMS), *places, *overrides]) == 0

    assert "promote" in capsys.readouterr().out
    assert aliases(installation) == ("2", None)
    page = (tmp_path / "out" / "promote.html").read_text(encoding="utf-8")
    assert "The challenger becomes champion" in page
    assert page.count("<svg ") == 2
    assert "Lift of the click-through rate by day" in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page
