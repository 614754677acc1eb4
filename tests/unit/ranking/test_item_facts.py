from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elcrec.config import RulesConfig
from elcrec.errors import UserError
from elcrec.ranking.item_facts import ItemFacts, align, read_items_file
from elcrec.ranking.rules import Rules

CATALOGUE = pa.array(["i1", "i2", "i3", "i4"])
NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
CSV = """item_id,category,available,available_until
i3,toys,true,2026-11-28T12:00:00Z
i1,books,No,
other,toys,1,
i4,,,2026-11-28T14:00:00+01:00
"""


def test_csv_and_parquet_say_the_same_of_the_items_that_the_catalogue_has(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text(CSV)
    table = read_items_file(tmp_path / "items.csv")
    pq.write_table(table, tmp_path / "items.parquet")

    for found in (align(table, CATALOGUE), align(read_items_file(tmp_path / "items.parquet"), CATALOGUE)):
        assert [found.categories[code] for code in found.category_V] == ["", "books", "", "toys", ""]
        assert found.available_V.tolist() == [True, False, True, True, True]
        assert found.unavailable(NOON - timedelta(seconds=1)).tolist() == [1]
        assert found.unavailable(NOON).tolist() == [1, 3]
        assert found.unavailable(NOON + timedelta(hours=1)).tolist() == [1, 3, 4]


def test_ids_of_the_items_file_are_known_in_every_spelling(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,available\n 37,no\n")
    found = align(read_items_file(tmp_path / "items.csv"), pa.array(["37"]))
    assert found.available_V.tolist() == [True, False]


def test_an_item_is_hidden_when_it_expires_and_shown_with_an_earlier_clock() -> None:
    noon = round(NOON.timestamp() * 1_000_000)
    nothing = ItemFacts.nothing(3)
    until = np.array([nothing.until_V[0], noon, noon + 1_000_000, nothing.until_V[0]])
    facts = ItemFacts(categories=("",), category_V=nothing.category_V, available_V=nothing.available_V, until_V=until)
    rules = Rules(RulesConfig(), facts, np.ones((4, 2), np.float32))

    left = []
    for seconds in (-1, 0, 0.5, 1, -1):
        row = np.zeros((1, 4), np.float32)
        rules.block(row, NOON + timedelta(seconds=seconds))
        left.append(np.flatnonzero(np.isfinite(row[0])).tolist())

    assert left == [[0, 1, 2, 3], [0, 2, 3], [0, 2, 3], [0, 3], [0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,category\n1,a\n", "no column item_id"),
        ("item_id,available\ni1,maybe\n", "available is neither true nor false"),
        ("item_id,available_until\ni1,soon\n", "available_until is not a time"),
        ("item_id\ni1\ni1\n", "occurs in several rows"),
        ("item_id,category\n,toys\n", "an item_id is empty"),
        ("item_id,price,price\ni1,1,2\n", "columns that occur twice: price"),
        ("", "not readable"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "items.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_items_file(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["title", "category", "available"])
def test_a_value_that_is_a_list_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(f'{{"item_id": "i1", "{name}": ["a", "b"]}}\n')
    with pytest.raises(UserError, match=f"column '{name}' is neither text nor a number"):
        read_items_file(path)
