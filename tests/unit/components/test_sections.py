"""The components' sections of the configuration."""

import json

import pytest

from components._parameters import apply
from components._sections import read_section, write_sections
from elcrec.config import Config, SequencesConfig, to_dict
from elcrec.errors import UserError

DEFAULTS = json.dumps(to_dict(Config()))


def test_every_section_is_unchanged_after_json() -> None:
    config = Config()
    sections = write_sections(config)
    for name in set(sections) - {"baseline"}:
        assert read_section(name, sections[name]) == getattr(config, name)


def test_a_section_is_read_without_conditions_between_sections() -> None:
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
