"""A headless Chromium without a network, driven through DevTools: the requests, errors and content of a page."""

import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",  # not available as root in a container
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--hide-scrollbars",
    "--proxy-server=127.0.0.1:9",  # nobody listens there
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-port=0",
)
LOCAL = ("file:", "data:", "about:")
NETWORK = ("requestWillBeSent", "loadingFailed")
PATIENCE = 60.0


@dataclass(frozen=True, kw_only=True)
class Visit:
    """What happened while a page loaded."""

    requests: list[str]
    """Addresses that the page asked the network for; neither local ones nor what its content policy refused."""
    complaints: list[str]
    """Errors and warnings on the console, refusals of the content policy, exceptions."""
    text: str
    """What can be read on it."""
    overflow: int
    """Pixels by which the page is wider than the window."""
    empty_charts: int
    """SVGs that take up no room."""


def find_chromium() -> str | None:
    """Return the browser, `None` where there is none."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


class Tab:
    """One tab of a running browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._ids, self._session = socket, itertools.count(1), ""
        self._events: list[dict[str, Any]] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def visit(self, page: Path, *, width: int) -> Visit:
        """Load a file in a window of this width."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        self._events.clear()
        self._call("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._receive()
        text = self._evaluate("document.body.innerText")
        overflow = self._evaluate("document.documentElement.scrollWidth - window.innerWidth")
        empty = self._evaluate("[...document.querySelectorAll('svg')].filter(svg => !svg.clientHeight).length")
        return Visit(
            requests=_requests(self._events),
            complaints=[said for said in map(_complaint, self._events) if said],
            text=text,
            overflow=overflow,
            empty_charts=empty,
        )

    def screenshot(self, path: Path, *, height: int | None = None) -> None:
        """Write what is in the window, or the page's first `height` pixels, as PNG."""
        clip = {}
        if height is not None:
            width = self._evaluate("window.innerWidth")
            clip = {"clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}}
        shot = self._call("Page.captureScreenshot", captureBeyondViewport=True, **clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _evaluate(self, expression: str) -> Any:
        return self._call("Runtime.evaluate", expression=expression, returnByValue=True)["result"]["value"]

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._ids)
        command = {"id": number, "method": method, "params": parameters}
        self._socket.send(json.dumps(command | ({"sessionId": self._session} if self._session else {})))
        while True:
            message = self._receive()
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                result: dict[str, Any] = message["result"]
                return result

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv(timeout=PATIENCE))
        if "method" in message:
            self._events.append(message)
        return message


@contextmanager
def open_tab(program: str, profile: Path) -> Iterator[Tab]:
    """Start a browser with a profile of its own, and stop it at the end."""
    command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with connect(_address(profile), max_size=None, proxy=None) as socket:
            yield Tab(socket)
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


def _address(profile: Path) -> str:
    """Wait until the browser has said where it listens."""
    file, end = profile / "DevToolsActivePort", time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if file.is_file() and len(lines := file.read_text().split()) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.05)
    raise TimeoutError(f"the browser did not start: {file} is absent")


def _requests(events: list[dict[str, Any]]) -> list[str]:
    named = {name: [event["params"] for event in events if event["method"] == f"Network.{name}"] for name in NETWORK}
    refused = {failed["requestId"] for failed in named["loadingFailed"] if failed.get("blockedReason") == "csp"}
    sent = [asked["request"]["url"] for asked in named["requestWillBeSent"] if asked["requestId"] not in refused]
    return [url for url in sent if not url.startswith(LOCAL)]


def _complaint(event: dict[str, Any]) -> str | None:
    parameters = event["params"]
    if event["method"] == "Log.entryAdded" and parameters["entry"]["level"] in {"error", "warning"}:
        return str(parameters["entry"]["text"])
    if event["method"] == "Runtime.consoleAPICalled" and parameters["type"] in {"error", "warning", "assert"}:
        return str(parameters["args"])
    if event["method"] == "Runtime.exceptionThrown":
        return str(parameters["exceptionDetails"]["text"])
    return None
