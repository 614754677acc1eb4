"""A bundle of each earlier format is served as by the code that wrote it, and replaced by a push.

`tests/unit/serving/bundles` holds one of each, made by the code of its time from the same small log, with what that
code recommended to one history: before services had a schema, with one, with the temperatures' new names, with the
architecture apart from training, and with rules.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.new_items import TWINS, add_new_items
from tests.support.push_inputs import add_model
from tests.support.serving import NAME, Installation, Server, serving

BUNDLES = sorted((Path(__file__).parents[1] / "unit" / "serving" / "bundles").iterdir())
ROUNDED = 5.1e-5
"""The old programs printed four digits."""


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation.make(tmp_path_factory.mktemp("old"))


@pytest.fixture(scope="module")
def server(installation: Installation) -> Iterator[Server]:
    with serving(installation, "poll=0.1") as server:
        yield server


def answer_of(server: Server, version: str, **request: Any) -> Any:
    """Ask until that version answers."""
    deadline = time.monotonic() + 60
    while True:
        reply = server.post("/recommend", request)
        assert reply.status == 200, reply.body
        if reply.json["model"]["version"] == version:
            return reply.json
        assert time.monotonic() < deadline, (version, reply.json["model"], server.log())
        time.sleep(0.1)


@pytest.mark.parametrize("folder", BUNDLES, ids=[folder.name for folder in BUNDLES])
def test_it_is_served_as_it_was_and_replaced_by_a_push(
    folder: Path, installation: Installation, server: Server
) -> None:
    expected = json.loads((folder / "answer.json").read_text())
    version = installation.registry.register(NAME, folder / "bundle", {}, {})
    installation.registry.set_champion(NAME, version)

    answer = answer_of(server, version, history=expected["history"], k=10)

    assert answer["intent"]["index"] == expected["intent"]
    assert [item["item_id"] for item in answer["items"]] == expected["items"]
    assert [item["score"] for item in answer["items"]] == pytest.approx(expected["scores"], abs=ROUNDED)

    installation.push_another(seed=100 + int(version))

    champion = installation.registry.champion(NAME)
    assert champion is not None
    assert champion.version == str(int(version) + 1)
    assert answer_of(server, champion.version, history=["i1"], k=3)["items"]


def test_a_push_of_a_bundle_with_new_items_has_them_ranked_named_and_met(
    installation: Installation, server: Server
) -> None:
    sequences = installation.inputs.sequences
    installation.push(add_new_items(add_model(sequences.parent, sequences, model_seed=300)))
    champion = installation.registry.champion(NAME)
    assert champion is not None

    answer = answer_of(server, champion.version, history=["item-1", "new-1"], k=20, explain=True)

    new = {item["item_id"] for item in answer["items"] if item.get("new")}
    assert new == set(TWINS) - {"new-1"}, "an item of the history is not shown again"
    assert (answer["history"]["known"], answer["history"]["skipped"]) == (2, 0)
    silent = answer_of(server, champion.version, history=["item-1"], k=20)
    assert not any("new" in item for item in silent["items"])
    event = {"user_id": "somebody", "item_id": "new-2"}
    assert server.post("/events", {"events": [event]}).json["accepted"] == 1
    met = answer_of(server, champion.version, user_id="somebody", k=20)
    assert met["source"] == "model"
    assert "new-2" not in {item["item_id"] for item in met["items"]}
    assert server.get("/items/new-1/similar?kind=near&k=1").json["items"][0]["item_id"] == f"item-{TWINS['new-1']}"
