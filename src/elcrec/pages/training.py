"""The training page: the content of the model folder in charts and tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from elcrec.data.dataset import SequenceData
from elcrec.evaluation.provenance import model_label
from elcrec.pages import training_charts
from elcrec.pages.provenance import known_settings, origin
from elcrec.pages.render import render
from elcrec.training.epoch_columns import SECONDS

_LATE = 0.9
"""If the best epoch is in this last part of all allowed epochs, more epochs may help."""

_ADDED = {"neighbours": "neighbours of items", "followers": "followers of items", "popularity": "late popularity"}
"""What may be added to scores when the last epoch is over, by its name in config.json."""


def write_training_page(
    path: Path, *, config: Mapping[str, Any], history: pd.DataFrame, data: SequenceData, trained_on: str
) -> None:
    """Write the page.

    Args:
        path: the file to write.
        config: the model's config.json.
        history: the columns of history.csv and the seconds of each epoch, one row per epoch.
        data: the sequences.
        trained_on: devices and processes, in words.
    """
    best = history[history["epoch"] == config["best_epoch"]].iloc[0]
    page = {
        "label": model_label(config),
        "config": config,
        "data": data,
        "history": history.astype(object).where(history.notna(), None),
        "best": best,
        "num_intents": _num_intents(history, config),
        "pace": float(history[SECONDS].median()),
        "seconds": float(history[SECONDS].sum()),
        "takeaways": _takeaways(config, history),
        "charts": _charts(config, history),
        "provenance": _provenance(config, trained_on),
        "parameters": yaml.safe_dump(known_settings(config), sort_keys=False),
    }
    render("training.html.jinja", path, page)


def _num_intents(history: pd.DataFrame, config: Mapping[str, Any]) -> int:
    """Return the number of intents, 0 for an objective without intents."""
    return int(config["train"]["intents"]["num_intents"]) if history["effective_intents"].notna().any() else 0


def _takeaways(config: Mapping[str, Any], history: pd.DataFrame) -> list[str]:
    """Return the main findings on the history, one sentence each."""
    best, epochs, wanted = config["best_epoch"], config["epochs"], config["train"]["epochs"]
    said = [f"Epoch {best} has the best validation NDCG@20; its weights are the model."]
    waited = f"the best was {epochs - best} epochs ago (patience {config['train']['patience']})"
    if epochs < wanted:
        said.append(f"Training stopped early, after {epochs} of at most {wanted} epochs: {waited}.")
    elif best > _LATE * wanted:
        said.append(f"All {wanted} epochs were used, and the best is among the last: more epochs may help.")
    else:
        said.append(f"All {wanted} epochs were used; {waited}.")
    tried = [name for name in _ADDED if name in config]
    if helped := [_ADDED[name] for name in tried if config[name]["strength"]]:
        reached = f"{config['valid']['ndcg@20']:.4f}"
        said.append(f"NDCG@20 is {reached} with what was added to scores after the last epoch: {', '.join(helped)}.")
    if useless := [_ADDED[name] for name in tried if not config[name]["strength"]]:
        said.append(f"Not added, as the validation NDCG@20 would not rise: {', '.join(useless)}.")
    lost = history.loc[~np.isfinite(history["loss"]), "epoch"]
    if len(lost):
        said.append(f"The loss is not finite from epoch {lost.iloc[0]} on: lower train.learning_rate.")
    return said


def _charts(config: Mapping[str, Any], history: pd.DataFrame) -> dict[str, str]:
    best = config["best_epoch"]
    drawn = {
        "loss": training_charts.loss_terms(history),
        "ndcg": training_charts.validation_curve(history, "NDCG@20", best),
        "hr": training_charts.validation_curve(history, "HR@20", best),
    }
    num_intents = _num_intents(history, config)
    if num_intents:
        drawn["intents"] = training_charts.effective_intents(history, num_intents)
    return drawn | {"pace": training_charts.pace(history, alone=num_intents > 0)}


def _provenance(config: Mapping[str, Any], trained_on: str) -> list[tuple[str, str]]:
    facts = [("sequences, md5", config["sequences_md5"]), ("trained on", trained_on), *origin(config).items()]
    return [(name.capitalize(), str(value)) for name, value in facts]
