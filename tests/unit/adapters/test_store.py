import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from elcrec.adapters import store
from elcrec.adapters.quiet import quiet
from elcrec.adapters.store import open_store
from elcrec.errors import UserError
from tests.support.feature_tables import tables
from tests.support.servers import postgres_server, redis_server

REPOSITORY = Path(__file__).parents[3] / "features"


def test_opening_a_store_reads_and_writes_nothing(tmp_path: Path) -> None:
    open_store(tmp_path / "store")

    assert list(tmp_path.iterdir()) == []


def test_the_environment_points_to_server_and_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "features").mkdir()
    monkeypatch.delenv("ELCREC_FEATURES", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    plain = open_store(Path("store"))
    monkeypatch.setenv("ELCREC_FEATURES", "/app/features")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    pointed = open_store(Path("store"))

    assert (plain.features_repository, plain.tracking_uri) == (tmp_path / "features", None)
    assert plain.folder == tmp_path / "store"
    assert (pointed.features_repository, pointed.tracking_uri) == (Path("/app/features"), "http://mlflow:5000")


MOUNTS = """overlay / overlay rw 0 0
server:/export {share} nfs4 rw,relatime 0 0
tmpfs {share}/memory tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("place", "server", "warned"), [("", "", True), ("/memory", "", False), ("", "http://mlflow:5000", False)]
)
def test_sqlite_on_a_network_file_system_is_warned_of_and_a_server_is_not(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: str,
    server: str,
    warned: bool,
) -> None:
    (tmp_path / "mounts").write_text(MOUNTS.format(share=tmp_path), encoding="utf-8")
    monkeypatch.setattr(store, "_MOUNTS", tmp_path / "mounts")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert open_store(Path(f"{tmp_path}{place}/store")).registry
    assert ("store is on nfs4: SQLite may lose its file if two pods write at the same time" in caplog.text) == warned


def test_the_environment_points_feast_to_redis_and_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with redis_server() as redis, postgres_server() as registry:
        monkeypatch.setenv("ELCREC_FEATURES", str(REPOSITORY))
        monkeypatch.setenv("REDIS", redis.url)
        monkeypatch.setenv("FEAST_REGISTRY", registry)
        open_store(tmp_path / "store").features.publish(tables({"ann": ["i1", "i2"]}), service="elcrec_v1")

        (ann,) = open_store(tmp_path / "store").features.histories(["ann"], service="elcrec_v1")

        assert ann is not None
        assert ann.item_ids == ["i1", "i2"]
        assert redis.client.dbsize() > 0
    assert not list((tmp_path / "store").rglob("*.db"))


def test_opening_a_store_imports_neither_mlflow_nor_feast() -> None:
    program = (
        "import sys; from pathlib import Path; from elcrec.adapters.store import open_store;"
        "open_store(Path('x')); sys.exit(bool({'mlflow', 'feast'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", program], env=os.environ, check=False).returncode == 0


def test_feast_s_registry_server_and_pages_have_what_they_import() -> None:
    pytest.importorskip("grpc", reason="the packages of requirements.lock are not all installed")
    with quiet("feast"):
        servers = [importlib.import_module(f"feast.{name}") for name in ("registry_server", "ui_server")]

    assert all(hasattr(server, "start_server") for server in servers)


def test_histories_that_no_push_would_take_are_refused_before_training(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    store.require_history(50)
    with pytest.raises(UserError, match=r"sequences\.history is 51, but the online store keeps 50"):
        store.require_history(51)
