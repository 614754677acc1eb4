"""The registry on a real MLflow server on the loopback interface."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from elcrec.adapters.model_registry import MlflowRegistry
from elcrec.errors import UserError
from elcrec.serving.bundle import verify_bundle
from tests.unit.adapters.test_model_registry import make_bundle

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]
_PATIENCE_SECONDS = 120


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail("the MLflow server did not start")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("mlflow-server"), _free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = ["--backend-store-uri", f"sqlite:///{folder}/db", "--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, *stores], stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address, process)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_bundle_that_was_pushed_to_a_server_is_served_from_another_machine(server: str, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, "first")
    here = MlflowRegistry(tmp_path / "here", tracking_uri=server)
    assert here.champion("m") is None
    versions = [here.register("m", bundle, {"ndcg@20": 0.1}, {"split": "x"}) for _ in range(2)]
    here.set_champion("m", versions[0])

    found = MlflowRegistry(tmp_path / "there", tracking_uri=server).champion("m")

    assert versions == ["1", "1"]
    assert found is not None
    assert found.version == "1"
    assert verify_bundle(found.bundle) == verify_bundle(bundle)


def test_a_server_that_is_gone_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    address = f"http://127.0.0.1:{_free_port()}"
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI") as caught:
        MlflowRegistry(tmp_path, tracking_uri=address).champion("m")
    assert "\n" not in str(caught.value)
