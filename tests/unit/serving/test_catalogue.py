from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elcrec.errors import UserError
from elcrec.serving.catalogue import Catalogue, load_catalogue


def test_unknown_items_are_left_out_and_counted() -> None:
    catalogue = Catalogue(item_ids=pa.array(["a", "b", "c"]), counts=np.array([1, 2, 3]))
    raw = pa.array(["c", "?", "a", "?", "?", "b"])

    found = catalogue.histories(raw, np.array([0, 3, 3, 5, 6]))

    assert [found.histories.row(row).tolist() for row in range(4)] == [[3, 1], [], [], [2]]
    assert found.skipped.tolist() == [1, 0, 2, 0]


def test_an_item_table_with_gaps_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_index": [1, 3], "item_id": ["a", "b"], "count": [1, 1]}), path)

    with pytest.raises(UserError, match="without gaps"):
        load_catalogue(path)


def test_rows_out_of_order_are_matched_to_their_index(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_index": [2, 1], "item_id": ["b", "a"], "count": [5, 7]}), path)

    catalogue = load_catalogue(path)

    assert catalogue.indices(pa.array(["a", "b"])).tolist() == [1, 2]
    assert catalogue.counts.tolist() == [7, 5]
