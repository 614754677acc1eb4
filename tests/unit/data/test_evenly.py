import pytest

from elcrec.data.evenly import evenly_spread


@pytest.mark.parametrize(("total", "most"), [(0, 5), (1, 5), (5, 5), (4, 5), (1001, 2000), (1001, 1001)])
def test_few_rows_are_all_taken(total: int, most: int) -> None:
    assert evenly_spread(total, most).tolist() == list(range(total))


@pytest.mark.parametrize(("total", "most", "expected"), [(9, 3, [0, 4, 8]), (10, 3, [0, 4, 9]), (100, 2, [0, 99])])
def test_of_many_some_are_taken_from_the_first_to_the_last(total: int, most: int, expected: list[int]) -> None:
    assert evenly_spread(total, most).tolist() == expected
