"""No option is accepted and ignored: invalid combinations are refused in one line."""

from pathlib import Path

import pytest

from pipelines.cli import _parser
from pipelines.options import COMPILED
from tests.support.packages import elcrec_pipeline

ROOT = Path(__file__).parents[3]
VALUES = {
    "accelerators": "--accelerators=0",
    "nodes": "--nodes=1",
    "pipeline": "sweep",
    "presets": "--preset=params.yaml",
}
"""How an option is given, where it is not one with any text."""


@pytest.fixture(autouse=True)
def _root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def given(name: str) -> str:
    return VALUES.get(name, f"--{name.replace('_', '-')}=x")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, command: str = "submit") -> str:
    """Return the one line of a refusal."""
    assert elcrec_pipeline([command, *arguments]) == 2
    out, complaint = capsys.readouterr()
    assert out == ""
    assert complaint.count("\n") == 1
    return complaint.removeprefix("elcrec-pipeline: error: ").strip()


def written(name: str) -> str:
    return {"pipeline": "PIPELINE"}.get(name, given(name).partition("=")[0])


@pytest.mark.parametrize("name", COMPILED)
def test_a_compiled_package_refuses_options_that_are_fixed_in_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "--package=tests/golden/training.yaml", "--host=http://127.0.0.1:1", given(name))
    assert said == f"{written(name)}: --package is compiled already; leave it out"


def test_several_are_refused_together(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "--package=tests/golden/training.yaml", "--host=http://127.0.0.1:1", "sweep", "--image=x")
    assert said == "PIPELINE, --image: --package is compiled already; leave them out"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image=x"], "--image: components run in an image only with --docker; leave it out"),
        (["--nodes=2", "--platform=PLATFORM"], "nodes: 2: a run on this machine trains in one process; give --nodes 1"),
    ],
    ids=["image", "nodes"],
)
def test_a_run_on_this_machine_refuses_what_it_cannot_honour(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "platform.yaml").write_text("claims: {workspace: w}\n", encoding="utf-8")
    arguments = [argument.replace("PLATFORM", str(tmp_path / "platform.yaml")) for argument in arguments]
    assert refused(capsys, *arguments, command="run").startswith(message)


def test_the_commands_share_what_is_compiled_and_nothing_of_where_it_runs() -> None:
    here, there = (set(vars(_parser().parse_args([command]))) for command in ("run", "submit"))
    assert here & there == {"command", "pipeline", "params", "presets", "platform", "image", "nodes", "arguments"}
    assert here - there == {"docker", "root", "store"}


@pytest.mark.parametrize("option", ["--wait", "--host=x", "--package=x", "--store-claim=x"])
def test_a_run_on_this_machine_knows_no_option_of_a_cluster(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args(["run", option])
    assert f"unrecognized arguments: {option}" in capsys.readouterr().err


def test_submit_local_names_the_command_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "sweep", "--local", "--wait", "--root", "my runs", "--docker")
    command = "elcrec-pipeline run sweep --root 'my runs' --docker"
    assert said == f"submit --local has become a command of its own, run; type: {command}"
