import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from elcrec.data.ragged import Ragged
from elcrec.model.grouping import group_rows, group_steps

rows_of_items = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=60), min_size=1, max_size=30)


@given(rows_of_items)
def test_every_row_can_be_read_back_from_its_positions(rows: list[list[int]]) -> None:
    batch = group_rows(Ragged.from_rows(rows))
    flat = batch.items_N[batch.positions_M].tolist()
    assert flat == [item for row in rows for item in row]
    assert batch.row_M.bincount().tolist() == [len(row) for row in rows]
    assert int((batch.items_N != 0).sum()) == len(flat), "what is not an item is padding"


@given(rows_of_items)
def test_rows_are_right_aligned_in_blocks_that_tile_the_flat_array(rows: list[list[int]]) -> None:
    batch = group_rows(Ragged.from_rows(rows))
    edge = 0
    for group in batch.groups:
        block = slice(edge, edge + group.size)
        real = (batch.items_N[block] != 0).view(group.rows, group.length).int()
        assert batch.ages_N[block].tolist() == [*range(group.length - 1, -1, -1)] * group.rows
        assert (real.diff(dim=1) >= 0).all(), "padding stands left of the items"
        edge = block.stop
    assert edge == len(batch.items_N)
    last = batch.positions_M[batch.lengths_B.cumsum(0) - 1]
    assert batch.items_N[last].tolist() == [row[-1] for row in rows]


def test_where_rows_are_filled_what_sees_no_item_sees_its_whole_row() -> None:
    rows = Ragged.from_rows([[7, 8], [5, 0, 6, 4]]).filled(4)
    np.testing.assert_array_equal(rows.values, [0, 0, 7, 8, 5, 0, 6, 4])
    (mask_BLL,) = group_rows(rows, sees_all=True).masks(torch.float32)
    sees = (mask_BLL == 0).int().tolist()
    assert sees[0] == [[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert sees[1] == [[1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]]


def test_padding_stays_under_a_quarter_on_skewed_lengths() -> None:
    lengths = np.random.default_rng(0).geometric(0.15, 2000).clip(1, 50)
    batch = group_rows(Ragged.from_rows([[1] * int(length) for length in lengths]))
    assert len(batch.items_N) < 1.25 * lengths.sum()


@given(st.lists(rows_of_items, min_size=1, max_size=4))
def test_steps_laid_out_together_equal_steps_laid_out_alone(steps: list[list[list[int]]]) -> None:
    rows = [row for step in steps for row in step]
    together = group_steps(Ragged.from_rows(rows), [len(step) for step in steps])
    for step, batch in zip(steps, together, strict=True):
        flat = batch.items_N[batch.positions_M].tolist()
        assert flat == [item for row in step for item in row]
        assert batch.lengths_B.tolist() == [len(row) for row in step]
        assert batch.row_M.tolist() == [index for index, row in enumerate(step) for _ in row]
        assert sum(group.size for group in batch.groups) == len(batch.items_N) == len(batch.ages_N)
        assert batch.order_B[batch.slots_B].tolist() == [*range(len(step))]
        ends = batch.positions_M[batch.lengths_B.cumsum(0) - 1]
        assert (batch.ages_N[ends] == 0).all(), "rows are right-aligned"
