"""Reading the rules and the search that a model is pushed with, and what the shop knew of its items."""

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
    """Read what answers of a model keep to; a folder from before there were rules has none.

    Raises:
        UserError: the file is not what this program reads.
    """
    path = folder / RULES
    return read_document(path, _Rules, name="rules", fix=_FIX).rules if path.is_file() else RulesConfig()


def read_search(folder: Path) -> SearchConfig:
    """Read how the best items of a model are found; exactly where the folder does not say.

    Raises:
        UserError: the file is not what this program reads.
    """
    path = folder / SEARCH
    return read_document(path, _Search, name="a search", fix=_FIX).search if path.is_file() else SearchConfig()


def read_facts(folder: Path) -> pa.Table | None:
    """Read what the shop knew of its items when the model was evaluated; `None` where it was not asked.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / FACTS
    return read_items_file(path) if path.is_file() else None
