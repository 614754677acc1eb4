import math

import numpy as np
import pytest

from elcrec.evaluation.metrics import gains, mean_metrics


def test_metrics_of_one_user_follow_their_definitions() -> None:
    metrics = mean_metrics(np.array([3]))
    assert metrics["hr@5"] == metrics["hr@20"] == 1
    assert metrics["ndcg@5"] == pytest.approx(1 / math.log2(4))
    assert metrics["mrr@10"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("k", [5, 10, 20])
def test_the_cutoff_itself_still_counts(k: int) -> None:
    table = gains(np.array([k, k + 1]))
    for name in ("hr", "ndcg", "mrr"):
        assert table[f"{name}@{k}"][0] > 0
        assert table[f"{name}@{k}"][1] == 0


def test_no_users_give_zeros() -> None:
    assert set(mean_metrics(np.array([], np.int32)).values()) == {0.0}
