import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elcrec.adapters.feast_store import FeastStore
from elcrec.adapters.model_registry import MlflowRegistry
from elcrec.artifacts import write_json
from elcrec.config import GateConfig, PushConfig
from elcrec.data.dataset import load_sequences
from elcrec.errors import UserError
from elcrec.evaluation.metrics import mean_metrics
from elcrec.evaluation.provenance import mark_model
from elcrec.evaluation.sampling import asked_users
from elcrec.serving.bundle import verify_bundle
from elcrec.stages.push import decide, push
from elcrec.stages.recommend import recommend
from tests.support import killed_push
from tests.support.killed_push import REPOSITORY
from tests.support.push_inputs import Inputs, add_model, make_inputs

pytestmark = pytest.mark.slow

STRICT = GateConfig(max_regression=0.0)


@dataclass(frozen=True)
class Store:
    folder: Path

    @property
    def sides(self) -> dict[str, Any]:
        registry = MlflowRegistry(self.folder / "mlflow")
        return {"registry": registry, "features": FeastStore(self.folder, REPOSITORY)}

    def push(self, inputs: Inputs, gate: GateConfig = STRICT, **more: Any) -> dict[str, Any]:
        return push(PushConfig(gate=gate, **more), *inputs.paths, self.out, **self.sides)

    @property
    def out(self) -> Path:
        return self.folder.parent / "push"

    def gate(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.out / "gate.json").read_text())
        return document

    def versions(self) -> list[int]:
        found = MlflowRegistry(self.folder / "mlflow")._client.search_model_versions("name='elcrec'")
        return sorted(int(version.version) for version in found)


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Inputs, Inputs]:
    """Two untrained models of the same sequences, the worse first."""
    root = tmp_path_factory.mktemp("inputs")
    first = make_inputs(root, model_seed=0)
    models = [first, *(add_model(root, first.sequences, model_seed=seed) for seed in (1, 2))]
    models.sort(key=lambda each: json.loads((each.evaluation / "metrics.json").read_text())["ndcg@20"])
    return models[0], models[-1]


