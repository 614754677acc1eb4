"""The image builds, has the documented properties, and runs the pipeline in containers."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from elcrec.artifacts import code_revision, read_json
from pipelines.cli import main
from tests.support.checkpoints import killing_a_training
from tests.support.containers import build_image, docker, start_engine

TAG = "elcrec:test"

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """The tag of an image built from this checkout."""
    with pytest.MonkeyPatch.context() as patch:
        build_image(start_engine(patch), TAG, "train", "--build-arg", f"REVISION={code_revision()}")
        yield TAG


@pytest.fixture(scope="module")
def serve_image(image: str) -> str:
    """The tag of the server's image; the engine that built the first one runs."""
    build_image(start_engine(pytest.MonkeyPatch()), f"{TAG}-serve", "serve")
    return f"{TAG}-serve"


def in_container(image: str, script: str) -> str:
    return docker("run", "--rm", "--network", "none", "--entrypoint", "", image, "sh", "-ec", script)


def test_the_command_line_starts_and_reports_its_commit(image: str) -> None:
    assert in_container(image, "elcrec --version").startswith("elcrec ")
    assert in_container(image, "printenv ELCREC_GIT_REVISION") == code_revision()


def test_nobody_is_root_and_the_working_directory_is_writable(image: str) -> None:
    assert in_container(image, "id -u") == "10001"
    in_container(image, 'touch "$HOME/x" /app/x')


def test_the_image_holds_no_build_tools_or_tests(image: str) -> None:
    assert in_container(image, "for tool in gcc cc pytest mypy ruff; do command -v $tool || true; done") == ""
    assert in_container(image, "ls -A /app").split() == ["features", "params.yaml", "presets"]
    in_container(image, "test ! -e /etc/pip.conf && test ! -e /build")
    assert in_container(image, "find /opt/venv -type d -name tests") == ""


def test_it_runs_on_a_read_only_root_as_any_user(image: str) -> None:
    locked = ["--network", "none", "--read-only", "--tmpfs", "/tmp", "--user", "12345"]
    assert "usage: elcrec" in docker("run", "--rm", *locked, image, "elcrec", "--help")


def test_the_servers_image_is_small_and_holds_no_trainer_of_pipelines(serve_image: str) -> None:
    size = int(docker("inspect", "--format", "{{.Size}}", serve_image))
    with_cuda = in_container(serve_image, "python3 -c 'import torch; print(torch.version.cuda is not None)'") == "True"
    assert with_cuda or size < 1.2e9
    absent = "import importlib.util as u; print([n for n in ('kfp', 'dvc', 'scipy', 'pytest') if u.find_spec(n)])"
    assert in_container(serve_image, f'python3 -c "{absent}"') == "[]"


def test_the_servers_image_recommends_from_a_store(serve_image: str, pushed: Path) -> None:
    mounted = ["--network", "none", "--tmpfs", "/tmp", "--volume", f"{pushed}:/store", "--user", f"{os.getuid()}"]
    said = docker("run", "--rm", *mounted, serve_image, "elcrec", "recommend", "--store", "/store", "--user", "u3")
    assert "model      elcrec version 1" in said


def test_bytecode_is_compiled(image: str) -> None:
    module = "import elcrec.config as m, pathlib; print(pathlib.Path(m.__cached__).exists())"
    assert in_container(image, f"python3 -c '{module}'") == "True"


@pytest.fixture(scope="module")
def pushed(image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store after the whole pipeline ran in containers."""
    folder = tmp_path_factory.mktemp("pipeline")
    params = {
        "fetch": {"dataset": "sample", "synthetic": {"users": 200, "items": 60, "intents": 4}},
        "train": {"intents": {"num_intents": 4}, "epochs": 2},
        "evaluate": {"bootstrap": 20},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    run_pipeline(folder, image, "seed=3")
    return folder / "store"


def run_pipeline(folder: Path, image: str, *parameters: str) -> Path:
    """Run the pipeline in containers; return the folder of the run."""
    earlier = set((folder / "runs").glob("elcrec-*/"))
    places = ["--root", str(folder / "runs"), "--store", str(folder / "store")]
    command = ["run", "--docker", "--image", image, "--params", str(folder / "params.yaml")]
    assert main([*command, *places, *(part for name in parameters for part in ("--param", name))]) == 0
    (run,) = (path for path in set((folder / "runs").glob("elcrec-*/")) - earlier if path.is_dir())
    return run


def test_the_pipeline_runs_in_containers_on_the_sample(pushed: Path) -> None:
    (run,) = (pushed.parent / "runs").glob("elcrec-*")
    assert read_json(run / "train" / "model" / "config.json")["train"]["seed"] == 3
    assert read_json(run / "push" / "pushed" / "gate.json")["accepted"]
    assert (
        (run / "outcome" / "summary").read_text(encoding="utf-8").startswith("**elcrec-training succeeded, pushed** (")
    )


def kill_the_train_container() -> bool:
    found = docker("ps", "--quiet", "--filter", f"ancestor={TAG}").split()
    trains = [name for name in found if '"train"' in docker("inspect", "--format", "{{json .Args}}", name)]
    for name in trains:
        docker("kill", "--signal", "KILL", name)
    return bool(trains)


def test_a_killed_train_container_resumes_and_a_refused_model_leaves_the_champion(image: str, pushed: Path) -> None:
    folder = pushed.parent
    with killing_a_training(folder / "runs" / "workspace", epochs=3, kill=kill_the_train_container) as killed:
        run = run_pipeline(folder, image, "epochs=60", "min_ndcg=1", 'overrides={"train": {"patience": 60}}')

    assert killed.is_set()
    (resumed,) = re.findall(r"resuming after epoch (\d+)", (run / "log.txt").read_text(encoding="utf-8"))
    assert int(resumed) >= 3
    assert not (run / "push").exists()
    said = (run / "outcome" / "summary").read_text(encoding="utf-8")
    assert said.startswith("**elcrec-training succeeded, not pushed** (")
    assert "version 1 still serves" in said
