"""Sections of the configuration in the form of components: one line of JSON each."""

from typing import Any

import msgspec

from elcrec.config import Config, Section, parse_part, to_dict

SECTIONS = {"baseline": "train"}
_WITHOUT_COMPONENT = {"serve", "stream", "promote"}
"""Sections that no component takes: those of the servers, and of the decision on a test."""


def read_section(component: str, text: str) -> Any:
    """Parse the JSON of one section, such as `{"epochs": 5}` for `train`, into its checked type.

    Raises:
        UserError: a key is unknown, or a value has the wrong type or range.
    """
    name = SECTIONS.get(component, component)
    return parse_part(name, msgspec.json.decode(text), source=f"component {component}")


def write_sections(config: Config) -> dict[str, str]:
    """Return the JSON of every component's section, by component."""
    sections = {name: getattr(config, name) for name in config.__struct_fields__ if name not in _WITHOUT_COMPONENT}
    sections["baseline"] = config.train.as_baseline()
    return {name: write_section(section) for name, section in sections.items()}


def write_section(section: Section) -> str:
    """Return a section as one line of JSON."""
    return msgspec.json.encode(to_dict(section)).decode()
