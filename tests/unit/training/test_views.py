from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elcrec.config import ViewConfig
from elcrec.training.views import ViewPlan, apply_plan

Check = Callable[[list[int], list[int]], bool]


def _views(rows: list[list[int]], seed: int, config: ViewConfig | None = None, window: int = 100) -> list[list[int]]:
    items = torch.tensor([item for row in rows for item in row])
    lengths = torch.tensor([len(row) for row in rows])
    generator = torch.Generator().manual_seed(seed)
    plan = ViewPlan.draw(lengths, config or ViewConfig(), generator)
    owners = torch.repeat_interleave(torch.arange(len(rows)), lengths)
    places = torch.cat([torch.arange(len(row)) for row in rows])
    viewed = apply_plan(plan, items, owners, places, generator).split(lengths.tolist())
    spans = zip(viewed, *plan.spans(window), strict=True)
    return [row[first : first + kept].tolist() for row, first, kept in spans]


def _is_crop(row: list[int], view: list[int]) -> bool:
    size = max(int(0.2 * len(row)), 1)
    return any(view == row[start : start + size] for start in range(len(row) - size + 1))


def _is_mask(row: list[int], view: list[int]) -> bool:
    if len(view) != len(row):
        return False
    kept = sum(a == b for a, b in zip(row, view, strict=True))
    return view.count(0) == int(0.7 * len(row)) and kept == len(row) - int(0.7 * len(row))


def _is_reorder(row: list[int], view: list[int]) -> bool:
    if sorted(view) != sorted(row):
        return False
    moved = [place for place, (a, b) in enumerate(zip(row, view, strict=True)) if a != b]
    return not moved or moved[-1] - moved[0] < max(int(0.2 * len(row)), 1)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.integers(0, 2**31))
def test_every_view_is_a_crop_a_mask_or_a_reorder_of_its_row(lengths: list[int], seed: int) -> None:
    rows = [list(range(100, 100 + length)) for length in lengths]
    for row, view in zip(rows, _views(rows, seed), strict=True):
        assert _is_crop(row, view) or _is_mask(row, view) or _is_reorder(row, view)


@pytest.mark.parametrize(("kind", "check"), [("crop", _is_crop), ("mask", _is_mask), ("reorder", _is_reorder)])
def test_each_operation_is_drawn_for_about_a_third_of_the_rows(kind: str, check: Check) -> None:
    rows = [list(range(1, 31))] * 3000
    share = sum(check(rows[0], view) for view in _views(rows, 5)) / len(rows)
    assert 0.29 < share < 0.38, kind


def test_crops_start_everywhere_and_as_often() -> None:
    row = list(range(1, 11))
    starts = [view[0] for view in _views([row] * 9000, 3) if len(view) == 2]
    counts = torch.bincount(torch.tensor(starts), minlength=11)[1:9]
    assert counts.min() > 250, counts
    assert counts.max() < 500, counts


def test_a_reorder_shuffles_its_run() -> None:
    config = ViewConfig(crop=1.0, mask=0.0, reorder=1.0)
    views = _views([[1, 2, 3, 4, 5, 6, 7, 8]] * 300, 1, config)
    shuffled = [view for view in views if any(b < a for a, b in pairwise(view))]
    assert 70 < len(shuffled) < 140, "a third of the rows are reordered as a whole"
    assert len({tuple(view) for view in shuffled}) > 60


def test_the_same_seed_gives_the_same_views_and_another_seed_others() -> None:
    rows = [list(range(1, 20))] * 50
    assert _views(rows, 1) == _views(rows, 1) != _views(rows, 2)


def test_a_view_keeps_the_last_items_that_the_window_holds() -> None:
    rows = [list(range(1, 31))] * 60
    for whole, cut in zip(_views(rows, 4), _views(rows, 4, window=5), strict=True):
        assert cut == whole[-5:]
