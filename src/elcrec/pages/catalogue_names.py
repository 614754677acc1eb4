"""Names of items and intents for the pages, from the items file."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from elcrec.ranking.item_facts import align

_CATEGORIES, _TITLES, _MEMBERS = 2, 2, 0.25
"""Limits for the name of an intent: number of categories, typical items that must share each, and titles."""


class CatalogueNames:
    """Names of items by index, and the items file's coverage of the log.

    Attributes:
        absent: number of items of the log that the file lacks.
        coverage: a sentence on that.
    """

    def __init__(self, table: pa.Table, item_ids: Sequence[str], counts: npt.NDArray[np.int64]) -> None:
        """Join an items file (`read_items_file`) with the items of a log, 1 to V, and their training interactions."""
        raw = pa.array(item_ids, pa.string())
        self._facts = align(table, raw)
        known = np.asarray(pc.is_in(raw, value_set=table["item_id"].combine_chunks()))
        unused = len(table) - int(known.sum())
        self.absent = int((~known).sum())
        share = counts[1:][~known].sum() / max(1, counts[1:].sum())
        self.coverage = (
            f"The catalogue lacks {self.absent:,} of the log's {len(known):,} items ({share:.1%} of the training "
            f"interactions), and has {unused:,} that the log lacks."
        )

    def title_of(self, item: int) -> str | None:
        """Return an item's title, if it has one."""
        return self._facts.describe([item])[0].get("title")

    def name_of(self, items: Iterable[int]) -> str:
        """Name an intent by the categories that many of its typical items share, and the first titles."""
        facts = self._facts.describe(list(items))
        counts = Counter(row["category"] for row in facts if row.get("category"))
        common = [name for name, count in counts.most_common(_CATEGORIES) if count >= _MEMBERS * len(facts)]
        titles = [row["title"] for row in facts if row.get("title")][:_TITLES]
        return ": ".join(part for part in (", ".join(common), "; ".join(titles)) if part)
