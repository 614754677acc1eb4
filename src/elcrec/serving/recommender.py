"""Raw histories in, raw recommendations out: top-k over the whole catalogue, exact unless an index is asked for.

Axes: `B` requests, `V` items, `D` hidden size, `K` intents, `k` items of an answer.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from elcrec.config import RulesConfig, SearchConfig
from elcrec.data.dataset import PADDING
from elcrec.data.ragged import Ragged
from elcrec.data.split_points import DISLIKED
from elcrec.errors import UserError
from elcrec.model.io import load_model
from elcrec.model.sequence_model import Encoded, SequenceModel
from elcrec.ranking.bundled import read_facts, read_rules, read_search
from elcrec.ranking.chances import Chances
from elcrec.ranking.item_facts import ItemFacts, align
from elcrec.ranking.item_index import ItemIndex
from elcrec.ranking.items import item_intents
from elcrec.ranking.new_items import read_new_items
from elcrec.ranking.rules import Picked, Rules
from elcrec.ranking.topk import Scores, top_k
from elcrec.serving.bundle import Manifest, verify_bundle
from elcrec.serving.catalogue import Catalogue, load_catalogue
from elcrec.serving.found_intents import FoundIntent, read_intents
from elcrec.serving.new_items import with_new_items
from elcrec.serving.reasons import Reason, fall_without

_NO_INTENT = -1
_BLOCK = 256
_FEW = 3
"""Number of rows up to which it is faster to take them one by one than as a batch."""
_MOST_MET = 1000
"""Largest number of extra candidates asked of an index to make up for items that the user has met."""
_LEAST_SHARE = 1e-12
"""Share of an item without training interactions, positive so that its logarithm is finite."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """A query for one user.

    Attributes:
        history: raw item ids, oldest first; none of them is recommended unless the bundle allows repeats.
        k: how many items, at least 1.
        allow: raw ids that may be recommended; `None` allows all.
        deny: raw ids that must not be recommended.
        categories: categories that may be recommended; `None` allows all, and items without a category.
        deny_categories: categories that must not be recommended.
        seen: raw ids of seen items; the model does not read them, and they are not recommended.
        explain: whether the answer names the items of the history that contribute to each score.
    """

    history: Sequence[str]
    k: int
    allow: Collection[str] | None = None
    deny: Collection[str] = ()
    categories: Collection[str] | None = None
    deny_categories: Collection[str] = ()
    seen: Collection[str] = ()
    explain: bool = False


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The answer for one user.

    Attributes:
        item_ids: raw ids, best first; fewer than k if history and filters leave fewer items.
        scores: of the model, or, in a fallback, each item's share of training interactions.
        intent: the nearest intent centre of the history; `None` if the model has no intents or the user no known item.
        known: items of the history that the model knows.
        skipped: items of the history that it does not know.
        fallback: whether no item of the history was known, so that these are the most popular items that the filters
            leave.
        propensities: chance with which each item was drawn for its place; `None` if the rules do not explore.
        reasons: the items that contribute most to each score; `None` if not asked for or nothing is known.
        new: which items have a given vector and were not trained; `None` if the bundle has no such items.
    """

    item_ids: list[str]
    scores: list[float]
    intent: int | None
    known: int
    skipped: int
    fallback: bool
    propensities: list[float] | None = None
    reasons: list[list[Reason]] | None = None
    new: list[bool] | None = None

    @property
    def policy(self) -> str:
        """How the items were chosen: `model` or `popular`, with `+exploration` if some places were drawn at random."""
        kind = "popular" if self.fallback else "model"
        return kind if self.propensities is None else f"{kind}+exploration"


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """Items by index, best first, with their propensities, [B, k] each; the score is -inf if no item is left.

    Nearest intents, [B].
    """

    scores: npt.NDArray[np.float32]
    items: npt.NDArray[np.int64]
    propensities: npt.NDArray[np.float64]
    intents: npt.NDArray[np.int64]

    def row(self, row: int, best: slice) -> Picked:
        """Return the first places of one row."""
        return Picked(
            items=self.items[row, best], scores=self.scores[row, best], propensities=self.propensities[row, best]
        )


