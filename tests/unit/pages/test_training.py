"""The findings of the training page on a history."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from elcrec.config import TrainConfig, to_dict
from elcrec.pages.training import write_training_page
from tests.unit.training.helpers import ring_data


def history(epochs: int, *, every: int = 1, intents: bool = True) -> pd.DataFrame:
    """A loss that falls and a validation that rises, measured every so many epochs."""
    epoch = np.arange(1, epochs + 1)
    measured = np.where(epoch % every == 0, epoch, np.nan)
    extra = 0.25 if intents else np.nan
    table = {"epoch": epoch, "loss": 1 / epoch, "next_item": 0.5 / epoch, "sequence": extra, "intent": extra}
    table |= {"cluster": extra, "valid_ndcg@20": measured / 100, "valid_hr@20": measured / 10}
    table |= {"effective_intents": measured if intents else np.nan, "seconds": 2.0}
    return pd.DataFrame(table)


def page(path: Path, rows: pd.DataFrame, config: TrainConfig, **facts: Any) -> str:
    """Write the page of a training whose best epoch is the last measured one."""
    measured = int(rows.dropna(subset="valid_ndcg@20")["epoch"].max())
    document = {"train": to_dict(config), "sequences_md5": "ab" * 16, "git_revision": "cd" * 20, "seconds": 6.0}
    document |= {"epochs": len(rows), "best_epoch": measured} | facts
    write_training_page(
        path / "page.html", config=document, history=rows, data=ring_data(120), trained_on="CPU, 1 process"
    )
    return (path / "page.html").read_text(encoding="utf-8")


def test_it_names_the_best_epoch_and_where_the_model_came_from(tmp_path: Path) -> None:
    text = page(tmp_path, history(6, every=2), TrainConfig(epochs=6, eval_every=2, seed=5))
    assert "Epoch 6 has the best validation NDCG@20" in text
    assert text.count("epoch 6: 0.0600") == 1
    for fact in ("120 users, 40 items", "ab" * 16, "cd" * 20, "seed 5", "CPU, 1 process", "eval_every: 2"):
        assert fact in text


@pytest.mark.parametrize(
    ("config", "best", "said"),
    [
        (TrainConfig(epochs=9, patience=3), 3, "stopped early, after 6 of at most 9 epochs: the best was 3 epochs ago"),
        (TrainConfig(epochs=6), 6, "more epochs may help"),
        (TrainConfig(epochs=6), 2, "All 6 epochs were used; the best was 4 epochs ago"),
    ],
)
def test_it_reports_how_training_ended(tmp_path: Path, config: TrainConfig, best: int, said: str) -> None:
    assert said in page(tmp_path, history(6), config, best_epoch=best)


def test_it_says_what_is_added_to_scores_and_what_is_not(tmp_path: Path) -> None:
    facts = {
        "neighbours": {"strength": 16, "ndcg": 0.0709},
        "followers": {"strength": 0, "ndcg": 0.0709},
        "popularity": {"strength": 0.5, "ndcg": 0.0711},
        "valid": {"ndcg@20": 0.0712},
    }
    text = page(tmp_path, history(6), TrainConfig(epochs=6), **facts)
    assert "0.0712 with what was added to scores after the last epoch: neighbours of items, late popularity." in text
    assert "Not added, as the validation NDCG@20 would not rise: followers of items." in text


def test_of_a_model_of_vectors_alone_it_says_nothing_of_additions(tmp_path: Path) -> None:
    text = page(tmp_path, history(6), TrainConfig(epochs=6))
    assert "added" not in text


def test_a_loss_that_is_not_finite_is_reported_and_left_out_of_the_chart(tmp_path: Path) -> None:
    rows = history(6)
    rows.loc[3:, ["loss", "next_item"]] = np.nan, np.inf
    assert "not finite from epoch 4 on" in page(tmp_path, rows, TrainConfig(epochs=6), best_epoch=2)


def test_one_epoch_without_intents_is_a_page_without_them(tmp_path: Path) -> None:
    text = page(tmp_path, history(1, intents=False), TrainConfig(epochs=1).as_baseline())
    assert "Training of SASRec" in text
    assert "Effective" not in text
