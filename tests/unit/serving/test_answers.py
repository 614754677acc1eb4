"""Features of answers: rules of the bundle, availability without a push, similar items, intents, reasons."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elcrec.artifacts import write_json
from elcrec.config import GroupRule, RulesConfig, ServeConfig, to_dict
from elcrec.errors import UserError
from elcrec.ranking.item_facts import read_items_file
from elcrec.serving.app import App
from elcrec.serving.items_file import ItemsFile
from elcrec.serving.live import Live
from elcrec.serving.recommender import Query, Recommender
from elcrec.serving.telemetry import Telemetry
from elcrec.stages.recommend_all import recommend_all
from tests.support.push_inputs import Inputs, add_model, bundle_of, make_inputs
from tests.support.serving import NAME, Installation

T = TypeVar("T")
ITEMS = 15
CATEGORY = {f"item-{item}": "abc"[item % 3] for item in range(1, ITEMS + 1)}
RULES = RulesConfig(categories={"a": GroupRule(cap=1)}, category_cap=2, exploration=0.2, shown_seconds=60)
Ask = Callable[[httpx.AsyncClient], Awaitable[T]]


def write_items(path: Path, *, gone: str = "item-7", category: dict[str, str] = CATEGORY) -> Path:
    rows = "".join(f"{item},{name},{item != gone}\n" for item, name in category.items())
    path.write_text(f"item_id,category,available\n{rows}")
    return path


def with_rules(inputs: Inputs, rules: RulesConfig) -> Inputs:
    """Say in an evaluation what a model is pushed with."""
    write_json(inputs.evaluation / "rules.json", {"schema_version": 1, "rules": to_dict(rules)})
    facts = read_items_file(write_items(inputs.evaluation.parent / "items.csv"))
    pq.write_table(facts, inputs.evaluation / "item_facts.parquet")
    return inputs


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    return bundle_of(make_inputs(folder / "inputs"), folder / "bundle")


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ruled")
    return bundle_of(with_rules(make_inputs(folder / "inputs"), RULES), folder / "bundle")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    installation = Installation.make(tmp_path_factory.mktemp("answers"))
    inputs = installation.inputs
    installation.push(with_rules(add_model(inputs.sequences.parent, inputs.sequences, model_seed=1), RULES))
    return installation


def asked(installation: Installation, ask: Ask[T], *, items: ItemsFile | None = None) -> T:
    telemetry, config = Telemetry(), ServeConfig(store_timeout=30)
    live = Live(NAME, installation.registry, installation.store, telemetry, items)
    app = App(config, live, installation.store, telemetry)

    async def scene() -> T:
        transport = httpx.ASGITransport(app.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await ask(client)

    return asyncio.run(scene())


def within_caps(item_ids: list[str]) -> bool:
    held = Counter(CATEGORY[item] for item in item_ids)
    return held["a"] <= 1 and max(held.values(), default=0) <= 2 and "item-7" not in item_ids


def test_a_bundle_s_rules_hold_for_every_kind_of_user_alone_and_in_a_batch(ruled: Path) -> None:
    recommender = Recommender.load(ruled, seed=1)
    queries = [Query(history=history, k=5) for history in (["item-1", "item-2"], [], ["lost"], ["item-5"])]

    for answer in [*recommender.recommend(queries * 10), *recommender.recommend(queries[:1])]:
        assert within_caps(answer.item_ids)
        assert len(answer.item_ids) == 5
        assert answer.propensities is not None
        assert all(0 < propensity <= 1 for propensity in answer.propensities)


def test_without_rules_answers_are_as_before_and_name_no_propensity(plain: Path) -> None:
    (answer,) = Recommender.load(plain).recommend([Query(history=["item-1"], k=5)])

    assert answer.propensities is None
    assert answer.scores == sorted(answer.scores, reverse=True)


def test_recommending_for_all_users_follows_the_rules_and_is_reproducible(ruled: Path, tmp_path: Path) -> None:
    rows = {"ann": ["item-1"], "bob": [], "cy": ["item-2", "item-4"]}
    table = {"user_id": list(rows), "item_ids": pa.array(rows.values(), pa.list_(pa.string()))}
    pq.write_table(pa.table(table), tmp_path / "h.parquet")

    for name in ("first.parquet", "second.parquet"):
        recommend_all(ruled, tmp_path / "h.parquet", tmp_path / name, 5)

    first, second = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("first", "second"))
    assert first.equals(second)
    assert all(within_caps(row) and len(row) == 5 for row in first["item_ids"].to_pylist())
    assert [len(row) for row in first["propensities"].to_pylist()] == [5, 5, 5]


def test_rules_of_another_schema_are_refused(tmp_path: Path) -> None:
    inputs = with_rules(make_inputs(tmp_path / "inputs"), RULES)
    write_json(inputs.evaluation / "rules.json", {"schema_version": 9, "rules": {}})

    with pytest.raises(UserError, match="schema version 9"):
        Recommender.load(bundle_of(inputs, tmp_path / "bundle"))


def test_what_was_just_shown_is_not_shown_again_and_each_place_names_its_propensity(installation: Installation) -> None:
    async def ask(client: httpx.AsyncClient) -> list[list[dict[str, Any]]]:
        # With a history of four, six items are left to the third answer, so that not all are of the capped category.
        request = {"user_id": "user-7", "k": 2}
        return [(await client.post("/recommend", json=request)).json()["items"] for _ in range(3)]

    shown = asked(installation, ask)

    items = [each["item_id"] for answer in shown for each in answer]
    assert len(set(items)) == len(items) == 6
    assert all(0 < each["propensity"] <= 1 for answer in shown for each in answer)


def test_availability_changes_without_a_push_and_a_faulty_file_is_named(
    installation: Installation, tmp_path: Path
) -> None:
    path = write_items(tmp_path / "items.csv", gone="item-3")
    items = ItemsFile(path)
    telemetry = Telemetry()
    live = Live(NAME, installation.registry, installation.store, telemetry, items)

    def missing() -> set[str]:
        query = Query(history=["lost"], k=ITEMS)
        recommender = live.current.recommender
        recommender.rules, rules = RulesConfig(), recommender.rules
        items.apply(recommender)
        (answer,) = recommender.recommend([query])
        recommender.rules = rules
        return set(CATEGORY) - set(answer.item_ids)

    assert missing() == {"item-3"}
    write_items(path, gone="item-4")
    os.utime(path, ns=(1, 1))
    live.refresh()
    assert (missing(), live.items_problem) == ({"item-4"}, None)
    path.write_text("nonsense\n1\n")
    live.refresh()
    assert missing() == {"item-4"}
    assert live.items_problem is not None
    assert "no column item_id" in live.items_problem
    write_items(path, category={"item-1": "b"})
    live.refresh()
    assert live.items_problem == "the items file has no item of category a, so its rule does nothing"


def test_a_server_does_not_start_on_an_items_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.csv"):
        ItemsFile(tmp_path / "absent.csv")


def test_a_reason_is_how_far_the_score_falls_had_the_item_never_been_met(plain: Path) -> None:
    recommender, history = Recommender.load(plain), ["item-1", "item-2", "lost", "item-3", "item-2"]
    (answer,) = recommender.recommend([Query(history=history, k=4, explain=True)])
    assert answer.reasons is not None

    for item, score, reasons in zip(answer.item_ids, answer.scores, answer.reasons, strict=True):
        falls = {}
        for left_out in ("item-1", "item-2", "item-3"):
            rest = [each for each in history if each != left_out]
            (without,) = recommender.recommend([Query(history=rest, k=1, allow=[item])])
            falls[left_out] = score - without.scores[0]
        expected = sorted(((fall, met) for met, fall in falls.items() if fall > 0), reverse=True)
        assert [each.item_id for each in reasons] == [met for _, met in expected]
        np.testing.assert_allclose([each.contribution for each in reasons], [f for f, _ in expected], rtol=1e-3)


def test_an_explanation_is_given_where_it_is_asked_for(installation: Installation) -> None:
    async def ask(client: httpx.AsyncClient) -> list[Any]:
        requests = [{"history": ["item-1", "item-2"], "k": 3, "explain": explain} for explain in (True, False)]
        cold = {"history": [], "k": 3, "explain": True}
        return [(await client.post("/recommend", json=request)).json() for request in (*requests, cold)]

    explained, plain, cold = asked(installation, ask)

    named = {reason["item_id"] for item in explained["items"] for reason in item["because"]}
    assert named
    assert named <= {"item-1", "item-2"}
    assert not any("because" in item for answer in (plain, cold) for item in answer["items"])


def test_similar_items_follow_an_item_or_lie_near_it_and_are_available(installation: Installation) -> None:
    async def ask(client: httpx.AsyncClient) -> list[httpx.Response]:
        paths = ["item-1/similar?k=15&kind=near", "item-1/similar?k=3", "lost/similar", "item-1/similar?k=0"]
        paths += ["item-1/similar?kind=odd", "item-1/similar?k=101"]
        return [await client.get(f"/items/{path}") for path in paths]

    near, following, *refused = asked(installation, ask)

    champion = installation.registry.champion(NAME)
    assert champion is not None
    recommender = Recommender.load(champion.bundle)
    vectors = recommender.unit_vectors_DV.T
    cosines = {f"item-{item}": float(vectors[1] @ vectors[item]) for item in range(2, ITEMS + 1) if item != 7}
    found = {each["item_id"]: each["score"] for each in near.json()["items"]}
    assert list(found) == sorted(cosines, key=lambda item: -cosines[item])
    assert found == pytest.approx(cosines, abs=1e-5)
    assert following.json()["kind"] == "next"
    assert len(following.json()["items"]) == 3
    assert [answer.status_code for answer in refused] == [404, 422, 422, 422]


def test_intents_are_listed_with_their_items(installation: Installation) -> None:
    async def ask(client: httpx.AsyncClient) -> tuple[Any, list[Any], list[int]]:
        listed = (await client.get("/intents")).json()["intents"]
        items = [(await client.get(f"/intents/{each['index']}/items?k=100")).json() for each in listed]
        return listed, items, [(await client.get(f"/intents/{index}/items")).status_code for index in ("3", "x", "-1")]

    listed, items, refused = asked(installation, ask)

    assert [each["index"] for each in listed] == [0, 1, 2]
    assert listed[1]["typical_items"] == ["typical-1"]
    assert sum(each["items"] for each in listed) == ITEMS
    found = [each["item_id"] for answer in items for each in answer["items"]]
    assert sorted(found) == sorted(set(CATEGORY) - {"item-7"})
    for answer in items:
        scores = [each["score"] for each in answer["items"]]
        assert scores == sorted(scores, reverse=True)
    assert refused == [404, 404, 404]


def test_the_readiness_names_a_faulty_items_file(installation: Installation, tmp_path: Path) -> None:
    items = ItemsFile(write_items(tmp_path / "items.csv", category={"item-1": "b"}))

    async def ask(client: httpx.AsyncClient) -> Any:
        return (await client.get("/v2/health/ready")).json()

    problems = asked(installation, ask, items=items)["problems"]
    assert problems == ["the items file has no item of category a, so its rule does nothing"]
    assert json.dumps(problems)


def test_v2_names_the_propensity_of_what_is_shown_where_the_rules_explore(installation: Installation) -> None:
    users = {"name": "user_id", "shape": [1], "datatype": "BYTES", "data": ["user-1"]}

    async def ask(client: httpx.AsyncClient) -> dict[str, Any]:
        answer = await client.post("/v2/models/elcrec/infer", json={"inputs": [users]})
        return {each["name"]: each for each in answer.json()["outputs"]}

    outputs = asked(installation, ask)

    assert outputs["propensity"]["shape"] == outputs["item_id"]["shape"]
    (count,) = outputs["count"]["data"]
    assert count
    assert all(0 < chance <= 1 for chance in outputs["propensity"]["data"][:count])
