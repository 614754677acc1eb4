import os
import subprocess
import sys
from pathlib import Path

import pytest

from elcrec.adapters.store import open_store


def test_opening_a_store_reads_and_writes_nothing(tmp_path: Path) -> None:
    open_store(tmp_path / "store")

    assert list(tmp_path.iterdir()) == []


def test_the_environment_points_to_server_and_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ELCREC_FEATURES", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    plain = open_store(Path("store"))
    monkeypatch.setenv("ELCREC_FEATURES", "/app/features")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    pointed = open_store(Path("store"))

    assert (plain.features_repository, plain.tracking_uri) == (tmp_path / "features", None)
    assert plain.folder == tmp_path / "store"
    assert (pointed.features_repository, pointed.tracking_uri) == (Path("/app/features"), "http://mlflow:5000")


def test_opening_a_store_imports_neither_mlflow_nor_feast() -> None:
    program = (
        "import sys; from pathlib import Path; from elcrec.adapters.store import open_store;"
        "open_store(Path('x')); sys.exit(bool({'mlflow', 'feast'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", program], env=os.environ, check=False).returncode == 0