class Recommender:
    """A bundle in memory, ready to rank."""

    def __init__(
        self,
        model: SequenceModel,
        catalogue: Catalogue,
        manifest: Manifest,
        intents: Mapping[int, FoundIntent],
        *,
        rules: RulesConfig | None = None,
        facts: ItemFacts | None = None,
        new_V: npt.NDArray[np.bool_] | None = None,
        search: SearchConfig | None = None,
        seed: int | None = None,
    ) -> None:
        """Compute once what every request needs: item vectors, values that depend only on the weights, popularity.

        Args:
            model: ready to encode.
            catalogue: its items.
            manifest: of the bundle that it came from.
            intents: what the evaluation found about each intent.
            rules: the rules for answers.
            facts: the content of the items file.
            new_V: which items have a given vector and were not trained, [V + 1]; `None` if there are none.
            search: how the best items are found; `None` for exact search.
            seed: seed of the rules' exploration; `None` draws differently in each recommender.

        Raises:
            UserError: the search needs an extra that is not installed.
        """
        self._intents = intents
        self.manifest = manifest
        self.catalogue, self.new_V = catalogue, new_V
        self._model = model.eval()
        self._prepared = model.prepared()
        with torch.inference_mode():
            # With so few rows, the matrix product is faster with the transposed layout.
            vectors_VD = model.item_vectors()
            self._items_DV = vectors_VD.T.contiguous()
        self._popular = np.argsort(-catalogue.counts, kind="stable") + 1
        self._shares = np.concatenate(([0.0], catalogue.counts / max(1, catalogue.counts.sum())))
        self._repeats = manifest.split.get("repeats") == "allow"
        self._merges = manifest.split.get("consecutive") == "merge"
        self.rules, self._rng = rules or RulesConfig(), np.random.default_rng(seed)
        self.use_facts(facts or ItemFacts.nothing(len(catalogue)))
        self.index: ItemIndex | None = None
        """The index that finds candidates; `None` if every item is scored."""
        if search is not None and search.kind == "approximate":
            popularity_V = None if model.popularity_V is None else model.popularity_V.numpy()
            self.index = ItemIndex(vectors_VD.numpy(), search, added_V=popularity_V, threads=torch.get_num_threads())

    @classmethod
    def load(cls, bundle: Path, *, seed: int | None = None) -> Self:
        """Verify and load a bundle.

        Raises:
            UserError: the bundle is invalid (see `verify_bundle`), or its parts do not match.
        """
        manifest = verify_bundle(bundle)
        model, catalogue = load_model(bundle), load_catalogue(bundle / "items.parquet")
        if model.num_items != len(catalogue):
            what = f"the model knows {model.num_items} items, but items.parquet has {len(catalogue)}"
            raise UserError(what, where=bundle, fix="push the model again")
        served = with_new_items(model, catalogue, read_new_items(bundle, model.config.encoder.hidden_size))
        table = read_facts(bundle)
        return cls(
            served.model,
            served.catalogue,
            manifest,
            read_intents(bundle / "intents.json"),
            rules=read_rules(bundle),
            facts=None if table is None else align(table, served.catalogue.item_ids),
            new_V=served.new_V,
            search=read_search(bundle),
            seed=seed,
        )

    @property
    def has_titles(self) -> bool:
        """Whether there is an items file, and so possibly titles."""
        return self._rules.facts.described is not None

    def describe(self, item_ids: Sequence[str]) -> list[dict[str, str]]:
        """Return the columns of the items file for these items of the catalogue."""
        return self._rules.facts.describe([self.catalogue.index_of[item_id] for item_id in item_ids])

    def intent_name(self, intent: int) -> str:
        """Return the name of an intent, made of categories and titles; empty if the bundle has none."""
        return self._intents[intent].name if intent in self._intents else ""

    def use_facts(self, facts: ItemFacts) -> None:
        """Use this content of the items file from now on."""
        self._rules = Rules(
            self.rules,
            facts,
            self._items_DV.numpy().T,
            intent_V=self.item_intents if self.rules.needs_intents else None,
            index_of=self.catalogue.index_of,
            new_V=self.new_V,
        )

    @cached_property
    def item_intents(self) -> npt.NDArray[np.int64] | None:
        """Intent of each item (of a history with this item alone), [V + 1]; `None` for a model without intents."""
        return item_intents(self._model)

    @cached_property
    def unit_vectors_DV(self) -> Scores:  # noqa: N802 - named after its axes
        """Item vectors of unit length, [D, V + 1]; zeros for padding."""
        vectors_DV = self._items_DV.numpy()
        norms_V = np.maximum(np.linalg.norm(vectors_DV, axis=0), np.finfo(np.float32).tiny)
        unit_DV: Scores = vectors_DV / norms_V
        unit_DV[:, PADDING] = 0
        return unit_DV

    @property
    def num_intents(self) -> int:
        """Number of intents, 0 for a model without."""
        return self._model.num_intents

    @property
    def shares_V(self) -> npt.NDArray[np.float64]:  # noqa: N802 - named after its axis
        """Share of each item in the training interactions, [V + 1]."""
        return self._shares

    def typical_items(self, intent: int) -> list[str]:
        """Raw ids of the items typical of an intent; empty if no test user has it."""
        return self._intents[intent].items if intent in self._intents else []

    def intent_share(self, intent: int) -> float | None:
        """Return the share of the evaluated users with an intent; `None` if the bundle does not say."""
        return self._intents[intent].share if intent in self._intents else None

    def block(self, scores_BV: Scores) -> None:
        """Set the scores of padding and of unavailable items to -inf, in place."""
        scores_BV[:, PADDING] = -np.inf
        self._rules.block(scores_BV)

    @property
    def dislikes(self) -> Collection[str]:
        """The kinds of events that express dislike."""
        found: Collection[str] = self.manifest.split.get("kinds", {}).get("dislikes", ())
        return found

    def popular(self, k: int, seen: Sequence[int] = ()) -> Picked:
        """Return the most popular items without `seen` (indices, filtered by `unwanted`), with their shares."""
        unwanted = np.zeros(len(self.catalogue) + 1, np.bool_)
        unwanted[[PADDING, *seen]] = True
        return self._pick_popular(k, unwanted)

    def recommend(self, queries: Sequence[Query]) -> list[Recommendation]:
        """Answer any queries in one pass: one encoding, one matrix product."""
        histories = [self.catalogue.known(query.history) for query in queries]
        warm = [row for row, history in enumerate(histories) if history]
        ranked = self._ranked([histories[row] for row in warm], [queries[row] for row in warm])
        return [
            self._answer(query, history, next(ranked) if history else self._popular_items(query))
            for query, history in zip(queries, histories, strict=True)
        ]

    def rank(self, histories: Ragged, k: int, seen: Ragged | None = None) -> Iterator[Ranked]:
        """Rank non-empty histories of known items, a block of rows at a time.

        Args:
            histories: item indices, B rows.
            k: how many items, from 1 to V.
            seen: item indices that are not recommended either, B rows, filtered by `unwanted`.
        """
        for start in range(0, len(histories), _BLOCK):
            rows = slice(start, min(start + _BLOCK, len(histories)))
            yield self._rank_block(histories.part(rows), k, seen=None if seen is None else seen.part(rows))

    def chances(self, queries: Sequence[Query]) -> Iterator[Chances]:
        """Yield the chances from which `recommend` draws each answer; an approximate index is not used.

        Items are given by their index in the catalogue.
        """
        for start in range(0, len(queries), _BLOCK):
            block = queries[start : start + _BLOCK]
            histories = [self.catalogue.known(query.history) for query in block]
            warm = [row for row, history in enumerate(histories) if history]
            found = iter(self._warm_chances([histories[row] for row in warm], [block[row] for row in warm]))
            for query, history in zip(block, histories, strict=True):
                yield next(found) if history else self._cold_chances(query)

    @torch.inference_mode()
    def _warm_chances(self, histories: list[list[int]], queries: Sequence[Query]) -> list[Chances]:
        if not queries:
            return []
        known = self._as_trained(Ragged.from_rows(histories))
        scores_BV = self._scores(self._encode(known), known, queries)
        wanted, rows = [query.k for query in queries], [known.row(row) for row in range(len(known))]
        return list(self._rules.chances(scores_BV, wanted, rows))

    def _cold_chances(self, query: Query) -> Chances:
        scores_1V = self._popular_scores(self._unwanted_by(query))
        return next(self._rules.chances(scores_1V, query.k, [np.empty(0, np.int64)]))

    def _ranked(self, histories: list[list[int]], queries: list[Query]) -> Iterator[tuple[Picked, int]]:
        """Yield the answer to each query and its intent."""
        for start in range(0, len(queries), _BLOCK):
            block = queries[start : start + _BLOCK]
            k = min(max(query.k for query in block), len(self.catalogue))
            ranked = self._rank_block(Ragged.from_rows(histories[start : start + _BLOCK]), k, block)
            left = np.isfinite(ranked.scores).sum(1).tolist()
            for row, (query, number) in enumerate(zip(block, left, strict=True)):
                best = slice(min(query.k, number))
                yield ranked.row(row, best), int(ranked.intents[row])

    @torch.inference_mode()
    def _rank_block(
        self, histories: Ragged, k: int, queries: Sequence[Query] = (), seen: Ragged | None = None
    ) -> Ranked:
        histories = self._as_trained(histories)
        encoded = self._encode(histories)
        if self.index is None:
            return self._rank_all(encoded, histories, k, queries, seen)
        intents = encoded.intents.numpy()
        picked: list[Picked] = []
        for row in range(len(histories)):
            alone = slice(row, row + 1)
            own = None if seen is None else seen.part(alone)
            near = self._rank_near(encoded.vectors[row].numpy(), histories.row(row), k, queries[alone], own)
            if near is None:
                one = Encoded(vectors=encoded.vectors[alone], intents=encoded.intents[alone])
                ranked = self._rank_all(one, histories.part(alone), k, queries[alone], own)
                near = ranked.row(0, slice(int(np.isfinite(ranked.scores).sum())))
            picked.append(near)
        return _side_by_side(picked, k, intents)

    def _rank_near(
        self, vector_D: Scores, history: npt.NDArray[np.integer], k: int, queries: Sequence[Query], seen: Ragged | None
    ) -> Picked | None:
        """Choose one row's answer among the candidates of the index; `None` if they do not suffice.

        The index is not used for a query that restricts items: most of its candidates would not be allowed.
        """
        if any(query.allow is not None or query.categories is not None or query.deny_categories for query in queries):
            return None
        assert self.index is not None
        wanted, met = min([k, *(query.k for query in queries)]), self._unwanted(history, queries, seen)
        considered = self._rules.considered(wanted)
        additions = self._model.additions(Ragged.of(history, [len(history)]))
        also = None if additions is None else torch.unique(additions.items[additions.amounts != 0]).numpy()
        items_C, score_C = self.index.candidates(vector_D, considered, min(len(met), _MOST_MET), also)
        if additions is not None:
            score_C = score_C + additions.of(torch.from_numpy(items_C), 1)[0].numpy()
        left_C = self._rules.available(items_C) & ~np.isin(items_C, met)
        if np.count_nonzero(left_C) < min(considered, len(self.catalogue) - len(met)):
            return None
        picked = self._rules.pick_among(items_C[left_C], score_C[left_C], wanted, history, self._rng)
        return picked if len(picked.items) == wanted else None

    def _unwanted(
        self, history: npt.NDArray[np.integer], queries: Sequence[Query], seen: Ragged | None
    ) -> npt.NDArray[np.int64]:
        """Return the items that a row's answer must not hold, apart from availability."""
        named = [item for query in queries for item in self.catalogue.known([*query.deny, *self._met(query)])]
        met = [*([] if self._repeats else [history]), *([] if seen is None else [seen.values])]
        return np.unique(np.concatenate([np.array(named, np.int64), *met]))

    def _rank_all(
        self, encoded: Encoded, histories: Ragged, k: int, queries: Sequence[Query], seen: Ragged | None
    ) -> Ranked:
        """Score every item, and choose."""
        rules, scores_BV = self._rules, self._scores(encoded, histories, queries, seen)
        intents = encoded.intents.numpy()
        if rules.idle:
            scores, items = top_k(scores_BV, k)
            return Ranked(scores=scores, items=items, propensities=np.ones(scores.shape), intents=intents)
        wanted = [min(query.k, k) for query in queries] or k
        picked = rules.pick(scores_BV, wanted, [histories.row(row) for row in range(len(histories))], self._rng)
        return _side_by_side(picked, k, intents)

    def _scores(
        self, encoded: Encoded, histories: Ragged, queries: Sequence[Query], seen: Ragged | None = None
    ) -> Scores:
        """Score every item, [B, V + 1]; -inf for an item that must not be shown."""
        scores_BV: Scores = (encoded.vectors @ self._items_DV).numpy()
        self._add_to(scores_BV, histories)
        scores_BV[:, PADDING] = -np.inf
        for met in (seen,) if self._repeats else (histories, seen):
            if met is not None:
                scores_BV[met.owners, met.values] = -np.inf
        for row, query in enumerate(queries):
            self._filter(scores_BV[row], query)
        self._rules.block(scores_BV)
        return scores_BV

    def _add_to(self, scores_BV: Scores, histories: Ragged) -> None:
        """Add to scores what counts besides vectors, in place."""
        if len(histories) > _FEW:
            self._model.add_to(torch.from_numpy(scores_BV), histories)
            return
        for row, scores_V in enumerate(scores_BV):
            self._model.add_alone(scores_V, histories.row(row)[-self._model.config.encoder.window :])

    def _as_trained(self, histories: Ragged) -> Ragged:
        """Return histories as the sequences stage would make them."""
        return histories.without_repeats() if self._merges else histories

    def _encode(self, histories: Ragged) -> Encoded:
        window = self._model.config.encoder.window
        if len(histories) > _FEW:
            return self._model.encode_rows(self._model.lay_out(histories.tail(window)))
        recent = [histories.row(row)[-window:].astype(np.int64) for row in range(len(histories))]
        alone = [self._model.encode_alone(torch.from_numpy(items), self._prepared) for items in recent]
        return Encoded(
            vectors=torch.cat([one.vectors for one in alone]), intents=torch.cat([one.intents for one in alone])
        )

    def _filter(self, scores_V: Scores, query: Query) -> None:
        """Set the scores of items that the query does not allow to -inf, in place."""
        if query.allow is not None:
            allowed = self.catalogue.known(query.allow)
            kept = scores_V[allowed]
            scores_V.fill(-np.inf)
            scores_V[allowed] = kept
        for unwanted in (query.deny, self._met(query)):
            if unwanted:
                scores_V[self.catalogue.known(unwanted)] = -np.inf
        if query.categories is not None:
            scores_V[~self._rules.facts.of_categories(query.categories)] = -np.inf
        if query.deny_categories:
            scores_V[self._rules.facts.of_categories(query.deny_categories)] = -np.inf

    def _met(self, query: Query) -> Collection[str]:
        """Return the items, besides the history, that are not recommended because the user saw or disliked them."""
        if not self._repeats:
            return query.seen
        return [item_id.removeprefix(DISLIKED) for item_id in query.seen if item_id.startswith(DISLIKED)]

    def unwanted(self, seen: pa.ListArray) -> pa.ListArray:
        """Reduce the seen items of users to those that must not be recommended, one list per row."""
        if not self._repeats:
            return seen
        offsets = np.asarray(seen.offsets, np.int64)
        values = seen.values.slice(offsets[0], offsets[-1] - offsets[0]).cast(pa.string())
        disliked = np.asarray(pc.starts_with(values, DISLIKED))
        before = np.concatenate(([0], np.cumsum(disliked)))
        items = pc.utf8_slice_codeunits(values.filter(pa.array(disliked)), 1)
        return pa.ListArray.from_arrays(pa.array(before[offsets - offsets[0]], pa.int32()), items)

    def _popular_items(self, query: Query) -> tuple[Picked, int]:
        return self._pick_popular(query.k, self._unwanted_by(query)), _NO_INTENT

    def _unwanted_by(self, query: Query) -> npt.NDArray[np.bool_]:
        """Return which items a query does not allow, [V + 1]."""
        left_V = np.zeros(len(self.catalogue) + 1, np.float32)
        left_V[PADDING] = -np.inf
        self._filter(left_V, query)
        return np.isinf(left_V)

    def _popular_scores(self, unwanted_V: npt.NDArray[np.bool_]) -> Scores:
        logs_V = np.log(np.maximum(self._shares, _LEAST_SHARE))
        scores_1V: Scores = np.where(unwanted_V, -np.inf, logs_V).astype(np.float32)[None]
        self._rules.block(scores_1V)
        return scores_1V

    def _pick_popular(self, k: int, unwanted_V: npt.NDArray[np.bool_]) -> Picked:
        rules, scores_1V = self._rules, self._popular_scores(unwanted_V)
        if rules.idle:
            best = self._popular[np.isfinite(scores_1V[0, self._popular])][:k]
            return Picked(items=best, scores=self._shares[best], propensities=np.ones(len(best)))
        (picked,) = rules.pick(scores_1V, k, [np.empty(0, np.int64)], self._rng)
        return replace(picked, scores=self._shares[picked.items])

    def _answer(self, query: Query, history: list[int], found: tuple[Picked, int]) -> Recommendation:
        picked, intent = found
        return Recommendation(
            item_ids=[self.catalogue.ids[item] for item in picked.items.tolist()],
            scores=picked.scores.tolist(),
            intent=None if intent == _NO_INTENT else intent,
            known=len(history),
            skipped=len(query.history) - len(history),
            fallback=not history,
            propensities=picked.propensities.tolist() if self.rules.exploration else None,
            reasons=self._reasons(history, picked) if query.explain and history else None,
            new=None if self.new_V is None else self.new_V[picked.items].tolist(),
        )

    def _reasons(self, history: list[int], picked: Picked) -> list[list[Reason]]:
        ids, items_C = self.catalogue.ids, torch.from_numpy(picked.items)
        found = fall_without(self._model, history, items_C, self._items_DV.T[items_C], self._as_trained)
        return [[Reason(item_id=ids[item], contribution=fall) for item, fall in each] for each in found]


def _side_by_side(picked: Sequence[Picked], k: int, intents: npt.NDArray[np.int64]) -> Ranked:
    rows = len(picked)
    scores, items = np.full((rows, k), -np.inf, np.float32), np.zeros((rows, k), np.int64)
    propensities = np.ones((rows, k))
    for row, each in enumerate(picked):
        best = slice(len(each.items))
        scores[row, best], items[row, best], propensities[row, best] = each.scores, each.items, each.propensities
    return Ranked(scores=scores, items=items, propensities=propensities, intents=intents)
