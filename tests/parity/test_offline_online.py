"""Features built offline from the log equal those served online, and so do the model's results."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elcrec.adapters.feast_config import Servers
from elcrec.adapters.feast_store import FeastStore
from elcrec.adapters.quiet import quiet
from elcrec.artifacts import write_json
from elcrec.config import SequencesConfig
from elcrec.data.dataset import Split, load_item_ids, load_sequences, load_user_ids
from elcrec.serving.bundle import BundleSource, describe_bundle, write_bundle
from elcrec.serving.ports import Event
from elcrec.serving.publishing import bundle_tables
from elcrec.serving.recommender import Query, Recommender
from elcrec.stages.sequences import build_sequences
from tests.support.engines import ENGINE
from tests.support.push_inputs import Inputs, add_model
from tests.support.servers import redis_server

REPOSITORY = Path(__file__).parents[2] / "features"
SERVICE = "elcrec_v1"
START = datetime(2026, 1, 1, tzinfo=UTC)
USERS, ITEMS, K = 40, 25, 10
CONFIG = SequencesConfig(history=8)


@dataclass(frozen=True)
class World:
    store: FeastStore
    log: pa.Table
    inputs: Inputs
    recommender: Recommender


def make_log() -> pa.Table:
    """Events of users who come back to items, at times of their own, in no order."""
    chance = np.random.default_rng(3)
    size = USERS * 12
    seconds = chance.permutation(size)
    users = np.concatenate((np.repeat(np.arange(USERS), 4), chance.integers(0, USERS, size - USERS * 4)))
    return pa.table(
        {
            "user_id": [f"user {user}" for user in users],
            "item_id": [f"item-{item}" for item in chance.integers(0, ITEMS, size)],
            "timestamp": pa.array(
                [START + timedelta(seconds=int(second), microseconds=int(second) % 997) for second in seconds],
                pa.timestamp("us", tz="UTC"),
            ),
        }
    )


def sequences_of(log: pa.Table, folder: Path) -> Path:
    folder.mkdir(parents=True)
    pq.write_table(log, folder / "interactions.parquet")
    write_json(folder / "validation.json", {"time": "real"})
    build_sequences(CONFIG, folder, folder / "sequences", engine=ENGINE)
    return folder / "sequences"


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("world")
    if request.param == "sqlite":
        yield make_world(root, Servers())
    else:
        with redis_server() as server:
            yield make_world(root, Servers(redis=server.url))


def make_world(root: Path, servers: Servers) -> World:
    log = make_log()
    inputs = add_model(root, sequences_of(log, root / "whole"), model_seed=0)
    source = BundleSource(model=inputs.model, sequences=inputs.sequences, evaluation=inputs.evaluation)
    store = FeastStore(root / "store", REPOSITORY, servers)
    manifest = describe_bundle(source, name="m", feature_service=SERVICE, feature_schema=store.schema(SERVICE))
    write_bundle(source, manifest, root / "bundle")
    store.publish(bundle_tables(source, manifest.digest), service=SERVICE)
    return World(store, log, inputs, Recommender.load(root / "bundle"))


def offline_histories(sequences: Path) -> dict[str, list[str]]:
    table = pq.read_table(sequences / "histories.parquet", columns=["user_id", "item_ids"]).to_pydict()
    return dict(zip(table["user_id"], table["item_ids"], strict=True))


def online_histories(store: FeastStore, users: list[str]) -> list[list[str]]:
    histories = [found.item_ids if found else [] for found in store.users(users, service=SERVICE)]
    assert [found.item_ids if found else [] for found in store.histories(users, service=SERVICE)] == histories
    return histories


def queries(histories: Iterable[list[str]]) -> list[Query]:
    return [Query(history=history, k=K) for history in histories]


def test_the_same_histories_scores_and_top_k(world: World) -> None:
    offline = offline_histories(world.inputs.sequences)
    online = online_histories(world.store, list(offline))

    assert online == list(offline.values())
    expected = world.recommender.recommend(queries(offline.values()))
    for mine, other in zip(world.recommender.recommend(queries(online)), expected, strict=True):
        assert mine.item_ids == other.item_ids
        np.testing.assert_allclose(mine.scores, other.scores, atol=1e-5, rtol=0)
        assert mine.intent == other.intent


def test_published_model_outputs_equal_those_computed_from_the_served_history(world: World) -> None:
    users = list(offline_histories(world.inputs.sequences))

    served = world.store.users(users, service=SERVICE)

    answers = world.recommender.recommend(queries(found.item_ids for found in served if found))
    assert [found.intent for found in served if found] == [answer.intent for answer in answers]
    assert {found.bundle for found in served if found} == {world.recommender.manifest.digest}


def test_half_a_log_published_and_the_rest_as_live_events_is_the_whole_log(world: World, tmp_path: Path) -> None:
    chance = np.random.default_rng(4)
    cut = pa.scalar(START + timedelta(seconds=USERS * 6), pa.timestamp("us", tz="UTC"))
    before = world.log.filter(pa.compute.less(world.log["timestamp"], cut))
    after = world.log.filter(pa.compute.greater_equal(world.log["timestamp"], cut)).to_pylist()
    chance.shuffle(after)  # type: ignore[arg-type]
    inputs = add_model(tmp_path, sequences_of(before, tmp_path / "half"), model_seed=0)
    source = BundleSource(model=inputs.model, sequences=inputs.sequences, evaluation=inputs.evaluation)
    store = FeastStore(tmp_path / "store", REPOSITORY)
    store.publish(bundle_tables(source, "half"), service=SERVICE)

    store.push_events([Event(**event) for event in after])

    offline = offline_histories(world.inputs.sequences)
    most = CONFIG.history
    online = [history[-most:] for history in online_histories(store, list(offline))]
    assert online == list(offline.values())


@pytest.mark.parametrize("split", ["valid", "test"])
def test_point_in_time_retrieval_finds_the_history_before_each_target(world: World, split: Split) -> None:
    data = load_sequences(world.inputs.sequences)
    asked = data.evaluation(split)
    item_ids = load_item_ids(world.inputs.sequences, data.num_items)
    users = load_user_ids(world.inputs.sequences).take(pa.array(asked.users)).to_pylist()
    times = pq.read_table(world.inputs.sequences / "sequences.parquet", columns=["timestamps"])["timestamps"]
    targets = [times[int(user)][int(data.targets[split][user])].as_py() for user in asked.users]
    moments = pd.to_datetime([target - timedelta(microseconds=1) for target in targets])
    entities = pd.DataFrame({"user_id": users, "event_timestamp": moments})

    with quiet("feast"):
        job = world.store._feast.get_historical_features(entities, ["user_history:item_ids"])
        found = job.to_df().set_index("user_id")["item_ids"]

    histories = asked.histories.tail(CONFIG.history)
    assert len(found) == len(users) > 0
    for place, user in enumerate(users):
        assert list(found[user]) == [item_ids[index - 1] for index in histories.row(place)]
