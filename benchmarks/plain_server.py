"""The baseline of the serving benchmark: `python -m benchmarks.plain_server STORE PORT`.

A straightforward first version: a route that asks Feast for one user, pads the history to the window, runs the model,
sorts the scores of the whole catalogue and lets the framework validate and serialise. It has the same adapter, weights
and server program, and one thread.
"""

import sys
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from elcrec.adapters.store import open_store
from elcrec.data.ragged import Ragged
from elcrec.model.grouping import group_rows
from elcrec.model.io import load_model
from elcrec.process import set_up_process
from elcrec.serving.catalogue import load_catalogue
from elcrec.serving.ports import FeatureStore


class Ask(BaseModel):
    """A request for recommendations."""

    user_id: str
    k: int = 10


class Item(BaseModel):
    """One recommendation."""

    item_id: str
    score: float


class Answer(BaseModel):
    """Recommendations and the intent behind them."""

    items: list[Item]
    intent: int


class Ranker:
    """Ranks for one user at a time, padded to the window."""

    def __init__(self, bundle: Path) -> None:
        """Load a bundle."""
        self._model = load_model(bundle)
        self._item_ids = load_catalogue(bundle / "items.parquet").item_ids.to_pylist()
        self._index = {item_id: index for index, item_id in enumerate(self._item_ids, start=1)}

    @torch.inference_mode()
    def rank(self, history: list[str], k: int) -> Answer:
        """Return the k best items outside the history."""
        window = self._model.config.encoder.window
        known = [self._index[item] for item in history if item in self._index][-window:]
        padded = [0] * (window - len(known)) + known
        states = self._model.encoder(group_rows(Ragged.from_rows([padded])))
        scores = self._model.item_vectors() @ states[-1]
        scores[[0, *known]] = -torch.inf
        best = torch.argsort(scores, descending=True)[:k]
        intents = self._model.intents
        intent = -1 if intents is None else int(intents.nearest(states.mean(0, keepdim=True)))
        items = [Item(item_id=self._item_ids[i - 1], score=float(scores[i])) for i in best.tolist()]
        return Answer(items=items, intent=intent)


def application(ranker: Ranker, features: FeatureStore, service: str) -> FastAPI:
    """Return the routes."""
    app = FastAPI()

    @app.post("/recommend")
    def recommend(ask: Ask) -> Answer:
        (user,) = features.users([ask.user_id], service=service)
        return ranker.rank(user.item_ids if user else [], ask.k)

    return app


def main() -> None:
    """Serve until killed."""
    set_up_process()
    torch.set_num_threads(1)
    store = open_store(Path(sys.argv[1]))
    champion = store.registry.champion("elcrec")
    assert champion is not None
    app = application(Ranker(champion.bundle), store.features, "elcrec_v1")
    uvicorn.run(app, port=int(sys.argv[2]), access_log=False, loop="uvloop", http="httptools")


if __name__ == "__main__":
    main()
