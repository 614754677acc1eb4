"""How the pipeline's parameters become each component's section, and what is written down."""

import hashlib
import json
from pathlib import Path

import pytest
from kfp import dsl

from components._support import (
    PARAMETERS,
    apply,
    checkpoint_folder,
    describe,
    log,
    read_section,
    stage_on,
    values_of,
    write_sections,
)
from components.configure import configure
from elcrec import __version__
from elcrec.adapters.train_nodes import Owner
from elcrec.artifacts import md5_of
from elcrec.config import Config, SequencesConfig, to_dict
from elcrec.errors import UserError

DEFAULTS = json.dumps(to_dict(Config()))


def test_every_section_survives_the_way_through_json() -> None:
    config = Config()
    sections = write_sections(config)
    for name in set(sections) - {"baseline"}:
        assert read_section(name, sections[name]) == getattr(config, name)


def test_a_section_is_read_without_what_holds_between_sections() -> None:
    encoder = {"window": SequencesConfig().history + 1}

    assert read_section("train", json.dumps({"encoder": encoder})).encoder.window == encoder["window"]
    with pytest.raises(UserError, match=r"component train: parameter train\.epochs: "):
        read_section("train", '{"epochs": 0}')
    with pytest.raises(UserError, match=r"more than sequences\.history"):
        apply(DEFAULTS, {}, json.dumps({"train": {"encoder": encoder}}))


def test_the_baseline_is_the_train_section_without_intents() -> None:
    section = read_section("baseline", write_sections(Config())["baseline"])
    assert section.objective == "sasrec"
    assert section.encoder == Config().train.encoder


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


def test_a_checkpoint_is_found_again_by_a_step_with_the_same_inputs_alone(tmp_path: Path) -> None:
    with checkpoint_folder(str(tmp_path), "config", "rows") as first, checkpoint_folder("", "config") as scratch:
        assert first.is_relative_to(tmp_path)
        assert not scratch.is_relative_to(tmp_path)
    with (
        checkpoint_folder(str(tmp_path), "config", "rows") as again,
        checkpoint_folder(str(tmp_path), "config") as other,
    ):
        assert again == first != other


def test_only_finite_numbers_become_metrics() -> None:
    metrics = dsl.Metrics(name="m", uri="m")
    log(metrics, {"ndcg@20": 0.5, "rows": 3, "reason": "text", "none": None, "accepted": True, "nan": float("nan")})
    assert metrics.metadata == {"ndcg@20": 0.5, "rows": 3.0}


def test_an_artifact_says_which_bytes_parameters_and_code_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELCREC_GIT_REVISION", "abc")
    monkeypatch.setenv("ELCREC_IMAGE", "elcrec@sha256:1")
    (tmp_path / "data.csv").write_text("x", encoding="utf-8")
    artifact = dsl.Dataset(name="raw", uri=str(tmp_path))
    describe(artifact, file="data.csv", config="{}", dvc_revision="def")
    assert artifact.metadata == {
        "md5": md5_of(tmp_path / "data.csv"),
        "file": "data.csv",
        "params": "{}",
        "params_md5": hashlib.md5(b"{}", usedforsecurity=False).hexdigest(),
        "git_revision": "abc",
        "image": "elcrec@sha256:1",
        "elcrec_version": __version__,
        "dvc_revision": "def",
    }


def test_a_page_hands_on_what_its_input_says_of_the_log(tmp_path: Path) -> None:
    lineage = {"data_md5": "1", "dvc_repository": "r", "dvc_revision": "c", "dvc_path": "p"}
    source = dsl.Dataset(name="raw", uri="raw", metadata=lineage | {"md5": "2", "params": "other", "file": "log"})
    page = dsl.HTML(name="report", uri=str(tmp_path / "report"))
    (tmp_path / "report").write_text("x", encoding="utf-8")
    describe(page, config="{}", source=source)
    assert lineage.items() <= page.metadata.items()
    assert (page.metadata["md5"], page.metadata["params"]) == (md5_of(tmp_path / "report"), "{}")


def test_nodes_belong_to_the_pod_that_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    text = '{"image": "i", "workspace_claim": "c"}'
    assert stage_on(text).keywords["nodes"].owner is None, "a pod that has no name is none"
    monkeypatch.setenv("KFP_POD_NAME", "elcrec-training-abc-1")
    monkeypatch.setenv("KFP_POD_UID", "5a1b")
    assert stage_on(text).keywords["nodes"].owner == Owner(name="elcrec-training-abc-1", uid="5a1b")
