from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elcrec.data.dataset import load_sequences
from elcrec.serving.catalogue import Catalogue, load_catalogue
from elcrec.serving.champion import rank_with_champion
from tests.support.push_inputs import Inputs, bundle_of, make_inputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def bundle(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_of(inputs, tmp_path_factory.mktemp("bundle") / "bundle")


def test_on_its_own_catalogue_it_ranks_as_its_evaluation_did(inputs: Inputs, bundle: Path) -> None:
    catalogue = load_catalogue(inputs.sequences / "items.parquet")

    ranks = rank_with_champion(bundle, catalogue, load_sequences(inputs.sequences).evaluation("test"))

    expected = pq.read_table(inputs.evaluation / "ranks.parquet")["rank"].to_numpy()
    np.testing.assert_array_equal(ranks, expected)


def test_a_shuffled_catalogue_changes_no_rank(inputs: Inputs, bundle: Path) -> None:
    catalogue = load_catalogue(inputs.sequences / "items.parquet")
    test = load_sequences(inputs.sequences).evaluation("test")
    order = np.random.default_rng(0).permutation(len(catalogue))
    new_index = np.argsort(order) + 1
    shuffled = Catalogue(item_ids=catalogue.item_ids.take(pa.array(order)), counts=catalogue.counts)
    moved = type(test)(
        users=test.users,
        histories=type(test.histories)(values=new_index[test.histories.values - 1], offsets=test.histories.offsets),
        target_items=new_index[test.target_items - 1],
    )

    ranks = rank_with_champion(bundle, shuffled, moved)

    expected = pq.read_table(inputs.evaluation / "ranks.parquet")["rank"].to_numpy()
    np.testing.assert_array_equal(ranks, expected)


def test_targets_it_does_not_know_rank_below_every_item_it_knows(inputs: Inputs, bundle: Path) -> None:
    catalogue = load_catalogue(inputs.sequences / "items.parquet")
    test = load_sequences(inputs.sequences).evaluation("test")
    target = int(test.target_items[0])
    renamed = [("new" if index == target else name) for index, name in enumerate(catalogue.item_ids.to_pylist(), 1)]
    partly = Catalogue(item_ids=pa.array(renamed), counts=catalogue.counts)

    ranks = rank_with_champion(bundle, partly, test)

    assert ranks is not None
    assert ranks[0] == len(catalogue) - test.histories.lengths[0]


def test_without_a_common_item_there_is_no_ranking(inputs: Inputs, bundle: Path) -> None:
    foreign = Catalogue(item_ids=pa.array([f"x{i}" for i in range(15)]), counts=np.zeros(15, np.int64))

    assert rank_with_champion(bundle, foreign, load_sequences(inputs.sequences).evaluation("test")) is None
