"""What component bodies share: their section of the configuration, and what they write down."""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from elcrec import __version__
from elcrec.artifacts import code_revision, md5_of
from elcrec.config import Config, Section, merge, parse_config, to_dict
from elcrec.errors import UserError

SECTIONS = {"baseline": "train"}


def read_section(component: str, text: str) -> Any:
    """Parse the JSON of one section, such as `{"epochs": 5}` for `train`, into its checked type.

    Raises:
        UserError: a key is unknown, or a value has the wrong type or range.
    """
    name = SECTIONS.get(component, component)
    document = {name: msgspec.json.decode(text)}
    return getattr(parse_config(document, source=f"component {component}"), name)


def apply(defaults: str, dataset: str, overrides: str) -> Config:
    """Lay a data set's name and a JSON object of sections over the JSON of all sections.

    Raises:
        UserError: `overrides` is not a JSON object, or the result breaks the schema.
    """
    try:
        changes = msgspec.json.decode(overrides, type=dict[str, Any])
    except (msgspec.DecodeError, ValueError) as error:
        fix = 'write e.g. {"train": {"epochs": 5}}'
        raise UserError(f"not a JSON object ({error})", where="parameter overrides", fix=fix) from error
    document = merge(msgspec.json.decode(defaults), {"fetch": {"dataset": dataset}})
    return parse_config(merge(document, changes), source="pipeline parameters")


def write_sections(config: Config) -> dict[str, str]:
    """Return the JSON of every component's section, by component."""
    sections = {name: getattr(config, name) for name in config.__struct_fields__}
    sections["baseline"] = config.train.as_baseline()
    return {name: write_section(section) for name, section in sections.items()}


def write_section(section: Section) -> str:
    """Return a section as one line of JSON."""
    return msgspec.json.encode(to_dict(section)).decode()


def describe(artifact: Any, *, file: str, config: str, **facts: str) -> None:
    """Record on a KFP artifact the md5 of its main `file`, the parameters and the code that made it."""
    artifact.metadata.update(
        md5=md5_of(Path(artifact.path) / file),
        file=file,
        params=config,
        elcrec_version=__version__,
        git_revision=code_revision() or "unknown",
        **facts,
    )


def log(metrics: Any, values: Mapping[str, object]) -> None:
    """Log the finite numbers among `values` as KFP metrics; the rest has no place there."""
    for name, value in values.items():
        if isinstance(value, int | float) and math.isfinite(value):
            metrics.log_metric(name, float(value))


def publish(source: Path, artifact: Any) -> None:
    """Copy one file to the place of a KFP artifact that is a single page."""
    shutil.copyfile(source, artifact.path)
