"""The items file of a running server: read again when it changes, so that availability needs no push."""

import logging
from pathlib import Path

import pyarrow as pa

from elcrec.artifacts import file_version
from elcrec.errors import UserError
from elcrec.ranking.item_facts import align, read_items_file
from elcrec.serving.recommender import Recommender

logger = logging.getLogger(__name__)


class ItemsFile:
    """The last valid content of the file.

    Attributes:
        problem: why the present file is not used; `None` if it is.
    """

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            UserError: it is missing or invalid.
        """
        self._path = path
        self.problem: str | None = None
        self._version = self._look()
        self._table: pa.Table = read_items_file(path)

    def reread(self) -> bool:
        """Read the file again if it has changed, and return whether there is something new; ignore an invalid file."""
        version = self._look()
        if version == self._version:
            return False
        self._version = version
        try:
            self._table = read_items_file(self._path)
        except UserError as error:
            self.problem = f"the items file is refused, the previous one stays: {error}"
            logger.warning("%s", self.problem)
            return False
        self.problem = None
        return True

    def apply(self, recommender: Recommender) -> None:
        """Make a recommender use it."""
        facts = align(self._table, recommender.catalogue.item_ids)
        recommender.use_facts(facts)
        idle = sorted(set(recommender.rules.categories) - set(facts.categories))
        if idle:
            self.problem = f"the items file has no item of category {', '.join(idle)}, so its rule does nothing"
            logger.warning("%s", self.problem)

    def _look(self) -> tuple[int, ...] | None:
        try:
            return file_version(self._path)
        except OSError:
            return None
