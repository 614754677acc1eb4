"""Vectors of new items, compared with plain loops, and their properties for any log."""

import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elcrec.config import NewItemsConfig
from elcrec.data.ragged import Ragged
from elcrec.errors import UserError
from elcrec.ranking.new_vectors import Clues, Given, give_vectors

ITEMS, WIDTH = 12, 4
NEW = (9, 10, 11, 12)
VECTORS = np.random.default_rng(0).normal(size=(ITEMS + 1, WIDTH)).astype(np.float32)
TRAINED = np.array([False, *(item not in NEW for item in range(1, ITEMS + 1))])
WANTED = np.array([item in NEW for item in range(ITEMS + 1)])
CO_SEEN = NewItemsConfig(sources=["co_seen"], window=2)


def given_of(config: NewItemsConfig, rows: list[list[int]], texts: list[str] | None = None, **clues: int) -> Given:
    known = Clues(histories=Ragged.from_rows(rows), texts_V=texts, **clues)
    return give_vectors(config, known, VECTORS, TRAINED, WANTED)


def plain_co_seen(rows: list[list[int]], window: int, least_users: int) -> dict[int, np.ndarray]:
    beside: dict[int, Counter[int]] = defaultdict(Counter)
    users: dict[int, set[int]] = defaultdict(set)
    for user, row in enumerate(rows):
        for place, item in enumerate(row):
            if item in NEW:
                users[item].add(user)
                near = row[max(0, place - window) : place] + row[place + 1 : place + 1 + window]
                beside[item].update(other for other in near if other not in NEW)
    return {
        item: sum(times * VECTORS[other].astype(float) for other, times in met.items()) / sum(met.values())
        for item, met in beside.items()
        if met and len(users[item]) >= least_users
    }


ROWS = st.lists(st.lists(st.integers(1, ITEMS), max_size=9), min_size=1, max_size=12)


@given(rows=ROWS, window=st.integers(1, 4), least=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_a_co_seen_vector_is_the_mean_of_the_items_within_the_window(
    rows: list[list[int]], window: int, least: int
) -> None:
    found = given_of(NewItemsConfig(sources=["co_seen"], window=window, least_users=least), rows)

    expected = plain_co_seen(rows, window, least)
    assert found.items.tolist() == sorted(expected)
    for item, vector in zip(found.items.tolist(), found.vectors_WD, strict=True):
        np.testing.assert_allclose(vector, expected[item], rtol=1e-5, atol=1e-6)


@given(times=st.integers(2, 6), other=st.integers(1, 8))
@settings(max_examples=20, deadline=None)
def test_a_new_item_that_is_seen_beside_one_item_alone_gets_its_vector(times: int, other: int) -> None:
    found = given_of(CO_SEEN, [[other, 9]] * times)

    assert found.items.tolist() == [9]
    np.testing.assert_array_equal(found.vectors_WD[0], VECTORS[other])


def test_what_one_user_did_gives_no_vector_unless_one_is_enough() -> None:
    rows = [[1, 9, 1, 9], [2, 3]]

    assert not len(given_of(CO_SEEN, rows).items)
    assert given_of(NewItemsConfig(sources=["co_seen"], least_users=1), rows).items.tolist() == [9]


def test_users_in_one_batch_do_not_affect_each_other() -> None:
    found = given_of(NewItemsConfig(sources=["co_seen"], window=3, least_users=1), [[1, 9], [2, 3]])

    np.testing.assert_array_equal(found.vectors_WD, VECTORS[[1]])


def test_of_an_item_only_its_first_interactions_are_read() -> None:
    rows = [[1, 9], [1, 9], [2, 9], [3, 9]]

    np.testing.assert_array_equal(given_of(CO_SEEN, rows, most=2).vectors_WD, VECTORS[[1]])


TEXTS = [
    *("", "red wool sock", "blue wool sock", "garden hose", "red silk scarf", "oak table", "steel pan", "lamp", ""),
    *("green wool sock", "zzqqxx", "", "garden hose"),
]


def test_a_text_vector_is_the_mean_of_the_nearest_trained_items_by_their_cosine() -> None:
    found = given_of(NewItemsConfig(sources=["text"], neighbours=2), [], TEXTS)

    assert found.items.tolist() == [9, 12], "without text, or with nothing in common, there is no vector"
    weights, (residual,), _, _ = np.linalg.lstsq(VECTORS[[1, 2]].T, found.vectors_WD[0], rcond=None)
    assert residual == pytest.approx(0, abs=1e-9), "of the two other socks and of nothing else"
    assert weights.sum() == pytest.approx(1, abs=1e-5)
    assert weights.min() > 0.3


def test_an_item_with_the_text_of_one_trained_item_gets_its_vector_where_one_neighbour_is_asked() -> None:
    found = given_of(NewItemsConfig(sources=["text"], neighbours=1), [], TEXTS)

    np.testing.assert_allclose(found.vectors_WD[found.items == 12], VECTORS[[3]], rtol=1e-6)


def test_the_first_source_that_knows_an_item_gives_its_vector() -> None:
    rows = [[1, 9], [1, 9]]

    both = given_of(NewItemsConfig(sources=["co_seen", "text"], neighbours=1), rows, TEXTS)
    assert dict(zip(both.items.tolist(), both.sources, strict=True)) == {9: "co_seen", 12: "text"}
    np.testing.assert_array_equal(both.vectors_WD[0], VECTORS[1])
    turned = given_of(NewItemsConfig(sources=["text", "co_seen"]), rows, TEXTS)
    assert set(turned.sources) == {"text"}


def test_a_text_model_is_read_from_a_folder_and_never_looked_for_elsewhere() -> None:
    with pytest.raises(UserError, match="nothing is downloaded"):
        given_of(NewItemsConfig(sources=["text"], text_model="minishlab/potion-base-8M"), [], TEXTS)


def test_a_text_model_without_its_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "model2vec", None)

    with pytest.raises(UserError, match="needs the extra model2vec"):
        given_of(NewItemsConfig(sources=["text"], text_model=str(tmp_path)), [], TEXTS)


def test_a_saved_model2vec_model_finds_near_texts(tmp_path: Path) -> None:
    static = pytest.importorskip("model2vec")
    tokenizers = pytest.importorskip("tokenizers")
    words = ["[UNK]", *sorted({word for text in TEXTS for word in text.split()} - {"zzqqxx"})]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    vectors = np.random.default_rng(0).normal(size=(len(words), 8)).astype(np.float32)
    static.StaticModel(vectors, tokenizer).save_pretrained(tmp_path)

    config = NewItemsConfig(sources=["text"], neighbours=1, text_model=str(tmp_path))
    found = given_of(config, [], TEXTS)

    np.testing.assert_allclose(found.vectors_WD[found.items == 12], VECTORS[[3]], rtol=1e-6)
