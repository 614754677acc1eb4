import torch
from hypothesis import given
from hypothesis import strategies as st

from elcrec.ops.negatives import UnseenItems

NUM_ITEMS = 9
rows_of_items = st.lists(st.lists(st.integers(1, NUM_ITEMS), min_size=1, max_size=20), min_size=1, max_size=6)


def _unseen(rows: list[list[int]]) -> UnseenItems:
    items = torch.tensor([item for row in rows for item in row])
    owners = torch.tensor([index for index, row in enumerate(rows) for _ in row])
    return UnseenItems(items, owners, len(rows), NUM_ITEMS)


def _draw(rows: list[list[int]], times: int, seed: int = 0) -> list[list[int]]:
    asked = torch.arange(len(rows)).repeat_interleave(times)
    drawn = _unseen(rows).draw(asked, torch.Generator().manual_seed(seed))
    return drawn.view(len(rows), times).tolist()


@given(rows_of_items, st.integers(0, 2**31))
def test_what_is_drawn_is_an_item_that_the_row_does_not_hold(rows: list[list[int]], seed: int) -> None:
    for row, drawn in zip(rows, _draw(rows, 20, seed), strict=True):
        unknown = set(range(1, NUM_ITEMS + 1)) - set(row)
        assert set(drawn) <= (unknown or set(range(1, NUM_ITEMS + 1)))


def test_every_unseen_item_is_drawn_as_often() -> None:
    rows = [[2, 5, 5, 9, 2], [1], [3, 4, 6, 7, 8, 9, 1, 2]]
    for row, drawn in zip(rows, _draw(rows, 9000), strict=True):
        unknown = sorted(set(range(1, NUM_ITEMS + 1)) - set(row))
        counts = torch.bincount(torch.tensor(drawn), minlength=NUM_ITEMS + 1)[unknown]
        expected = 9000 / len(unknown)
        assert counts.sum() == 9000
        assert ((counts - expected).abs() < 5 * expected**0.5).all(), (row, counts)
