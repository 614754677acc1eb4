"""Publishing rows to the online store, and verifying that it serves them."""

from collections.abc import Callable, Mapping
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from feast import FeatureStore

from elcrec.adapters.feast_errors import feast_errors
from elcrec.adapters.history_rows import Entry, HistoryRows
from elcrec.adapters.offline_files import HISTORY, StoredRows, Survey, View
from elcrec.adapters.quiet import quiet
from elcrec.errors import UserError
from elcrec.serving.histories import MAX_SEEN, History, merge_publication
from elcrec.serving.ports import FeatureTables

Merge = Callable[[History, History], History]
"""Function from a user's present history and the published one to their new history."""

Certain = Callable[[pa.Table], npt.NDArray[np.bool_]]
"""Selects the rows of a view that the store serves regardless of live events."""

_MARGIN = timedelta(days=1)
_CHECKED_KEYS = 5000
_READ_KEYS = 500


def read_back(
    feast: FeatureStore, published: Mapping[View, StoredRows], rows: HistoryRows, merge: Merge, certain: Certain
) -> None:
    """Compare the online store with the published rows, on evenly spaced keys of rows that it must serve.

    Raises:
        UserError: it serves other values.
    """
    for view, stored in published.items():
        for sample in stored.evenly(_CHECKED_KEYS, certain):
            for start in range(0, len(sample), _READ_KEYS):
                part = sample.slice(start, _READ_KEYS)
                wrong = _wrong_histories(rows, part, merge) if view is HISTORY else _wrong_columns(feast, view, part)
                if wrong:
                    what = f"{view.name} serves other values of {', '.join(wrong)} than were published"
                    raise UserError(what, fix="push again; look for a second writer")


def merge_of(tables: FeatureTables, found: Survey, window: int) -> Merge:
    """Return how a publication of `tables` changes a history."""
    known = None if tables.item_statistics is None else frozenset(tables.item_statistics["item_id"].to_pylist())
    until = found.newest if tables.real_times else None

    def merge(history: History, published: History) -> History:
        return merge_publication(history, published, window, resolution=found.resolution, knows=known, until=until)

    return merge


def require_window(longest: int, window: int) -> None:
    """Check that every history fits the view.

    Raises:
        UserError: one is longer than `window`.
    """
    if longest > window:
        what = f"histories of up to {longest} items, but {HISTORY.name} keeps {window}"
        raise UserError(what, fix="lower sequences.history, or raise WINDOW in the Feast repository's views.py")


def _histories(table: pa.Table) -> dict[str, History]:
    columns = [table[name].to_pylist() for name in ("user_id", "item_ids", "event_times", "event_ids", "seen_items")]
    return {
        user_id: History(item_ids=item_ids, times=times, event_ids=ids, seen=list(dict.fromkeys(seen))[-MAX_SEEN:])
        for user_id, item_ids, times, ids, seen in zip(*columns, strict=True)
    }


def publish_histories(rows: HistoryRows, chunk: pa.Table, merge: Merge) -> None:
    """Merge histories into the online store."""
    published = _histories(chunk)

    def change(user_id: str, found: History) -> History:
        return merge(found, published[user_id])

    rows.update(list(published), change, Entry(published=True))


def load(feast: FeatureStore, view: View, chunk: pa.Table) -> None:
    """Write rows of a view that no live event changes."""
    with feast_errors(), quiet("feast"):
        feast.write_to_online_store(view.name, df=chunk.to_pandas())


def record(feast: FeatureStore, view: View, stored: StoredRows) -> None:
    """Record the load in the registry, as Feast's own materialisation does."""
    start, end = stored.times()
    with feast_errors(), quiet("feast"):
        found = feast.get_feature_view(view.name)
        feast.registry.apply_materialization(found, feast.project, start - _MARGIN, end + _MARGIN)


def _wrong_histories(rows: HistoryRows, part: pa.Table, merge: Merge) -> list[str]:
    """Return the columns to report if a history is wrong, which means that publishing it again would change it."""
    published = _histories(part)
    found = rows.read(list(published))
    wrong = [
        user_id
        for user_id, history in published.items()
        if user_id not in found or merge(found[user_id], history) != found[user_id]
    ]
    return list(HISTORY.witnesses) if wrong else []


def _wrong_columns(feast: FeatureStore, view: View, part: pa.Table) -> list[str]:
    expected = part.select([view.key, *view.witnesses]).to_pydict()
    with feast_errors(), quiet("feast"):
        served = feast.get_online_features(
            features=[f"{view.name}:{column}" for column in view.witnesses],
            entity_rows=[{view.key: key} for key in expected[view.key]],
        ).to_dict()
    return [column for column in view.witnesses if served[column] != expected[column]]
