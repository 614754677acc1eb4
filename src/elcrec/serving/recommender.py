"""Raw histories in, raw recommendations out: exact top-k over the whole catalogue.

Axes: `B` requests, `V` items, `D` hidden size, `K` intents, `k` items of an answer.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from elcrec.artifacts import read_json
from elcrec.data.dataset import PADDING
from elcrec.data.ragged import Ragged
from elcrec.errors import UserError
from elcrec.model.io import load_model
from elcrec.model.sequence_model import Encoded, SequenceModel
from elcrec.serving.bundle import Manifest, verify_bundle
from elcrec.serving.catalogue import Catalogue, load_catalogue
from elcrec.serving.topk import Scores, top_k

_NO_INTENT = -1
_BLOCK = 256
_FEW = 3
"""Rows up to which encoding them one by one is faster than laying them out as a batch."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is asked for one user.

    Attributes:
        history: raw item ids, oldest first; none of them is recommended.
        k: how many items, at least 1.
        allow: raw ids that may be recommended; `None` allows all.
        deny: raw ids that must not be.
        seen: raw ids that the user met before the history; not read by the model, and not recommended.
    """

    history: Sequence[str]
    k: int
    allow: Collection[str] | None = None
    deny: Collection[str] = ()
    seen: Collection[str] = ()


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The answer for one user.

    Attributes:
        item_ids: raw ids, best first; fewer than k where history and filters leave fewer items.
        scores: dot products of the model, or, in a fallback, each item's share of training interactions.
        intent: the nearest intent centre of her history; `None` where the model or the user has none.
        known: items of the history that the model knows.
        skipped: items of the history that it does not know.
        fallback: no item of the history was known, so these are the most popular items that the filters leave.
    """

    item_ids: list[str]
    scores: list[float]
    intent: int | None
    known: int
    skipped: int
    fallback: bool


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """Items by index, best first, [B, k] each; the score is -inf where no item is left. Nearest intents, [B]."""

    scores: npt.NDArray[np.float32]
    items: npt.NDArray[np.int64]
    intents: npt.NDArray[np.int64]


