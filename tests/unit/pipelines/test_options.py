"""No option is accepted and ignored: invalid combinations are refused in one line."""

from pathlib import Path

import pytest

from pipelines.cli import _parser
from pipelines.options import CLUSTER, COMPILED, LOCAL
from tests.support.packages import elcrec_pipeline

ROOT = Path(__file__).parents[3]
VALUES = {
    "accelerators": "--accelerators=0",
    "create_experiment": "--create-experiment",
    "docker": "--docker",
    "no_cache": "--no-cache",
    "nodes": "--nodes=1",
    "pipeline": "sweep",
    "presets": "--preset=params.yaml",
    "wait": "--wait",
}
"""How an option is given, where it is not one with any text."""


@pytest.fixture(autouse=True)
def _root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def given(name: str) -> str:
    return VALUES.get(name, f"--{name.replace('_', '-')}=x")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line of a refusal."""
    assert elcrec_pipeline(["submit", *arguments]) == 2
    out, complaint = capsys.readouterr()
    assert out == ""
    assert complaint.count("\n") == 1
    return complaint.removeprefix("elcrec-pipeline: error: ").strip()


def written(name: str) -> str:
    return {"pipeline": "PIPELINE"}.get(name, given(name).partition("=")[0])


@pytest.mark.parametrize("name", LOCAL)
def test_a_run_on_a_cluster_refuses_what_only_this_machine_has(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, given(name))
    assert said == f"{written(name)}: only a run with --local has that; leave it out"


@pytest.mark.parametrize("name", CLUSTER)
def test_a_run_on_this_machine_refuses_what_only_a_cluster_has(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "--local", given(name))
    assert said == f"{written(name)}: only a run on a cluster has that, not one with --local; leave it out"


@pytest.mark.parametrize("name", COMPILED)
def test_a_package_refuses_what_is_compiled(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "--package=tests/golden/training.yaml", "--host=http://127.0.0.1:1", given(name))
    assert said == f"{written(name)}: --package is compiled already; leave it out"


def test_several_are_refused_together(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "--local", "--wait", "--name=x")
    assert said == "--name, --wait: only a run on a cluster has that, not one with --local; leave them out"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image=x"], "--image: components run in an image only with --docker; leave it out"),
        (["--nodes=2", "--platform=PLATFORM"], "nodes: 2: --local trains in one process; give --nodes 1"),
    ],
    ids=["image", "nodes"],
)
def test_a_run_on_this_machine_refuses_what_it_cannot_honour(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "platform.yaml").write_text("claims: {workspace: w}\n", encoding="utf-8")
    arguments = [argument.replace("PLATFORM", str(tmp_path / "platform.yaml")) for argument in arguments]
    assert refused(capsys, "--local", *arguments).startswith(message)


def test_every_option_of_submit_is_one_of_both_or_refused_by_one() -> None:
    both = {"pipeline", "params", "presets", "platform", "image", "nodes", "arguments", "local"}
    options = set(vars(_parser().parse_args(["submit"]))) - {"command", "build"}
    assert options == both | set(CLUSTER) | set(LOCAL)
