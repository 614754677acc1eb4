"""The wheel works without a checkout: it contains the parameters, the presets and the Feast repository."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.serving import Server

TINY = (
    "fetch.synthetic.users=200",
    "fetch.synthetic.items=60",
    "fetch.synthetic.intents=4",
    "train.encoder.hidden_size=16",
    "train.intents.num_intents=4",
    "train.epochs=1",
    "evaluate.bootstrap=20",
    "push.gate.floors.ndcg@20=0",
)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """Return the scripts of an environment that holds the wheel, and of this one the packages it needs alone."""
    folder, uv = tmp_path_factory.mktemp("wheel"), Path(sys.executable).parent / "uv"
    subprocess.run([uv, "build", "--quiet", "--wheel", "--out-dir", folder, root], check=True)
    (wheel,) = folder.glob("*.whl")
    environment = folder / "environment"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    python = environment / "bin" / "python"
    subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--python", python, wheel], check=True)
    # A path alone: the editable install's own .pth file, which leads to the checkout, is not read again.
    (own,) = environment.glob("lib/python*/site-packages")
    (own / "needed.pth").write_text(sysconfig.get_path("purelib"))
    return environment / "bin"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory, scripts: Path) -> Path:
    """Return a folder that was empty before `elcrec run`."""
    folder = tmp_path_factory.mktemp("elsewhere")
    done = elcrec(scripts, folder, "run", "--workdir", "work", *(f"--set={each}" for each in TINY))
    assert done.returncode == 0, done.stderr
    return folder


def surroundings() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "ELCREC_FEATURES"}}
    return inherited | {"OMP_NUM_THREADS": "1"}


def elcrec(scripts: Path, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [scripts / "elcrec", *arguments]
    return subprocess.run(command, cwd=folder, env=surroundings(), capture_output=True, text=True, check=False)


def test_a_run_in_an_empty_folder_writes_a_model_a_report_and_a_store(elsewhere: Path) -> None:
    assert {path.name for path in elsewhere.iterdir()} == {"work"}
    assert (elsewhere / "work" / "evaluation" / "report.html").is_file()
    assert (elsewhere / "work" / "store").is_dir()


def test_presets_come_with_the_package_unless_the_folder_has_its_own(scripts: Path, elsewhere: Path) -> None:
    command = ("config", "--preset", "presets/paper.yaml", "--preset", "presets/beauty.yaml")
    assert "dataset: beauty" in elcrec(scripts, elsewhere, *command).stdout

    own = elsewhere / "presets" / "beauty.yaml"
    own.parent.mkdir()
    own.write_text("fetch: {dataset: toys}\n")
    assert "dataset: toys" in elcrec(scripts, elsewhere, *command).stdout
    assert "no such file" in elcrec(scripts, elsewhere, "config", "--preset", "presets/none.yaml").stderr.lower()


def test_the_server_answers_in_an_empty_folder(scripts: Path, elsewhere: Path, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    command = [scripts / "elcrec", "serve", "--store", elsewhere / "work" / "store", "--port", "0"]
    with log.open("w") as stream:
        process = subprocess.Popen(command, cwd=tmp_path, env=surroundings(), stdout=stream, stderr=stream, text=True)
    server = Server(process, log)
    try:
        server.wait_until_ready()
        answer = server.post("/recommend", {"user_id": "u00000", "k": 5})
        assert answer.status == 200, answer.body
        assert len(answer.json["items"]) == 5
        assert server.stop() == 0
    finally:
        process.kill()
        process.wait()
