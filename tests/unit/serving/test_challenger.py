"""A challenger beside the champion: which users it answers, and that a broken one affects no request."""

import asyncio
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from elcrec.config import ChallengerConfig, ExposureLogConfig, ServeConfig
from elcrec.errors import UserError
from elcrec.serving.app import App
from elcrec.serving.arms import arm_of
from elcrec.serving.engine import Answer, Engine, Question
from elcrec.serving.exposures import ExposureLog
from elcrec.serving.live import Live
from elcrec.serving.recommender import Recommender
from elcrec.serving.telemetry import Telemetry
from tests.support.serving import NAME, Installation, eventually

USERS = [f"user-{number}" for number in range(1, 13)]
ARMS = {user: arm_of(user, test=f"{NAME} 2", share=0.5) for user in USERS}
OUTCOMES = ("compared", "dropped")
VERSION = {"champion": "1", "challenger": "2"}


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """A champion, version 1, and a challenger, version 2."""
    installation = Installation.make(tmp_path_factory.mktemp("challenger"))
    outcome = installation.push_another(seed=1, alias="challenger")
    assert (outcome["version"], outcome["alias"]) == ("2", "challenger")
    return installation


@pytest.fixture
def installation(pushed: Installation, tmp_path: Path) -> Installation:
    shutil.copytree(pushed.folder, tmp_path / "store")
    return Installation(folder=tmp_path / "store", inputs=pushed.inputs, features=pushed.features)


def config(mode: str, **more: Any) -> ServeConfig:
    return ServeConfig(store_timeout=30, challenger=ChallengerConfig(mode=mode, **more))


def live_of(installation: Installation, telemetry: Telemetry) -> Live:
    return Live(NAME, installation.registry, installation.store, telemetry, challenged=True)


def damage(installation: Installation, version: str) -> None:
    found = installation.registry.version(NAME, version)
    assert found is not None
    (found.bundle / "model.safetensors").write_bytes(b"")


def ask(
    installation: Installation,
    live: Live,
    telemetry: Telemetry,
    settings: ServeConfig,
    then: Callable[[], bool] = lambda: True,
    users: Sequence[str | None] = USERS,
) -> list[Answer]:
    """Ask for all users at once; the engine ends once something holds."""
    engine = Engine(settings, live, installation.store, telemetry)

    async def scene() -> list[Answer]:
        return await asyncio.gather(*(engine.ask(Question(user_id=user, history=None, k=3)) for user in users))

    try:
        answers = asyncio.run(scene())
        eventually(then)
        return answers
    finally:
        engine.close()


def metric(telemetry: Telemetry, name: str) -> float:
    lines = telemetry.page().decode().splitlines()
    return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name} "))


def test_users_are_answered_by_their_arm_in_the_order_they_asked_and_each_arm_is_one_batch(
    pushed: Installation,
) -> None:
    telemetry = Telemetry()
    live = live_of(pushed, telemetry)
    batches = metric(telemetry, "elcrec_batch_size_count")

    answers = ask(pushed, live, telemetry, config("split"), users=[*USERS, None])

    assert set(ARMS.values()) == {"champion", "challenger"}
    assert [(answer.arm, answer.serving.version) for answer in answers[:-1]] == [
        (ARMS[user], VERSION[ARMS[user]]) for user in USERS
    ]
    assert (answers[-1].arm, answers[-1].serving.version) == (None, "1")
    for user, answer in zip(USERS, answers[:-1], strict=True):
        histories = pushed.store.histories([user], service="elcrec_v1")
        assert answer.history == ([] if histories[0] is None else histories[0].item_ids), "another user's answer"
    assert metric(telemetry, "elcrec_batch_size_count") - batches == 2


@pytest.mark.parametrize("mode", ["off", "shadow"])
def test_without_a_split_the_champion_answers_all_users_and_no_arm_is_named(pushed: Installation, mode: str) -> None:
    telemetry = Telemetry()

    answers = ask(pushed, live_of(pushed, telemetry), telemetry, config(mode))

    assert {(answer.arm, answer.serving.version) for answer in answers} == {(None, "1")}


