import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import httpx
import pytest

from elcrec.config import LimitsConfig, ServeConfig
from elcrec.serving.app import App
from elcrec.serving.live import Live
from elcrec.serving.ports import StoreReplaced
from elcrec.serving.recommender import Recommender
from elcrec.serving.telemetry import Telemetry
from tests.support.serving import NAME, Installation

T = TypeVar("T")
PATIENT = ServeConfig(store_timeout=30, event_timeout=30)
REQUEST = {"history": ["item-1"], "k": 3}
EVENT = {"events": [{"user_id": "user-1", "item_id": "item-1", "event_id": "e1"}]}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation.make(tmp_path_factory.mktemp("app"))


def application(installation: Installation, config: ServeConfig, *api_keys: str) -> App:
    telemetry = Telemetry()
    live = Live(NAME, installation.registry, installation.store, telemetry)
    return App(config, live, installation.store, telemetry, api_keys=api_keys)


Ask = Callable[[httpx.AsyncClient], Awaitable[T]]


def asked(app: App, ask: Ask[T]) -> T:
    async def scene() -> T:
        transport = httpx.ASGITransport(app.asgi, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await ask(client)

    return asyncio.run(scene())


def test_with_a_key_only_health_metrics_and_pages_are_open(installation: Installation) -> None:
    app = application(installation, PATIENT, "s3cret")
    key = {"authorization": "Bearer s3cret"}

    async def ask(client: httpx.AsyncClient) -> list[int]:
        answers = [await client.get(path) for path in ("/v2/health/ready", "/metrics", "/docs", "/demo/users")]
        answers += [await client.post("/recommend", json=REQUEST), await client.post("/events", json=EVENT)]
        answers += [await client.post("/recommend", json=REQUEST, headers=key)]
        answers += [await client.post("/events", json=EVENT, headers=key)]
        return [answer.status_code for answer in answers]

    assert asked(app, ask) == [200, 200, 200, 401, 401, 401, 200, 200]


def test_events_are_taken_from_no_other_page_and_as_json_alone(installation: Installation) -> None:
    async def ask(client: httpx.AsyncClient) -> list[int]:
        plain = await client.post("/events", content=json.dumps(EVENT), headers={"content-type": "text/plain"})
        other = await client.post("/events", json=EVENT, headers={"origin": "https://evil.example"})
        renamed = await client.post("/events", json=EVENT, headers={"host": "evil.example"})
        own = await client.post("/events", json=EVENT, headers={"origin": "http://localhost"})
        return [answer.status_code for answer in (plain, other, renamed, own)]

    assert asked(application(installation, PATIENT), ask) == [415, 403, 403, 200]


def test_ids_may_be_numbers_and_are_known_in_every_spelling(installation: Installation) -> None:
    events = {"events": [{"user_id": 7, "item_id": " item-3", "event_id": 5}]}

    def infer(value: object, datatype: str) -> dict[str, Any]:
        tensor = {"name": "user_id", "shape": [1], "datatype": datatype, "data": [value]}
        return {"inputs": [tensor], "outputs": [{"name": "history_source"}]}

    async def ask(client: httpx.AsyncClient) -> list[Any]:
        pushed = await client.post("/events", json=events)
        asks = [{"user_id": user, "with_history": True} for user in (7, "7.0", " 7")]
        found = [(await client.post("/recommend", json=each)).json()["history"]["item_ids"] for each in asks]
        inferred = [
            await client.post("/v2/models/elcrec/infer", json=infer(*each)) for each in ((7, "INT64"), ("7 ", "BYTES"))
        ]
        similar = await client.get("/items/%20item-3/similar")
        return [
            pushed.json()["accepted"],
            found,
            [each.json()["outputs"][0]["data"] for each in inferred],
            similar.json()["item_id"],
        ]

    assert asked(application(installation, PATIENT), ask) == [1, [["item-3"]] * 3, [["store"]] * 2, "item-3"]


def test_bodies_held_at_a_time_are_limited_and_their_room_is_released(installation: Installation) -> None:
    app = application(installation, ServeConfig(store_timeout=30, limits=LimitsConfig(held_bytes=1000)))
    release = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b" " * 900
        await release.wait()
        yield json.dumps(REQUEST).encode()

    async def ask(client: httpx.AsyncClient) -> list[int]:
        first = asyncio.create_task(client.post("/recommend", content=slow()))
        await asyncio.sleep(0.1)
        refused = await client.post("/recommend", content=b" " * 200)
        ready = await client.get("/v2/health/ready")
        release.set()
        later = [await first, await client.post("/recommend", content=b" " * 900 + json.dumps(REQUEST).encode())]
        return [answer.status_code for answer in (refused, ready, *later)]

    assert asked(app, ask) == [503, 200, 200, 200]


def test_events_that_wait_for_a_slow_store_are_bounded(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ServeConfig(store_timeout=30, event_timeout=0.2, limits=LimitsConfig(event_requests=2))
    app, frozen = application(installation, config), threading.Event()
    monkeypatch.setattr(type(installation.store), "push_events", lambda *_, **__: frozen.wait(30))

    async def ask(client: httpx.AsyncClient) -> list[str]:
        answers = await asyncio.gather(*(client.post("/events", json=EVENT) for _ in range(5)))
        frozen.set()
        assert {answer.status_code for answer in answers} == {503}
        return [answer.json()["error"] for answer in answers]

    said = asked(app, ask)

    assert sum("too many events wait" in each for each in said) == 3


@pytest.mark.parametrize(("patient", "status"), [(True, 200), (False, 503)])
def test_an_outage_is_distinguished_from_a_cold_user_and_readiness_names_it(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, patient: bool, status: int
) -> None:
    app = application(installation, ServeConfig(store_timeout=30, ready_with_problems=patient))

    def replaced(*_: object, **__: object) -> None:
        raise StoreReplaced("emptied")

    users = {"inputs": [{"name": "user_id", "shape": [1], "datatype": "BYTES", "data": ["nobody"]}]}

    async def ask(client: httpx.AsyncClient) -> tuple[list[Any], httpx.Response, str]:
        answers = []
        for outage in (False, True):
            if outage:
                monkeypatch.setattr(type(installation.store), "histories", replaced)
            answer = await client.post("/v2/models/elcrec/infer", json=users)
            answers.append({each["name"]: each["data"] for each in answer.json()["outputs"]})
        return answers, await client.get("/v2/health/ready"), (await client.get("/metrics")).text

    (cold, away), ready, metrics = asked(app, ask)

    assert (cold["history_source"], cold["store_available"]) == (["none"], [True])
    assert (away["history_source"], away["store_available"]) == (["none"], [False])
    assert ready.status_code == status
    (problem,) = ready.json()["problems"]
    assert problem.startswith("the online store is not the one that was published")
    parts = {"champion": 0, "items": 0, "store": 1, "exposures": 0, "challenger": 0}
    assert [f'elcrec_problem{{part="{part}"}} {value}.0' in metrics for part, value in parts.items()] == [True] * 5


def test_answers_are_counted_by_version_and_policy_and_events_by_whether_they_name_an_answer(
    installation: Installation,
) -> None:
    app = application(installation, PATIENT)

    def counted(page: str) -> list[float]:
        policy, labels = ("model", "popular"), 'elcrec_{name}_total{{policy="{policy}",version="1"}}'
        names = [
            labels.format(name=name, policy=each) for name in ("recommendations", "impressions") for each in policy
        ]
        lines = dict(line.rsplit(" ", 1) for line in page.splitlines())
        return [float(lines.get(name, 0)) for name in (*names, "elcrec_following_events_total")]

    async def ask(client: httpx.AsyncClient) -> list[float]:
        # Feast may have counters of one process share their values, which shows once a label has been used.
        for history in (["item-1"], ["unknown"]):
            await client.post("/recommend", json={"history": history})
        before = counted((await client.get("/metrics")).text)
        for history in (["item-1"], ["item-2"], ["unknown"]):
            answer = (await client.post("/recommend", json={"history": history, "k": 3})).json()
        event = {"user_id": "follower", "item_id": "item-1", "answer_id": answer["answer_id"]}
        await client.post("/events", json={"events": [event, {"user_id": "follower", "item_id": "item-2"}]})
        after = counted((await client.get("/metrics")).text)
        return [now - then for then, now in zip(before, after, strict=True)]

    assert asked(app, ask) == [2, 1, 6, 3, 1]


def test_a_failure_of_our_own_is_an_answer_without_details_and_is_counted(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = application(installation, PATIENT)

    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    async def ask(client: httpx.AsyncClient) -> tuple[httpx.Response, httpx.Response]:
        return await client.post("/recommend", json=REQUEST), await client.get("/metrics")

    monkeypatch.setattr(Recommender, "recommend", fail)
    answer, metrics = asked(app, ask)

    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert 'elcrec_request_seconds_count{route="/recommend",status="500"} 1.0' in metrics.text


KSERVE_JSON = b"""\
{"id":"7","model_name":"elcrec","inputs":[{"name":"user_id","shape":[2],"datatype":"BYTES",\
"data":["user-1","user-2"]},{"name":"k","shape":[1],"datatype":"INT64","data":[3]}]}"""
KSERVE_BINARY = (
    b"""\
{"id":"7","model_name":"elcrec","inputs":[{"name":"user_id","shape":[2],"datatype":"BYTES",\
"parameters":{"binary_data_size":20}},{"name":"k","shape":[1],"datatype":"INT64",\
"parameters":{"binary_data_size":8}}],"outputs":[{"name":"item_id","parameters":{"binary_data":true}}]}"""
    b"\x06\x00\x00\x00user-1\x06\x00\x00\x00user-2\x03\x00\x00\x00\x00\x00\x00\x00"
)
KSERVE_HEADERS = {"accept": "*/*", "accept-encoding": "gzip, deflate, br", "user-agent": "python-httpx/0.28.1"}


def test_requests_of_kserve_s_client_0_21_are_answered_in_its_form(installation: Installation) -> None:
    async def ask(client: httpx.AsyncClient) -> tuple[dict[str, Any], bytes]:
        path = "/v2/models/elcrec/infer"
        plain = {**KSERVE_HEADERS, "content-type": "application/json"}
        packed = {**plain, "content-type": "application/octet-stream", "inference-header-content-length": "275"}
        answers = [
            await client.post(path, content=content, headers=headers)
            for content, headers in ((KSERVE_JSON, plain), (KSERVE_BINARY, packed))
        ]
        assert [answer.status_code for answer in answers] == [200, 200]
        return answers[0].json(), answers[1].content[int(answers[1].headers["inference-header-content-length"]) :]

    said, data = asked(application(installation, PATIENT), ask)

    assert said["id"] == "7"
    items, *_ = said["outputs"]
    assert items["shape"] == [2, 3]
    assert data == b"".join(len(item).to_bytes(4, "little") + item.encode() for item in items["data"])
