"""Reading the rules, the search and the items file that are stored with a model."""

from pathlib import Path

import msgspec
import pyarrow as pa

from elcrec.artifacts import read_document
from elcrec.config import RulesConfig, SearchConfig
from elcrec.ranking.files import FACTS, RULES, SEARCH
from elcrec.ranking.item_facts import read_items_file

_FIX = "evaluate and push the model again with this version"


class _Rules(msgspec.Struct):
    rules: RulesConfig = RulesConfig()


class _Search(msgspec.Struct):
    search: SearchConfig = SearchConfig()


def read_rules(folder: Path) -> RulesConfig:
    """Read the rules of a model; an older folder has none.

    Raises:
        UserError: the file is not what this program reads.
    """
    path = folder / RULES
    return read_document(path, _Rules, name="rules", fix=_FIX).rules if path.is_file() else RulesConfig()


def read_search(folder: Path) -> SearchConfig:
    """Read the search of a model; exact search if the folder does not have the file.

    Raises:
        UserError: the file is not what this program reads.
    """
    path = folder / SEARCH
    return read_document(path, _Search, name="a search", fix=_FIX).search if path.is_file() else SearchConfig()


def read_facts(folder: Path) -> pa.Table | None:
    """Read the items file as it was when the model was evaluated; `None` if there was none.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / FACTS
    return read_items_file(path) if path.is_file() else None
