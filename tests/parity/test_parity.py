"""Each verb in four places: the command line and the component write the same bytes from the same input."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import dsl

from components._sections import write_sections
from components.evaluate import evaluate
from components.fetch import fetch
from components.gate import gate
from components.push import push
from components.sequences import sequences
from components.train import train
from components.validate import validate
from elcrec import cli
from elcrec.artifacts import MEASURED, read_json
from elcrec.config import load_config

TIMES = {"created"}
PATHS = {"raw": "raw", "validated": "validated", "sequences": "sequences", "model": "model"}


@dataclass(frozen=True)
class Verb:
    """The ports of a component, and the folders of the command line that correspond to them."""

    component: Any
    inputs: tuple[str, ...]
    output: str
    pages: tuple[str, ...] = ()
    section: str | None = None


VERBS: Mapping[str, Verb] = {
    "fetch": Verb(fetch, (), "raw"),
    "validate": Verb(validate, ("raw",), "validated", ("report",)),
    "sequences": Verb(sequences, ("validated",), "sequences"),
    "train": Verb(train, ("sequences",), "model", ("curves",)),
    "baseline": Verb(train, ("sequences",), "model", ("curves",)),
    "evaluate": Verb(evaluate, ("model", "baseline", "sequences", "raw"), "evaluation", ("report", "intents", "card")),
    "push": Verb(push, ("model", "sequences", "evaluation"), "pushed"),
}
FOLDERS = {"pushed": "push"}


def folder_of(verb: str) -> str:
    """Where the command line puts what the component calls its output."""
    output = VERBS[verb].output
    return "baseline" if verb == "baseline" else FOLDERS.get(output, output)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, tiny_params: Callable[[Path], Path]) -> Path:
    """A working directory in which the commands of dvc.yaml ran, in order."""
    folder = tmp_path_factory.mktemp("tree")
    tiny_params(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in dvc_stages().values():
            assert cli.main(stage["cmd"].split()[1:]) == 0
    return folder


def dvc_stages() -> dict[str, Any]:
    path = Path(__file__).parents[2] / "dvc.yaml"
    stages: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]
    return stages


def artifact(kind: type[dsl.Artifact], path: Path) -> dsl.Artifact:
    path.parent.mkdir(parents=True, exist_ok=True)
    return kind(name=path.name, uri=str(path))


def run_component(verb: str, tree: Path, out: Path) -> Path:
    """Run a component on the command line's folders; return the folder of its output."""
    spec = VERBS[verb]
    ports = {name: artifact(dsl.Artifact, tree / "artifacts" / name) for name in spec.inputs}
    ports |= {name: artifact(dsl.Artifact, out / name) for name in (spec.output, *spec.pages)}
    ports["metrics"] = artifact(dsl.Metrics, out / "metrics")
    sections = write_sections(load_config(tree / "params.yaml"))
    parameters = {"config": sections[verb]}
    taken = spec.component.component_spec.inputs
    optional = {name for name in taken if name.startswith("dvc_")}
    optional |= {"workspace", "warm_start", "cluster", "accept_drift", "spark"} & set(taken)
    parameters |= dict.fromkeys(optional, "")
    parameters |= {"engine": sections["engine"]} if "engine" in taken else {}
    parameters |= {"store": str(out / "store")} if "store" in taken else {}
    spec.component.python_func(**parameters, **ports)
    return out / spec.output


def without_times(path: Path) -> Any:
    """Return what a file says, apart from when; pages and what was measured are compared by their presence."""
    if path.name == MEASURED:
        return None
    if path.suffix == ".json":
        return strip(json.loads(path.read_text(encoding="utf-8")))
    return None if path.suffix == ".html" else path.read_bytes()


def strip(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: strip(item) for key, item in value.items() if key not in TIMES}
    return [strip(item) for item in value] if isinstance(value, list) else value


def contents(folder: Path) -> dict[str, Any]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): without_times(path) for path in files}


@pytest.mark.parametrize("verb", VERBS)
def test_the_component_writes_what_the_command_writes(
    verb: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    by_component = contents(run_component(verb, tree, tmp_path))
    by_command = contents(tree / "artifacts" / folder_of(verb))
    assert by_component.keys() == by_command.keys()
    different = [name for name, content in by_command.items() if by_component[name] != content]
    assert not different
    for page in VERBS[verb].pages:
        assert (tmp_path / page).stat().st_size > 0


def test_the_gate_decides_as_push_does(tree: Path, tmp_path: Path) -> None:
    ports = {name: artifact(dsl.Artifact, tree / "artifacts" / name) for name in VERBS["push"].inputs}
    config = write_sections(load_config(tree / "params.yaml"))["push"]
    reason = artifact(dsl.Markdown, tmp_path / "reason")
    accepted = gate.python_func(config=config, store=str(tmp_path / "store"), reason=reason, **ports)
    assert accepted is True
    assert read_json(tree / "artifacts" / "push" / "gate.json")["accepted"] is True
    assert Path(reason.path).read_text(encoding="utf-8") == (tree / "artifacts" / "push" / "gate.md").read_text()
