import math

import pytest

from elcrec.serving.shadow import overlap, rank_biased_overlap


@pytest.mark.parametrize(
    ("one", "other", "k", "expected"),
    [
        ("abcd", "abcd", 4, 1.0),
        ("abcd", "dcba", 4, 1.0),
        ("abcd", "cdef", 4, 0.5),
        ("abcd", "wxyz", 4, 0.0),
        ("ab", "abcd", 4, 0.5),
        ("", "", 4, 1.0),
        ("", "ab", 4, 0.0),
    ],
)
def test_the_overlap_is_the_share_of_the_places_that_hold_items_of_both(
    one: str, other: str, k: int, expected: float
) -> None:
    assert overlap(one, other, k) == expected


def test_rank_biased_overlap_is_1_for_the_same_list_and_0_for_another_one() -> None:
    assert rank_biased_overlap("abcdefghij", "abcdefghij") == pytest.approx(1)
    assert rank_biased_overlap("abcde", "vwxyz") == 0
    assert (rank_biased_overlap("", ""), rank_biased_overlap("", "a")) == (1, 0)


def test_rank_biased_overlap_is_that_of_the_paper_s_formula() -> None:
    # Agreements at depths 1 to 4 are 0, 1/2, 2/3, 3/4: half of the weight beyond depth 4 is extrapolated at 3/4.
    p, agreements = 0.9, (0, 1 / 2, 2 / 3, 3 / 4)
    expected = 3 / 4 * p**4 + (1 - p) / p * math.fsum(each * p**d for d, each in enumerate(agreements, 1))

    assert rank_biased_overlap("abcd", "bxca") == pytest.approx(expected)


def test_a_swap_at_the_top_counts_for_more_than_one_at_the_bottom() -> None:
    assert rank_biased_overlap("abcdef", "bacdef") < rank_biased_overlap("abcdef", "abcdfe") < 1
