import asyncio
from pathlib import Path

import httpx
import pytest
from support.serving import NAME, Installation

from elcrec.config import ServeConfig
from elcrec.serving.app import App
from elcrec.serving.live import Live
from elcrec.serving.recommender import Recommender
from elcrec.serving.telemetry import Telemetry


def test_a_failure_of_our_own_is_an_answer_without_details_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation, telemetry = Installation.make(tmp_path), Telemetry()
    live = Live(NAME, installation.registry, installation.store, telemetry)
    app = App(ServeConfig(store_timeout=30), live, installation.store, telemetry)

    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    async def ask() -> tuple[httpx.Response, httpx.Response]:
        transport = httpx.ASGITransport(app.asgi, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            answer = await client.post("/recommend", json={"history": ["item-1"], "k": 3})
            return answer, await client.get("/metrics")

    monkeypatch.setattr(Recommender, "recommend", fail)
    answer, metrics = asyncio.run(ask())

    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert 'elcrec_request_seconds_count{route="/recommend",status="500"} 1.0' in metrics.text