class Recommender:
    """A bundle in memory, ready to rank."""

    def __init__(
        self, model: SequenceModel, catalogue: Catalogue, manifest: Manifest, typical: Mapping[int, list[str]]
    ) -> None:
        """Compute once what serves every request: item vectors, what depends on the weights alone, popularity.

        Args:
            model: ready to encode.
            catalogue: its items.
            manifest: of the bundle that it came from.
            typical: raw ids of each intent's typical items, as its evaluation found them.
        """
        self._typical = typical
        self.manifest = manifest
        self.catalogue = catalogue
        self._model = model.eval()
        with torch.inference_mode():
            # Rows of a matrix product this flat are read faster the other way round.
            self._items_DV = model.item_vectors().T.contiguous()
            self._half_norms_K = None if model.intents is None else model.intents.half_norms()
        self._popular = np.argsort(-catalogue.counts, kind="stable") + 1
        self._shares = np.concatenate(([0.0], catalogue.counts / max(1, catalogue.counts.sum())))

    @classmethod
    def load(cls, bundle: Path) -> Self:
        """Verify and load a bundle.

        Raises:
            UserError: the bundle is not sound (see `verify_bundle`), or its parts do not fit each other.
        """
        manifest = verify_bundle(bundle)
        model, catalogue = load_model(bundle), load_catalogue(bundle / "items.parquet")
        if model.num_items != len(catalogue):
            what = f"the model knows {model.num_items} items, items.parquet {len(catalogue)}"
            raise UserError(what, where=bundle, fix="push the model again")
        return cls(model, catalogue, manifest, _typical_items(bundle / "intents.json"))

    def typical_items(self, intent: int) -> list[str]:
        """Raw ids of the items that mark an intent out; none where no test user held it."""
        return self._typical.get(intent, [])

    def popular_items(self, k: int) -> npt.NDArray[np.int64]:
        """Return the indices of the k most popular items, best first."""
        return self._popular[:k]

    def popularity(self, items: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return each item's share of the training interactions."""
        return self._shares[items]

    @staticmethod
    def num_blocks(rows: int) -> int:
        """Return how many blocks `rank` yields for so many rows."""
        return -(-rows // _BLOCK)

    def recommend(self, queries: Sequence[Query]) -> list[Recommendation]:
        """Answer queries, which may differ in everything, in one pass: one encoding, one matrix product."""
        histories = [self.catalogue.known(query.history) for query in queries]
        warm = [row for row, history in enumerate(histories) if history]
        ranked = self._ranked([histories[row] for row in warm], [queries[row] for row in warm])
        return [
            self._answer(query, len(history), next(ranked) if history else self._popular_items(query))
            for query, history in zip(queries, histories, strict=True)
        ]

    def rank(self, histories: Ragged, k: int, seen: Ragged | None = None) -> Iterator[Ranked]:
        """Rank known histories, none of them empty, a block of rows at a time.

        Args:
            histories: item indices, B rows.
            k: how many items, from 1 to V.
            seen: item indices that are not recommended either, B rows.
        """
        for start in range(0, len(histories), _BLOCK):
            rows = slice(start, min(start + _BLOCK, len(histories)))
            yield self._rank_block(histories.part(rows), k, seen=None if seen is None else seen.part(rows))

    def _ranked(self, histories: list[list[int]], queries: list[Query]) -> Iterator[tuple[list[int], list[float], int]]:
        """Yield item indices, scores and intent of each query."""
        for start in range(0, len(queries), _BLOCK):
            block = queries[start : start + _BLOCK]
            k = min(max(query.k for query in block), len(self.catalogue))
            ranked = self._rank_block(Ragged.from_rows(histories[start : start + _BLOCK]), k, block)
            left = np.isfinite(ranked.scores).sum(1).tolist()
            for row, (query, number) in enumerate(zip(block, left, strict=True)):
                best = slice(min(query.k, number))
                yield ranked.items[row, best].tolist(), ranked.scores[row, best].tolist(), int(ranked.intents[row])

    @torch.inference_mode()
    def _rank_block(
        self, histories: Ragged, k: int, queries: Sequence[Query] = (), seen: Ragged | None = None
    ) -> Ranked:
        encoded = self._encode(histories)
        scores_BV = (encoded.vectors @ self._items_DV).numpy()
        scores_BV[:, PADDING] = -np.inf
        for met in (histories, seen) if seen is not None else (histories,):
            scores_BV[met.owners, met.values] = -np.inf
        for row, query in enumerate(queries):
            self._filter(scores_BV[row], query)
        scores, items = top_k(scores_BV, k)
        return Ranked(scores=scores, items=items, intents=encoded.intents.numpy())

    def _encode(self, histories: Ragged) -> Encoded:
        window = self._model.config.encoder.window
        if len(histories) > _FEW:
            return self._model.encode_rows(self._model.lay_out(histories.tail(window)))
        recent = [histories.row(row)[-window:].astype(np.int64) for row in range(len(histories))]
        alone = [self._model.encode_alone(torch.from_numpy(items), self._half_norms_K) for items in recent]
        return Encoded(
            vectors=torch.cat([one.vectors for one in alone]), intents=torch.cat([one.intents for one in alone])
        )

    def _filter(self, scores_V: Scores, query: Query) -> None:
        """Put what the query does not allow below everything, in place."""
        if query.allow is not None:
            allowed = self.catalogue.known(query.allow)
            kept = scores_V[allowed]
            scores_V.fill(-np.inf)
            scores_V[allowed] = kept
        for unwanted in (query.deny, query.seen):
            if unwanted:
                scores_V[self.catalogue.known(unwanted)] = -np.inf

    def _popular_items(self, query: Query) -> tuple[list[int], list[float], int]:
        wanted = np.ones(len(self.catalogue) + 1, np.bool_)
        if query.allow is not None:
            wanted[:] = False
            wanted[self.catalogue.known(query.allow)] = True
        wanted[self.catalogue.known([*query.deny, *query.seen])] = False
        best = self._popular[wanted[self._popular]][: query.k]
        return best.tolist(), self._shares[best].tolist(), _NO_INTENT

    def _answer(self, query: Query, known: int, found: tuple[list[int], list[float], int]) -> Recommendation:
        items, scores, intent = found
        return Recommendation(
            item_ids=[self.catalogue.ids[item] for item in items],
            scores=scores,
            intent=None if intent == _NO_INTENT else intent,
            known=known,
            skipped=len(query.history) - known,
            fallback=not known,
        )


def _typical_items(path: Path) -> dict[int, list[str]]:
    found = read_json(path)["intents"]
    return {each["intent"]: [item["item_id"] for item in each["top_items"]] for each in found}
