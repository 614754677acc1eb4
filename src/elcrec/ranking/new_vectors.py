"""Vectors for items that were not trained, from neighbouring items in histories or from their text.

Axes: `V` items, with row 0 for padding; `W` items that need vectors, `D` hidden size, `P` pairs of such an item with a
trained one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from elcrec.config import NewItemsConfig
from elcrec.data.ragged import Ragged
from elcrec.errors import UserError

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

_NGRAMS = (3, 5)
"""Lengths of the character n-grams, within words."""


@dataclass(frozen=True, kw_only=True)
class Clues:
    """The data on items from which vectors are made.

    Attributes:
        histories: items in time order, one row per user.
        texts_V: text of each item, empty if there is none, [V + 1]; `None` if no source uses text.
        most: number of interactions of each wanted item that may be read, those of the first users; `None` for all.
    """

    histories: Ragged
    texts_V: Sequence[str] | None = None
    most: int | None = None


@dataclass(frozen=True, kw_only=True)
class Given:
    """The vectors that were made.

    Attributes:
        items: the wanted items with a vector, ascending, [W].
        vectors_WD: their vectors.
        sources: source of each vector, [W].
    """

    items: Ints
    vectors_WD: Floats
    sources: list[str]


def give_vectors(config: NewItemsConfig, clues: Clues, vectors_VD: Floats, trained_V: Flags, wanted_V: Flags) -> Given:
    """Make a vector for each wanted item, from the first source that knows it.

    Args:
        config: the sources and their options.
        clues: the data that the sources read.
        vectors_VD: vectors of trained items; other rows are ignored.
        trained_V: items whose vectors may be averaged.
        wanted_V: items that need vectors, none of them trained.

    Raises:
        UserError: the text model is not usable.
    """
    found = np.zeros(len(wanted_V), np.int64)
    given_VD = np.zeros_like(vectors_VD)
    for number, source in enumerate(config.sources, start=1):
        left_V = wanted_V & (found == 0)
        items, vectors_WD = _SOURCES[source](config, clues, vectors_VD, trained_V, left_V)
        found[items], given_VD[items] = number, vectors_WD
    items = np.flatnonzero(found)
    sources = [config.sources[number - 1] for number in found[items].tolist()]
    return Given(items=items, vectors_WD=given_VD[items], sources=sources)


def co_seen(
    config: NewItemsConfig, clues: Clues, vectors_VD: Floats, trained_V: Flags, wanted_V: Flags
) -> tuple[Ints, Floats]:
    """Average the trained neighbours of each wanted item, weighted by their number of co-occurrences."""
    places = _first(np.flatnonzero(wanted_V[clues.histories.values]), clues.histories.values, clues.most)
    owners = clues.histories.owners
    enough_V = _users(clues.histories.values[places], owners[places], len(wanted_V)) >= config.least_users
    wanted_P, trained_P = _beside(clues.histories.values, owners, places, config.window)
    kept = trained_V[trained_P] & enough_V[wanted_P]
    pairs, times = np.unique(wanted_P[kept] * len(wanted_V) + trained_P[kept], return_counts=True)
    wanted, trained = np.divmod(pairs, len(wanted_V))
    return _weighted_means(wanted, trained, times.astype(np.float64), vectors_VD)


def alike_in_text(
    config: NewItemsConfig, clues: Clues, vectors_VD: Floats, trained_V: Flags, wanted_V: Flags
) -> tuple[Ints, Floats]:
    """Average the trained items nearest to each wanted item in text, weighted by their cosine.

    An item without text, or with nothing in common with any trained item, gets no vector.
    """
    from sklearn.neighbors import NearestNeighbors  # noqa: PLC0415 - takes seconds, needed only for text

    texts_V = clues.texts_V or [""] * len(wanted_V)
    has_text_V = np.array([bool(text.strip()) for text in texts_V], np.bool_)
    trained, wanted = np.flatnonzero(trained_V & has_text_V), np.flatnonzero(wanted_V & has_text_V)
    if not len(trained) or not len(wanted):
        return np.empty(0, np.int64), vectors_VD[:0]
    embedded = _embed([texts_V[item] for item in [*trained, *wanted]], len(trained), config.text_model)
    search = NearestNeighbors(n_neighbors=min(config.neighbours, len(trained)), algorithm="brute", metric="cosine")
    distances_WN, nearest_WN = search.fit(embedded[: len(trained)]).kneighbors(embedded[len(trained) :])
    cosines_P = (1 - distances_WN).ravel()
    wanted_P, trained_P = np.repeat(wanted, nearest_WN.shape[1]), trained[nearest_WN.ravel()]
    alike = cosines_P > np.finfo(np.float32).eps
    return _weighted_means(wanted_P[alike], trained_P[alike], cosines_P[alike], vectors_VD)


_SOURCES = {"co_seen": co_seen, "text": alike_in_text}


def _first(places: Ints, values: npt.NDArray[np.integer], most: int | None) -> Ints:
    """Keep the first `most` occurrences of each item."""
    if most is None:
        return places
    order = np.argsort(values[places], kind="stable")
    items = values[places][order]
    starts = np.searchsorted(items, items)
    kept: Ints = np.sort(places[order][np.arange(len(items)) - starts < most])
    return kept


def _users(items: npt.NDArray[np.integer], owners: Ints, size: int) -> Ints:
    """Count the distinct users of each item, [V]."""
    rows = max(1, int(owners.max(initial=0)) + 1)
    pairs = np.unique(items.astype(np.int64) * rows + owners)
    return np.bincount(pairs // rows, minlength=size)


def _beside(values: npt.NDArray[np.integer], owners: Ints, places: Ints, window: int) -> tuple[Ints, Ints]:
    """Return pairs of each item with every item up to `window` positions before and after it, [P] each."""
    steps = np.array([step for step in range(-window, window + 1) if step])
    centers, others = np.repeat(places, len(steps)), (places[:, None] + steps).ravel()
    inside = (others >= 0) & (others < len(values))
    centers, others = centers[inside], others[inside]
    same_user = owners[centers] == owners[others]
    return values[centers[same_user]].astype(np.int64), values[others[same_user]].astype(np.int64)


def _weighted_means(
    wanted_P: Ints, trained_P: Ints, weights_P: npt.NDArray[np.float64], vectors_VD: Floats
) -> tuple[Ints, Floats]:
    """Average the vectors of each wanted item's trained items; pairs are sorted by wanted item."""
    if not len(wanted_P):
        return np.empty(0, np.int64), vectors_VD[:0]
    items, starts = np.unique(wanted_P, return_index=True)
    sums_WD = np.add.reduceat(weights_P[:, None] * vectors_VD[trained_P].astype(np.float64), starts, axis=0)
    totals_W = np.add.reduceat(weights_P, starts)
    return items, (sums_WD / totals_W[:, None]).astype(np.float32)


def _embed(texts: Sequence[str], trained: int, text_model: str | None) -> Any:
    """Return one row per text, dense or sparse; the rarity of n-grams comes from the first `trained` texts."""
    if text_model is not None:
        return _embed_with_model(texts, Path(text_model))
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 - as above

    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=_NGRAMS, sublinear_tf=True)
    vectorizer.fit(texts[:trained])
    return vectorizer.transform(texts)


def _embed_with_model(texts: Sequence[str], folder: Path) -> npt.NDArray[np.floating]:
    """Embed texts with static vectors from a folder, which must exist, or else the library would search a hub."""
    if not (folder / "config.json").is_file():
        fix = "save a model2vec model there (StaticModel.save_pretrained); nothing is downloaded"
        raise UserError("not a folder of a model2vec model", where=folder, fix=fix)
    try:
        from model2vec import StaticModel  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise UserError("the text model needs the extra model2vec", fix="pip install 'elcrec[model2vec]'") from error
    try:
        model = StaticModel.from_pretrained(folder)
        embedded: npt.NDArray[np.floating] = model.encode(list(texts))
    except Exception as error:
        raise UserError(f"not a usable model2vec model ({error})", where=folder, fix="save the model again") from error
    return embedded
