"""Reading the rules, the search and the items file that are stored with a model."""

from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from elcrec.artifacts import SCHEMA_VERSION, read_json
from elcrec.config import RulesConfig, SearchConfig, Section, parse_section
from elcrec.errors import UserError
from elcrec.ranking.files import FACTS, RULES, SEARCH
from elcrec.ranking.item_facts import read_items_file

T = TypeVar("T", bound=Section)


def read_rules(folder: Path) -> RulesConfig:
    """Read the rules of a model; an older folder has none.

    Raises:
        UserError: the file is not what this program reads.
    """
    return _read(folder / RULES, "rules", RulesConfig)


def read_search(folder: Path) -> SearchConfig:
    """Read the search of a model; exact search if the folder does not have the file.

    Raises:
        UserError: the file is not what this program reads.
    """
    return _read(folder / SEARCH, "search", SearchConfig)


def _read(path: Path, name: str, kind: type[T]) -> T:
    if not path.is_file():
        return kind()
    document = read_json(path)
    if document.get("schema_version") != SCHEMA_VERSION:
        what = f"schema version {document.get('schema_version')}, this program reads {SCHEMA_VERSION}"
        raise UserError(what, where=path, fix="evaluate and push the model again with this version")
    return parse_section(document.get(name, {}), kind, source=path, described_in="src/elcrec/config.py")


def read_facts(folder: Path) -> pa.Table | None:
    """Read the items file as it was when the model was evaluated; `None` if there was none.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / FACTS
    return read_items_file(path) if path.is_file() else None