@pytest.fixture(scope="module")
def pushed(ranked: tuple[Inputs, Inputs], empty_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world whose champion is the worse model."""
    root = tmp_path_factory.mktemp("pushed")
    shutil.copytree(empty_registry, root / "store" / "mlflow")
    assert Store(root / "store").push(ranked[0])["accepted"]
    return root


@pytest.fixture
def empty(empty_registry: Path, tmp_path: Path) -> Store:
    shutil.copytree(empty_registry, tmp_path / "store" / "mlflow")
    return Store(tmp_path / "store")


@pytest.fixture
def store(pushed: Path, tmp_path: Path) -> Store:
    shutil.copytree(pushed, tmp_path, dirs_exist_ok=True)
    return Store(tmp_path / "store")


def users_of(inputs: Inputs) -> dict[str, list[str]]:
    table = pq.read_table(inputs.sequences / "histories.parquet").to_pydict()
    return dict(zip(table["user_id"], table["item_ids"], strict=True))


def test_the_first_push_makes_a_champion_whose_features_are_served(pushed: Path, ranked: tuple[Inputs, Inputs]) -> None:
    store, histories = Store(pushed / "store"), users_of(ranked[0])

    champion = store.sides["registry"].champion("elcrec")
    served = store.sides["features"].users(list(histories), service="elcrec_v1")

    manifest = verify_bundle(champion.bundle)
    assert manifest == verify_bundle(store.out / "bundle")
    assert [user.item_ids for user in served] == list(histories.values())
    assert {user.bundle for user in served} == {manifest.digest}
    assert all(user.intent in range(3) and len(user.vector) == 8 for user in served)
    assert store.gate()["reason"] == "all conditions hold; there is no champion yet"
    assert (store.out / "gate.md").read_text().startswith("# Push accepted")


def test_a_push_enters_how_the_model_was_trained(pushed: Path) -> None:
    client = Store(pushed / "store").sides["registry"]._client
    (run,) = client.search_runs([client.get_experiment_by_name("elcrec").experiment_id])

    assert run.data.params["train.encoder.window"] == "8"
    assert run.data.params["sequences.split"] == "leave_one_out"


def test_pushing_again_changes_nothing(store: Store, ranked: tuple[Inputs, Inputs]) -> None:
    again = store.push(ranked[0])

    assert again["accepted"]
    assert again["version"] == "1"
    assert "already" in again["reason"]
    assert store.versions() == [1]


@pytest.mark.parametrize("damage", ["artifacts deleted", "weights damaged"])
def test_a_broken_champion_blocks_no_push(store: Store, ranked: tuple[Inputs, Inputs], damage: str) -> None:
    bundle = store.sides["registry"].champion("elcrec").bundle
    if damage == "artifacts deleted":
        shutil.rmtree(bundle)
    else:
        (bundle / "model.safetensors").write_bytes(b"")

    assert store.push(ranked[1])["accepted"]

    assert store.sides["registry"].champion("elcrec").version == "2"


@pytest.mark.parametrize("fault", ["the alias is gone", "the champion is broken", "the champion's version is gone"])
def test_without_its_champion_the_gate_compares_with_the_version_before_it(
    store: Store, ranked: tuple[Inputs, Inputs], fault: str
) -> None:
    assert store.push(ranked[1])["accepted"]
    registry = store.sides["registry"]
    if fault == "the alias is gone":
        registry._client.delete_registered_model_alias("elcrec", "champion")
    elif fault == "the champion is broken":
        shutil.rmtree(registry.champion("elcrec").bundle)
    else:
        registry._client.delete_model_version("elcrec", "2")

    strict = GateConfig(max_regression=0.0, floors={"ndcg@20": 0.0})
    worst = add_model(store.folder.parent / "worst", ranked[0].sequences, model_seed=7)
    decision = decide(PushConfig(gate=strict), *worst.paths, **store.sides)

    assert decision.champion is not None
    assert decision.champion.version == ("2" if fault == "the alias is gone" else "1")


def test_a_version_names_the_run_that_made_it_and_the_same_model_of_another_run_is_that_version(
    store: Store, ranked: tuple[Inputs, Inputs]
) -> None:
    for run in ({"id": "5a1b", "name": "nightly"}, {"id": "77c0"}):
        outcome = push(PushConfig(gate=STRICT), *ranked[1].paths, store.out, **store.sides, run=run)
        assert outcome["version"] == "2"

    tags = store.sides["registry"]._client.get_model_version("elcrec", "2").tags
    assert {key: value for key, value in tags.items() if key.startswith("elcrec.run.")} == {
        "elcrec.run.id": "5a1b",
        "elcrec.run.name": "nightly",
    }


def test_a_refused_model_s_log_is_published_and_the_champion_stays(store: Store, tmp_path: Path) -> None:
    newer = make_inputs(tmp_path / "newer", users=30, items=20)
    before = store.sides["features"].users(["user-3"], service="elcrec_v1")

    outcome = store.push(newer, GateConfig(floors={"ndcg@20": 1.0}))

    assert not outcome["accepted"]
    assert outcome["published_user_history"] == 30
    assert "published_user_model_output" not in outcome
    sides = store.sides
    served = sides["features"].users(["user-29", "user-3"], service="elcrec_v1")
    assert served[0].item_ids == users_of(newer)["user-29"]
    assert (served[1].bundle, served[1].vector) == (before[0].bundle, before[0].vector)
    assert sides["registry"].champion("elcrec").version == "1"


def test_without_a_champion_a_refused_push_publishes_nothing(empty: Store, ranked: tuple[Inputs, Inputs]) -> None:
    outcome = empty.push(ranked[0], GateConfig(floors={"ndcg@20": 1.0}))

    assert not outcome["accepted"]
    assert not (empty.folder / "feast").exists()


def test_items_before_a_short_history_are_published_as_seen(
    empty: Store, ranked: tuple[Inputs, Inputs], tmp_path: Path
) -> None:
    inputs = make_inputs(tmp_path / "short", model_seed=0)
    path, whole = inputs.sequences / "histories.parquet", users_of(inputs)
    table = pq.read_table(path)
    for name in ("item_ids", "event_times"):
        cut = pa.array([row[-2:] for row in table[name].to_pylist()], table[name].type)
        table = table.set_column(table.schema.get_field_index(name), name, cut)
    pq.write_table(table, path)

    empty.push(inputs)

    for user, found in zip(whole, empty.sides["features"].histories(list(whole), service="elcrec_v1"), strict=True):
        assert found.item_ids == whole[user][-2:]
        assert set(found.seen) == set(whole[user][:-2])


def test_a_better_model_becomes_champion(store: Store, ranked: tuple[Inputs, Inputs]) -> None:
    outcome = store.push(ranked[1])

    assert outcome["challenger_ndcg@20"] > outcome["champion_ndcg@20"]
    assert store.sides["registry"].champion("elcrec").version == outcome["version"] == "2"
    assert store.gate()["champion"]["version"] == "1"


def test_a_challenger_changes_neither_the_champion_nor_its_published_features(
    store: Store, ranked: tuple[Inputs, Inputs]
) -> None:
    registry, features = store.sides["registry"], store.sides["features"]
    user = users_of(ranked[0])
    name = next(iter(user))
    before = features.users([name], service="elcrec_v1")

    outcome = store.push(ranked[1], alias="challenger")

    assert (outcome["accepted"], outcome["version"], outcome["alias"]) == (True, "2", "challenger")
    assert set(outcome) & {"published_model_outputs", "published_item_statistics"} == set()
    assert (registry.champion("elcrec").version, registry.challenger("elcrec").version) == ("1", "2")
    assert features.users([name], service="elcrec_v1") == before


def test_without_a_champion_a_challenger_becomes_one_and_the_champion_itself_is_no_challenger(
    empty: Store, ranked: tuple[Inputs, Inputs]
) -> None:
    outcomes = [empty.push(ranked[0], alias="challenger") for _ in range(2)]

    assert [(each["version"], each["alias"]) for each in outcomes] == [("1", "champion")] * 2
    registry = empty.sides["registry"]
    assert (registry.champion("elcrec").version, registry.challenger("elcrec")) == ("1", None)


def test_a_worse_model_is_refused_and_leaves_the_champion(store: Store, ranked: tuple[Inputs, Inputs]) -> None:
    store.push(ranked[1])

    outcome = store.push(ranked[0])

    assert not outcome["accepted"]
    assert "against champion 2" in outcome["reason"]
    assert store.sides["registry"].champion("elcrec").version == "2"
    assert not (store.out / "bundle").exists()
    assert (store.out / "gate.md").read_text().startswith("# Push refused")


def test_a_model_below_a_floor_is_refused_before_anything_is_registered(
    empty: Store, ranked: tuple[Inputs, Inputs]
) -> None:
    outcome = empty.push(ranked[1], GateConfig(floors={"ndcg@20": 0.999}))

    assert not outcome["accepted"]
    assert empty.versions() == []
    assert not (empty.folder / "feast").exists()
    assert empty.gate()["conditions"][0]["required"] == 0.999


def test_a_model_of_another_catalogue_says_that_nothing_could_be_compared(store: Store, tmp_path: Path) -> None:
    outcome = store.push(make_inputs(tmp_path / "other", prefix="other-"))

    assert outcome["accepted"]
    assert "knows no item of this catalogue" in outcome["reason"]


def test_deciding_writes_nothing(store: Store, ranked: tuple[Inputs, Inputs]) -> None:
    before = sorted(path for path in store.out.rglob("*"))

    decision = decide(PushConfig(gate=STRICT), *ranked[1].paths, **store.sides)

    assert decision.accepted
    assert store.versions() == [1]
    assert sorted(path for path in store.out.rglob("*")) == before


def test_an_evaluation_of_other_users_is_refused(empty: Store, ranked: tuple[Inputs, Inputs], tmp_path: Path) -> None:
    other = make_inputs(tmp_path / "other", users=30)
    ranks = other.evaluation / "ranks.parquet"
    pq.write_table(mark_model(pq.read_table(ranks), ranked[0].model), ranks)
    mixed = Inputs(model=ranked[0].model, sequences=ranked[0].sequences, evaluation=other.evaluation)

    with pytest.raises(UserError, match="not the ranks of the test users"):
        empty.push(mixed)

    assert not empty.out.exists()


def sampled(inputs: Inputs, folder: Path, users: int) -> Inputs:
    """The same evaluation of as many users as the stage would choose."""
    asked = asked_users(load_sequences(inputs.sequences), "test", users, inputs.sequences)
    evaluation = shutil.copytree(inputs.evaluation, folder)
    ranks = pq.read_table(evaluation / "ranks.parquet").take(pa.array(asked.users))
    pq.write_table(ranks, evaluation / "ranks.parquet")
    write_json(evaluation / "metrics.json", mean_metrics(ranks["rank"].to_numpy()))
    return Inputs(model=inputs.model, sequences=inputs.sequences, evaluation=evaluation)


def test_models_are_compared_on_the_evaluated_users(
    store: Store, ranked: tuple[Inputs, Inputs], tmp_path: Path
) -> None:
    worse, better = (sampled(inputs, tmp_path / f"sampled-{place}", 9) for place, inputs in enumerate(ranked))

    decision = decide(PushConfig(gate=STRICT), *better.paths, **store.sides)

    gains = [
        mean_metrics(pq.read_table(each.evaluation / "ranks.parquet")["rank"].to_numpy()) for each in (worse, better)
    ]
    assert decision.champion is not None
    assert decision.champion.metric == pytest.approx(gains[0]["ndcg@20"])
    assert decision.challenger == pytest.approx(gains[1]["ndcg@20"])
    assert decision.champion.better + decision.champion.worse <= 9


def test_ranks_of_other_users_are_refused(empty: Store, ranked: tuple[Inputs, Inputs], tmp_path: Path) -> None:
    inputs = sampled(ranked[0], tmp_path / "sampled", 9)
    ranks = pq.read_table(ranked[0].evaluation / "ranks.parquet")
    for chosen in (ranks.slice(0, 9), ranks.slice(0, 0)):
        pq.write_table(chosen, inputs.evaluation / "ranks.parquet")
        with pytest.raises(UserError, match="not the ranks of the test users"):
            empty.push(inputs)


def test_an_evaluation_of_another_model_is_refused(empty: Store, ranked: tuple[Inputs, Inputs]) -> None:
    better, worse = ranked
    mixed = Inputs(model=worse.model, sequences=worse.sequences, evaluation=better.evaluation)

    with pytest.raises(UserError, match=f"not the ranks of {worse.model}"):
        empty.push(mixed)

    assert not empty.out.exists()


@pytest.mark.parametrize("figure", [0.9, "0.9", None, float("nan")])
def test_a_metric_that_the_ranks_do_not_give_passes_no_floor(
    empty: Store, ranked: tuple[Inputs, Inputs], tmp_path: Path, figure: object
) -> None:
    inputs = ranked[0]
    evaluation = shutil.copytree(inputs.evaluation, tmp_path / "evaluation")
    metrics = json.loads((evaluation / "metrics.json").read_text())
    (evaluation / "metrics.json").write_text(json.dumps(metrics | {"ndcg@20": figure}))

    with pytest.raises(UserError, match=r"metrics\.json: ndcg@20 is .*, but ranks\.parquet gives 0\.\d+; run the"):
        empty.push(Inputs(model=inputs.model, sequences=inputs.sequences, evaluation=evaluation))
    assert not empty.out.exists()


def test_ranks_without_their_columns_are_refused(empty: Store, ranked: tuple[Inputs, Inputs], tmp_path: Path) -> None:
    inputs = ranked[0]
    evaluation = shutil.copytree(inputs.evaluation, tmp_path / "evaluation")
    ranks = pq.read_table(evaluation / "ranks.parquet").drop_columns("rank")
    pq.write_table(ranks, evaluation / "ranks.parquet")

    with pytest.raises(UserError, match="no column 'rank'"):
        empty.push(Inputs(model=inputs.model, sequences=inputs.sequences, evaluation=evaluation))


def test_a_model_that_reads_more_than_is_served_is_refused(
    empty: Store, ranked: tuple[Inputs, Inputs], tmp_path: Path
) -> None:
    inputs = ranked[0]
    sequences = shutil.copytree(inputs.sequences, tmp_path / "sequences")
    split = json.loads((sequences / "split.json").read_text())
    (sequences / "split.json").write_text(json.dumps(split | {"history": 7}))
    folders = (inputs.model, sequences, inputs.evaluation)

    with pytest.raises(UserError, match=r"a window of 8 items, .*keeps 7.*run the sequences stage"):
        push(PushConfig(), *folders, empty.out, **empty.sides)
    with pytest.raises(UserError, match="a window of 8 items"):
        decide(PushConfig(), *folders, **empty.sides)
    assert not empty.out.exists()
    assert empty.versions() == []


def test_days_of_idleness_are_refused_where_the_times_of_a_log_are_only_an_order(
    empty: Store, ranked: tuple[Inputs, Inputs]
) -> None:
    config = PushConfig(idle_days=30, gate=STRICT)

    with pytest.raises(UserError, match=r"push.idle_days counts days.* only an order.*set push.idle_days=0"):
        push(config, *ranked[0].paths, empty.out, **empty.sides)
    with pytest.raises(UserError, match=r"push.idle_days counts days"):
        decide(config, *ranked[0].paths, **empty.sides)
    assert not empty.out.exists()


def test_users_of_long_ago_are_not_published(empty: Store, ranked: tuple[Inputs, Inputs], tmp_path: Path) -> None:
    inputs = ranked[0]
    sequences = shutil.copytree(inputs.sequences, tmp_path / "sequences")
    split = json.loads((sequences / "split.json").read_text())
    (sequences / "split.json").write_text(json.dumps(split | {"time": "real"}))
    histories = pq.read_table(sequences / "histories.parquet")
    rows = histories.to_pylist()
    rows[0]["event_timestamp"] = rows[0]["event_times"][-1] = rows[0]["event_timestamp"] + timedelta(days=31)
    pq.write_table(pa.Table.from_pylist(rows, histories.schema), sequences / "histories.parquet")

    config = PushConfig(idle_days=30, gate=STRICT)
    outcome = push(config, inputs.model, sequences, inputs.evaluation, empty.out, **empty.sides)

    assert (outcome["published_user_history"], outcome["published_user_model_output"]) == (1, 1)


def test_an_unknown_feature_service_leaves_no_champion(empty: Store, ranked: tuple[Inputs, Inputs]) -> None:
    config = PushConfig(feature_service="elcrec_v9", gate=STRICT)

    with pytest.raises(UserError, match="elcrec_v9"):
        push(config, *ranked[0].paths, empty.out, **empty.sides)

    assert empty.sides["registry"].champion("elcrec") is None


def test_recommend_prints_ranked_items_outside_the_history(pushed: Path, ranked: tuple[Inputs, Inputs]) -> None:
    user, history = next(iter(users_of(ranked[0]).items()))

    lines = list(recommend("elcrec", user, 3, **Store(pushed / "store").sides))

    assert f"history    {len(history)} items" in lines
    assert any(line.startswith("intent     ") and line.split()[1].isdigit() for line in lines)
    rows = [line.split() for line in lines[-3:]]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert not {row[1] for row in rows} & set(history)
    assert sorted((float(row[2]) for row in rows), reverse=True) == [float(row[2]) for row in rows]


def test_recommend_marks_the_fallback_for_an_unknown_user(pushed: Path) -> None:
    lines = list(recommend("elcrec", "stranger", 2, **Store(pushed / "store").sides))

    assert "user       stranger (unknown to the feature store)" in lines
    assert any("fallback" in line for line in lines)
    assert len(lines[-1].split()) == 3


def test_recommend_before_any_push_says_what_to_do(empty: Store) -> None:
    with pytest.raises(UserError, match="run `elcrec push` first"):
        list(recommend("elcrec", "user-0", 3, **empty.sides))


def test_killed_at_any_point_and_run_again_the_outcome_is_the_same(
    ranked: tuple[Inputs, Inputs], empty_registry: Path, tmp_path: Path
) -> None:
    points = [None, *killed_push.POINTS]
    case = {
        "inputs": [str(path) for path in ranked[0].paths],
        "work": str(tmp_path),
        "registry": str(empty_registry),
        "users": list(users_of(ranked[0])),
        "points": points,
    }

    subprocess.run([sys.executable, killed_push.__file__, json.dumps(case)], check=True, timeout=300)

    folders = [(point or "undisturbed").replace(" ", "-") for point in points]
    outcomes = {folder: json.loads((tmp_path / folder / "outcome.json").read_text()) for folder in folders}
    expected = outcomes.pop("undisturbed")
    assert expected["versions"] == [1]
    for folder, found in outcomes.items():
        assert found == expected, folder
