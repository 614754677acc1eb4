"""The demo page in a real browser, through its DevTools protocol."""

import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.support.serving import Installation, serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

KEY = "s3cret"
"""What the server asks for, and whoever sits in front of the browser types."""


@contextmanager
def browser(profile: Path) -> Iterator[str]:
    """Run a headless browser; yields the address of its DevTools."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    command += [f"--user-data-dir={profile}", "--window-size=1100,760", "about:blank"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    try:
        yield next(line.split()[-1] for line in process.stderr if "DevTools listening on" in line)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


class Page:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._ids, self.requested = socket, itertools.count(1), []
        self._session: dict[str, str] = {}

    async def open(self, address: str) -> None:
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        await self.call("Network.enable")
        await self.call("Page.enable")
        await self.call("Page.addScriptToEvaluateOnNewDocument", source=f"window.prompt = () => {KEY!r}")
        await self.call("Page.navigate", url=address)

    async def call(self, method: str, **parameters: Any) -> Any:
        number = next(self._ids)
        await self._socket.send(json.dumps({"id": number, "method": method, "params": parameters, **self._session}))
        while True:
            message = json.loads(await self._socket.recv())
            if message.get("method") == "Network.requestWillBeSent":
                self.requested.append(message["params"]["request"]["url"])
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    async def value(self, expression: str) -> Any:
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, expression: str) -> None:
        for _ in range(600):
            if await self.value(expression):
                return
            await asyncio.sleep(0.05)
        pytest.fail(f"never true: {expression}; the page says: {await self.value('document.body.innerText')}")

    async def screenshot(self) -> bytes:
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])


async def visit(devtools: str, address: str) -> bytes:
    async with connect(devtools, max_size=None) as socket:
        page = Page(socket)
        await page.open(address)
        await page.until("document.querySelectorAll('#items button').length === 10")
        assert await page.value("document.querySelector('#intent').textContent.startsWith('No. ')")
        before = await page.value("document.body.dataset.list")
        clicked = await page.value("document.querySelectorAll('#items .name')[1].textContent")
        length = await page.value("+document.querySelector('#length').textContent")

        await page.value("document.querySelectorAll('#items button')[1].click()")
        await page.until("!document.querySelector('#note').hidden")

        after = await page.value("document.body.dataset.list")
        assert after != before
        assert clicked not in after.split()
        assert await page.value("document.querySelector('#history li').textContent") == clicked
        assert await page.value("document.querySelector('#history li').className") == "new"
        assert await page.value("+document.querySelector('#length').textContent") == length + 1
        assert all(url.startswith((address, "data:")) for url in page.requested), page.requested
        picture = await page.screenshot()

        await page.value("user.value = 'a stranger'; who.requestSubmit()")
        await page.until("document.querySelector('#note').textContent.includes('most popular')")
        return picture


def test_a_click_changes_the_list_once_the_key_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ELCREC_DEMO_STORE and ELCREC_DEMO_PICTURE it shows that store, and takes the picture for the docs."""
    monkeypatch.setenv("ELCREC_API_KEY", KEY)
    store, picture = os.environ.get("ELCREC_DEMO_STORE"), os.environ.get("ELCREC_DEMO_PICTURE")
    with browser(tmp_path / "profile") as devtools:
        made = Installation.make(tmp_path, items=40)
        if store:
            made = Installation(folder=Path(store), inputs=made.inputs, features=made.features)
        with serving(made, "store_timeout=10", "event_timeout=20") as server:
            seen = asyncio.run(visit(devtools, f"{server.address}/"))
    if picture:
        Path(picture).write_bytes(seen)