def test_a_shadow_is_compared_with_every_sampled_answer(pushed: Installation) -> None:
    telemetry = Telemetry()
    live, name = live_of(pushed, telemetry), 'elcrec_shadow_total{outcome="compared"}'
    before = metric(telemetry, name)
    overlaps = metric(telemetry, "elcrec_shadow_overlap_count")

    ask(
        pushed,
        live,
        telemetry,
        config("shadow", sample=1.0),
        then=lambda: metric(telemetry, name) - before == len(USERS),
    )

    assert metric(telemetry, "elcrec_shadow_overlap_count") - overlaps == len(USERS)
    assert metric(telemetry, "elcrec_shadow_rank_biased_overlap_count") >= len(USERS)
    assert metric(telemetry, 'elcrec_rank_seconds_count{arm="challenger"}') > 0


def test_what_the_queue_of_a_shadow_has_no_room_for_is_counted_and_left_out(pushed: Installation) -> None:
    telemetry = Telemetry()
    live, names = live_of(pushed, telemetry), [f'elcrec_shadow_total{{outcome="{name}"}}' for name in OUTCOMES]
    before = [metric(telemetry, name) for name in names]

    def counted() -> list[float]:
        return [metric(telemetry, name) - known for name, known in zip(names, before, strict=True)]

    answers = ask(
        pushed,
        live,
        telemetry,
        config("shadow", sample=1.0, queue=1),
        then=lambda: sum(counted()) == len(USERS),
    )

    assert len(answers) == len(USERS)
    compared, dropped = counted()
    assert compared > 0
    assert dropped > 0


