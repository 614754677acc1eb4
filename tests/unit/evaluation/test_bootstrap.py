import numpy as np
import pytest

from elcrec.evaluation import bootstrap as module
from elcrec.evaluation.bootstrap import Bootstrap, bootstrap
from elcrec.evaluation.metrics import gains, mean_metrics

RANKS = np.random.default_rng(0).geometric(0.03, 500).astype(np.int32)


def drawn(*, seed: int = 1, confidence: float = 0.95, **ranks: np.ndarray) -> Bootstrap:
    return bootstrap(ranks, samples=2000, confidence=confidence, seed=seed)


def test_means_are_the_metrics() -> None:
    assert drawn(model=RANKS).means["model"] == pytest.approx(mean_metrics(RANKS))


def test_the_interval_is_that_of_drawing_users_one_by_one() -> None:
    generator, gain = np.random.default_rng(5), gains(RANKS)["ndcg@20"]
    means = [gain[generator.integers(0, len(gain), len(gain))].mean() for _ in range(2000)]
    estimate = drawn(model=RANKS).estimate("model", "ndcg@20")
    low, high = np.quantile(means, [0.025, 0.975])
    assert [estimate.low, estimate.high] == pytest.approx([low, high], rel=0.03)
    assert estimate.low < estimate.mean < estimate.high


def test_a_model_does_not_differ_from_itself() -> None:
    delta = drawn(model=RANKS, baseline=RANKS).difference("model", "baseline", "hr@20")
    assert (delta.mean, delta.low, delta.high) == (0, 0, 0)


def test_differences_are_paired() -> None:
    better = np.maximum(RANKS - 1, 1)
    both = drawn(model=better, baseline=RANKS)
    delta = both.difference("model", "baseline", "ndcg@20")
    alone = both.estimate("model", "ndcg@20")
    assert delta.low > 0
    assert delta.high - delta.low < (alone.high - alone.low) / 2


def test_a_higher_confidence_widens_the_interval() -> None:
    narrow, wide = (drawn(model=RANKS, confidence=level).estimate("model", "hr@10") for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_the_seed_decides_the_draws() -> None:
    first, again, other = (drawn(model=RANKS, seed=seed).estimate("model", "hr@10") for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_drawing_in_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = drawn(model=RANKS).estimate("model", "mrr@20")
    monkeypatch.setattr(module, "_CELLS_AT_ONCE", 50)
    blocks = drawn(model=RANKS).estimate("model", "mrr@20")
    assert [blocks.low, blocks.high] == pytest.approx([whole.low, whole.high])
