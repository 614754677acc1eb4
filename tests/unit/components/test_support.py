"""How the pipeline's parameters become each component's section, and what is written down."""

import json
from pathlib import Path

import pytest
from kfp import dsl

from components._support import apply, describe, log, read_section, write_sections
from components.configure import configure
from elcrec.artifacts import md5_of
from elcrec.config import Config, to_dict
from elcrec.errors import UserError

DEFAULTS = json.dumps(to_dict(Config()))


def test_every_section_survives_the_way_through_json() -> None:
    config = Config()
    sections = write_sections(config)
    for name in config.__struct_fields__:
        assert read_section(name, sections[name]) == getattr(config, name)


def test_the_baseline_is_the_train_section_without_intents() -> None:
    section = read_section("baseline", write_sections(Config())["baseline"])
    assert section.objective == "sasrec"
    assert section.encoder == Config().train.encoder


def test_overrides_win_over_the_data_set_and_the_defaults() -> None:
    config = apply(DEFAULTS, "sample", '{"train": {"epochs": 5}, "validate": {"min_rows": 7}}')
    assert (config.fetch.dataset, config.train.epochs, config.validate.min_rows) == ("sample", 5, 7)
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
        apply(DEFAULTS, "sample", overrides)
    assert "\n" not in str(raised.value)


def test_configure_hands_out_its_sections_in_the_order_of_its_outputs() -> None:
    outputs = list(configure.component_spec.outputs)
    values = configure.python_func(defaults=DEFAULTS, dataset="sample", overrides="{}")
    assert dict(zip(outputs, values, strict=True)) == write_sections(Config())


def test_only_finite_numbers_become_metrics() -> None:
    metrics = dsl.Metrics(name="m", uri="m")
    log(metrics, {"ndcg@20": 0.5, "rows": 3, "reason": "text", "none": None, "nan": float("nan")})
    assert metrics.metadata == {"ndcg@20": 0.5, "rows": 3.0}


def test_an_artifact_says_which_bytes_parameters_and_code_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELCREC_GIT_REVISION", "abc")
    (tmp_path / "data.csv").write_text("x", encoding="utf-8")
    artifact = dsl.Dataset(name="raw", uri=str(tmp_path))
    describe(artifact, file="data.csv", config="{}", dvc_revision="def")
    assert artifact.metadata["md5"] == md5_of(tmp_path / "data.csv")
    assert artifact.metadata["git_revision"] == "abc"
    assert artifact.metadata["params"] == "{}"
    assert artifact.metadata["dvc_revision"] == "def"
