"""Claims about full ranking; the reference is written from the definition, in plain Python."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elcrec.data.ragged import Ragged
from elcrec.evaluation import ranking
from elcrec.evaluation.metrics import MISS, mean_metrics
from elcrec.evaluation.popularity import rank_by_popularity
from elcrec.evaluation.ranking import best_items, mask_history, rank_targets

Case = tuple[torch.Tensor, torch.Tensor, list[list[int]], list[int]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Whole numbers as vectors, so that scores are exact and ties are common; targets may be repeats."""
    users, items = draw(st.integers(1, 7)), draw(st.integers(1, 12))
    vector = st.lists(st.integers(-2, 2), min_size=2, max_size=2)
    users_ND = torch.tensor(draw(st.lists(vector, min_size=users, max_size=users)), dtype=torch.float32)
    items_VD = torch.tensor(draw(st.lists(vector, min_size=items + 1, max_size=items + 1))).float()
    item = st.integers(1, items)
    histories = draw(st.lists(st.lists(item, max_size=6), min_size=users, max_size=users))
    return users_ND, items_VD, histories, draw(st.lists(item, min_size=users, max_size=users))


def brute_force_scores(case: Case, user: int) -> dict[int, float]:
    """Scores of all real items; excluded ones are -inf."""
    users_ND, items_VD, histories, _ = case
    return {
        item: -math.inf if item in histories[user] else float(users_ND[user] @ items_VD[item])
        for item in range(1, len(items_VD))
    }


def brute_force_rank(scores: dict[int, float], target: int) -> int:
    """One more than the number of other items that score at least as well as the target, a miss if excluded."""
    if scores[target] == -math.inf:
        return MISS
    return 1 + sum(score >= scores[target] for item, score in scores.items() if item != target)


def ranked(case: Case, **options: int | None) -> tuple[list[int], list[list[int]]]:
    users_ND, items_VD, histories, targets = case
    found = rank_targets(users_ND, items_VD, Ragged.from_rows(histories), np.array(targets), **options)
    return found.ranks.tolist(), found.top_items.tolist()


@settings(deadline=None)
@given(cases())
def test_ranks_equal_a_brute_force_ranker(case: Case) -> None:
    expected = [brute_force_rank(brute_force_scores(case, user), t) for user, t in enumerate(case[3])]
    assert ranked(case)[0] == expected


def test_an_excluded_target_is_a_miss_whatever_the_size_of_the_catalogue() -> None:
    ranks, _ = ranked((torch.ones(1, 2), torch.ones(4, 2), [[2]], [2]))
    assert set(mean_metrics(np.array(ranks)).values()) == {0.0}


@settings(deadline=None)
@given(cases(), st.integers(1, 15))
def test_top_items_hold_the_best_scores_and_neither_padding_nor_history(case: Case, k: int) -> None:
    _, top_items = ranked(case, top_k=k)
    for user, items in enumerate(top_items):
        scores = brute_force_scores(case, user)
        best = sorted((s for s in scores.values() if s > -math.inf), reverse=True)[:k]
        real = [item for item in items if item]
        assert [scores[item] for item in real] == best
        assert len(set(real)) == len(real)
        assert items == real + [0] * (len(items) - len(real))


@settings(deadline=None)
@given(cases(), st.integers(1, 9))
def test_the_block_size_changes_nothing(case: Case, block: int) -> None:
    ranks, top_items = ranked(case, block_users=block)
    whole_ranks, whole_top = ranked(case, block_users=100)
    assert ranks == whole_ranks
    assert [sorted(items) for items in top_items] == [sorted(items) for items in whole_top]


@pytest.mark.parametrize(("asked", "blocks"), [(None, [128, 128, 44]), (200, [200, 100])])
def test_the_device_determines_the_default_block(
    asked: int | None, blocks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def masked(scores_BV: torch.Tensor, histories: Ragged) -> torch.Tensor:
        sizes.append(len(scores_BV))
        return mask_history(scores_BV, histories)

    monkeypatch.setattr(ranking, "mask_history", masked)
    ranked((torch.ones(300, 2), torch.ones(9, 2), [[1]] * 300, [2] * 300), block_users=asked)
    assert sizes == blocks


@settings(deadline=None)
@given(cases())
def test_a_target_in_the_history_is_missed(case: Case) -> None:
    _, _, histories, targets = case
    ranks, _ = ranked(case)
    assert all(rank == MISS for rank, h, t in zip(ranks, histories, targets, strict=True) if t in h)


@settings(deadline=None)
@given(cases())
def test_popularity_ranks_equal_a_ranking_by_count(case: Case) -> None:
    users_ND, items_VD, histories, targets = case
    counts = np.abs(items_VD[:, 0].numpy()).astype(np.int64)
    by_score = (torch.ones(len(users_ND), 1), torch.from_numpy(counts[:, None]).float(), histories, targets)
    for block in (2, None):
        ranks = rank_by_popularity(counts, Ragged.from_rows(histories), np.array(targets), block_users=block)
        assert ranks.tolist() == ranked(by_score)[0]


def test_equal_scores_everywhere_rank_the_target_last() -> None:
    case = (torch.zeros(1, 4), torch.zeros(11, 4), [[3]], [5])
    assert ranked(case)[0] == [9]


def test_a_diverged_model_misses_every_target() -> None:
    case = (torch.full((1, 2), torch.nan), torch.ones(11, 2), [[3]], [5])
    assert ranked(case)[0] == [MISS]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_blocks_agree_on_real_numbers(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    users_ND, items_VD = torch.randn(40, 8, generator=generator), torch.randn(200, 8, generator=generator)
    case = (users_ND, items_VD, [[1, 2]] * 40, list(range(3, 43)))
    assert ranked(case, block_users=7) == ranked(case, block_users=40)


def test_no_users_give_no_ranks() -> None:
    found = rank_targets(torch.zeros(0, 2), torch.zeros(5, 2), Ragged.from_rows([]), np.zeros(0, np.int64))
    assert found.ranks.shape == (0,)
    assert found.top_items.shape == (0, 4)


def test_the_best_of_a_catalogue_of_many_tiles_are_those_of_a_full_sort() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 2000, (40, 3001), generator=generator).float()
    scores[:, 0], scores[3], scores[4, 1:2990] = -torch.inf, -torch.inf, -torch.inf
    best = best_items(scores, 20)
    found = scores.gather(1, best)
    assert torch.equal(found, scores.sort(dim=1, descending=True).values[:, :20])
    assert not best[3].any(), "nothing is left to recommend"
    assert int((best[4] == 0).sum()) == 20 - 11
    assert all(len(set(row.tolist())) == 20 for row in best[5:])