@pytest.mark.parametrize("mode", ["split", "shadow"])
def test_a_challenger_that_cannot_rank_fails_no_request_and_is_named(
    pushed: Installation, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    telemetry = Telemetry()
    live = live_of(pushed, telemetry)
    recommend, failures = Recommender.recommend, metric(telemetry, "elcrec_challenger_failures_total")
    assert live.challenger is not None

    def broken(self: Recommender, queries: Any) -> Any:
        if self is not live.current.recommender:
            raise ZeroDivisionError
        return recommend(self, queries)

    monkeypatch.setattr(Recommender, "recommend", broken)
    answers = ask(
        pushed,
        live,
        telemetry,
        config(mode, **({"sample": 1.0} if mode == "shadow" else {})),
        then=lambda: live.challenger is not None and live.challenger.problem is not None,
    )

    assert {answer.serving.version for answer in answers} == {"1"}
    # Users in the challenger's arm stay there, so that its failures count against it.
    assert [answer.arm for answer in answers] == [ARMS[user] if mode == "split" else None for user in USERS]
    assert live.challenger.problem == "the challenger does not rank: ZeroDivisionError; the champion answers"
    assert metric(telemetry, "elcrec_challenger_failures_total") - failures == 1
    live.refresh()
    assert live.challenger.challenge is not None
    assert live.challenger.challenge.serving is not None, "it is not tried again"
    assert live.challenger.problem is None


def test_a_challenger_with_a_damaged_bundle_is_reported_and_the_champion_answers(
    installation: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    damage(installation, "2")
    telemetry = Telemetry()
    live = live_of(installation, telemetry)
    live.refresh()

    answers = ask(installation, live, telemetry, config("split"))

    assert live.problem is None
    assert live.challenger is not None
    assert live.challenger.problem is not None
    assert live.challenger.problem.startswith("version 2, the challenger, cannot be served: ")
    assert caplog.text.count("the challenger, cannot be served") == 1
    assert [(answer.arm, answer.serving.version) for answer in answers] == [(ARMS[user], "1") for user in USERS]


def test_a_challenger_that_is_promoted_serves_without_being_loaded_again(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = live_of(installation, Telemetry())
    loaded = live.challenger and live.challenger.loaded
    monkeypatch.setattr(Recommender, "load", lambda *_: pytest.fail("it was loaded again"))

    installation.registry.set_champion(NAME, "2")
    live.refresh()

    assert live.current is loaded
    assert live.challenger is not None
    assert (live.challenger.loaded, live.challenger.challenge, live.challenger.problem) == (None, None, None)
    assert installation.registry.challenger(NAME) is None


def test_a_challenger_is_loaded_and_dropped_with_the_alias(installation: Installation) -> None:
    telemetry = Telemetry()
    live = live_of(installation, telemetry)
    assert live.challenger is not None

    installation.registry.reject(NAME, "2", "worse")
    live.refresh()
    assert live.challenger.loaded is None
    version = installation.push_another(seed=5, alias="challenger")["version"]
    live.refresh()

    assert live.challenger.loaded is not None
    assert (live.challenger.loaded.version, live.current.version) == (version, "1")
    digest = live.challenger.loaded.recommender.manifest.digest
    line = f'elcrec_challenger_info{{digest="{digest}",name="{NAME}",version="3"}}'
    assert metric(telemetry, line) == 1


def test_a_server_of_the_challenger_alone_serves_it_and_without_one_the_champion(installation: Installation) -> None:
    live = Live(NAME, installation.registry, installation.store, Telemetry(), alias="challenger")
    assert (live.current.version, live.challenger) == ("2", None)

    installation.registry.reject(NAME, "2")
    live.refresh()

    assert (live.current.version, live.problem) == ("1", None)


def test_a_registry_that_does_not_answer_leaves_the_test_unchanged(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = live_of(installation, Telemetry())
    assert live.challenger is not None
    before = live.challenger.challenge

    def away(*_: object) -> None:
        raise UserError("MLflow: away")

    with monkeypatch.context() as patched:
        patched.setattr(type(installation.registry), "challenger", away)
        live.refresh()

    assert live.challenger.challenge is before
    assert live.challenger.problem == "the registry does not answer: MLflow: away"
    live.refresh()
    assert live.challenger.problem is None


def test_the_arm_is_in_both_answers_in_the_schema_in_readiness_and_in_the_exposures(
    installation: Installation, tmp_path: Path
) -> None:
    telemetry = Telemetry()
    live, folder = live_of(installation, telemetry), tmp_path / "shown"
    log = ExposureLog(ExposureLogConfig(folder=str(folder)), folder, salt="5a17", telemetry=telemetry)
    app = App(config("split"), live, installation.store, telemetry, exposures=log)
    tensor = {"name": "user_id", "shape": [len(USERS)], "datatype": "BYTES", "data": USERS}
    model = f"/v2/models/{NAME}"

    async def scene() -> list[Any]:
        transport = httpx.ASGITransport(app.asgi)
        async with (
            app.asgi.router.lifespan_context(app.asgi),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            plain = [(await client.post("/recommend", json={"user_id": user, "k": 2})).json() for user in USERS]
            nobody = (await client.post("/recommend", json={"history": ["item-1"], "k": 2})).json()
            several = (await client.post(f"{model}/infer", json={"inputs": [tensor]})).json()
            pinned = (await client.post(f"{model}/versions/1/infer", json={"inputs": [tensor]})).json()
            damage(installation, "2")
            installation.registry.set_challenger(NAME, installation.push_another(seed=7, alias="challenger")["version"])
            damage(installation, "3")
            live.refresh()
            ready = (await client.get("/v2/health/ready")).json()
            schema = (await client.get("/openapi.json")).json()
            return [plain, nobody, several, pinned, ready, schema]

    plain, nobody, several, pinned, ready, schema = asyncio.run(scene())
    assert [(one["arm"], one["model"]["version"]) for one in plain] == [
        (ARMS[user], VERSION[ARMS[user]]) for user in USERS
    ]
    assert "arm" not in nobody
    arms = {
        name: {t["name"]: t["data"] for t in answer["outputs"]}["arm"]
        for name, answer in (("several", several), ("pinned", pinned))
    }
    assert arms == {"several": list(ARMS.values()), "pinned": [""] * len(USERS)}
    assert ready["ready"]
    assert "version 3, the challenger, cannot be served" in ready["problems"][0]
    assert schema["components"]["schemas"]["RecommendResponse"]["properties"]["arm"]["enum"] == [
        "challenger",
        "champion",
    ]
    rows = [row for path in folder.glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert [(row["arm"], row["version"]) for row in rows[: len(USERS)]] == [
        (ARMS[user], VERSION[ARMS[user]]) for user in USERS
    ]
    assert {row["arm"] for row in rows[-len(USERS) :]} == {None}
