"""Raw histories in, raw recommendations out: exact top-k over the whole catalogue.

Axes: `B` users, `V` items, `D` hidden size.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import torch

from elcrec.artifacts import read_json
from elcrec.data.ragged import Ragged
from elcrec.errors import UserError
from elcrec.evaluation.ranking import mask_history
from elcrec.model.elcrec import SequenceModel
from elcrec.model.io import load_model
from elcrec.serving.bundle import Manifest, verify_bundle
from elcrec.serving.catalogue import Catalogue, KnownHistories, load_catalogue
from elcrec.serving.topk import top_k

_NO_INTENT = -1


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The answer for one user.

    Attributes:
        item_ids: raw ids, best first; fewer than k where the history leaves fewer items.
        scores: dot products of the model, or, in a fallback, each item's share of training interactions.
        intent: the nearest intent centre of her history; `None` where the model or the user has none.
        known: items of the history that the model knows.
        skipped: items of the history that it does not know.
        fallback: no item of the history was known, so these are the most popular items.
    """

    item_ids: list[str]
    scores: list[float]
    intent: int | None
    known: int
    skipped: int
    fallback: bool


class Recommender:
    """A bundle in memory, ready to rank."""

    def __init__(
        self, model: SequenceModel, catalogue: Catalogue, manifest: Manifest, typical: Mapping[int, list[str]]
    ) -> None:
        """Keep the item vectors and the order of popularity, which serve every request.

        Args:
            model: ready to encode.
            catalogue: its items.
            manifest: of the bundle that it came from.
            typical: raw ids of each intent's typical items, as its evaluation found them.
        """
        self._typical = typical
        self.manifest = manifest
        self.catalogue = catalogue
        self._model = model
        with torch.inference_mode():
            self._items_VD = model.item_vectors()
        self._popular = np.argsort(-catalogue.counts, kind="stable")
        self._shares = catalogue.counts / max(1, catalogue.counts.sum())

    @classmethod
    def load(cls, bundle: Path, *, device: str = "cpu") -> Self:
        """Verify and load a bundle.

        Raises:
            UserError: the bundle is not sound (see `verify_bundle`), or its parts do not fit each other.
        """
        manifest = verify_bundle(bundle)
        model, catalogue = load_model(bundle, device=device), load_catalogue(bundle / "items.parquet")
        if model.num_items != len(catalogue):
            what = f"the model knows {model.num_items} items, items.parquet {len(catalogue)}"
            raise UserError(what, where=bundle, fix="push the model again")
        return cls(model, catalogue, manifest, _typical_items(bundle / "intents.json"))

    def typical_items(self, intent: int) -> list[str]:
        """Raw ids of the items that mark an intent out; none where no test user held it."""
        return self._typical.get(intent, [])

    def recommend(self, histories: Sequence[Sequence[str]], k: int, *, block_users: int = 1024) -> list[Recommendation]:
        """Rank the items outside each history, in blocks of `block_users` to bound memory.

        Args:
            histories: raw item ids, oldest first, a row a user.
            k: how many items; from 1 to the size of the catalogue.
            block_users: users ranked at a time.

        Raises:
            UserError: `k` is out of range.
        """
        if not 1 <= k <= len(self.catalogue):
            raise UserError(f"k is {k}", fix=f"ask for 1 to {len(self.catalogue)} items")
        blocks = (histories[at : at + block_users] for at in range(0, len(histories), block_users))
        return [answer for block in blocks for answer in self._block(self._indices(block), k)]

    def _indices(self, histories: Sequence[Sequence[str]]) -> KnownHistories:
        offsets = np.concatenate(([0], np.cumsum([len(row) for row in histories], dtype=np.int64)))
        flat = pa.array([item for row in histories for item in row], pa.string())
        return self.catalogue.histories(flat, offsets)

    def _block(self, block: KnownHistories, k: int) -> Iterator[Recommendation]:
        ranked = self._rank(block.histories, k)
        for row, skipped in enumerate(block.skipped.tolist()):
            known = int(block.histories.lengths[row])
            items, scores, intent = next(ranked) if known else self._fallback(k)
            yield Recommendation(
                item_ids=self.catalogue.item_ids.take(pa.array(items - 1)).to_pylist(),
                scores=scores,
                intent=None if intent == _NO_INTENT else intent,
                known=known,
                skipped=skipped,
                fallback=not known,
            )

    @torch.inference_mode()
    def _rank(self, histories: Ragged, k: int) -> Iterator[tuple[np.ndarray, list[float], int]]:
        """Yield item indices, scores and intent of each row that is not empty."""
        histories = histories.take(np.flatnonzero(histories.lengths))
        encoded = self._model.encode(histories)
        scores_BV = mask_history(encoded.vectors @ self._items_VD.T, histories)
        values, indices = top_k(scores_BV, k)
        rows = zip(values.cpu().numpy(), indices.cpu().numpy(), encoded.intents.tolist(), strict=True)
        for row_values, row_indices, intent in rows:
            allowed = np.isfinite(row_values)
            yield row_indices[allowed], row_values[allowed].tolist(), intent

    def _fallback(self, k: int) -> tuple[np.ndarray, list[float], int]:
        best = self._popular[:k]
        return best + 1, self._shares[best].tolist(), _NO_INTENT


def _typical_items(path: Path) -> dict[int, list[str]]:
    found = read_json(path)["intents"]
    return {each["intent"]: [item["item_id"] for item in each["top_items"]] for each in found}
