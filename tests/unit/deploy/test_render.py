"""The overlays' changes to the bases."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.kustomize import CLUSTER_SCOPED, Document, containers, render

ROOT = Path(__file__).parents[3]
NAMES = {"elcrec-train", "elcrec-serve", "redis"}


def by_name(documents: list[Document]) -> dict[tuple[str, str], Document]:
    return {(d["kind"], d["metadata"]["name"]): d for d in documents}


def test_the_renderer_agrees_with_kustomize(overlay: Path) -> None:
    command = ["kustomize", "build"] if shutil.which("kustomize") else ["kubectl", "kustomize"]
    if not shutil.which(command[0]):
        pytest.skip("neither kustomize nor kubectl is installed")
    done = subprocess.run([*command, overlay], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert by_name(render(overlay)) == by_name(list(yaml.safe_load_all(done.stdout)))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"generators": ["x.yaml"]}, id="a field it does not know"),
        pytest.param({"patches": [{"target": {"kind": "Absent"}, "patch": "[]"}]}, id="a patch that hits nothing"),
        pytest.param(
            {"patches": [{"target": {"kind": "A"}, "patch": "[{op: replace, path: /b, value: 1}]"}]},
            id="a path that is not there",
        ),
    ],
)
def test_the_renderer_refuses(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / "a.yaml").write_text("kind: A\nmetadata: {name: a}\n", encoding="utf-8")
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["a.yaml"], **change}), encoding="utf-8")

    with pytest.raises((AssertionError, KeyError)):
        render(tmp_path)


def test_names_are_unique(documents: list[Document]) -> None:
    assert len(by_name(documents)) == len(documents)


def test_everything_is_in_one_namespace(documents: list[Document]) -> None:
    namespaced = {d["metadata"].get("namespace") for d in documents if d["kind"] not in CLUSTER_SCOPED}
    named = {d["metadata"]["name"] for d in documents if d["kind"] == "Namespace"}
    subjects = {s["namespace"] for d in documents for s in d.get("subjects", [])}

    assert len(namespaced) == 1
    assert None not in namespaced
    assert named | subjects <= namespaced


def test_no_secret_takes_part_in_an_installation(documents: list[Document]) -> None:
    """What the operator wants as a secret holds names of variables."""
    values = [value for d in documents if d["kind"] == "Secret" for value in d["stringData"].values()]

    for value in values:
        texts = [str(setting) for setting in yaml.safe_load(value).values()]
        assert not [text for text in texts if "://" in text or "password" in text]


def test_the_template_of_the_secrets_is_empty(template: list[Document]) -> None:
    assert {d["kind"] for d in template} == {"Secret"}
    assert [(d["metadata"]["name"], key) for d in template for key, value in d["stringData"].items() if value] == []
    assert not [d for d in template if "data" in d]


def test_the_template_of_the_secrets_is_part_of_no_overlay(overlay: Path, template: list[Document]) -> None:
    assert not {("Secret", d["metadata"]["name"]) for d in template} & set(by_name(render(overlay)))


def test_every_image_is_named_by_the_overlay(documents: list[Document], overlay: Path) -> None:
    images = [container["image"] for document in documents for container in containers(document)]
    images += [d["spec"]["feastProjectDir"]["packaged"]["image"] for d in documents if d["kind"] == "FeatureStore"]

    assert images or overlay.name == "monitoring"
    for image in images:
        assert image not in NAMES
        assert "@sha256:" in image or ":" in image.rpartition("/")[2]
        assert not image.endswith(":latest")


@pytest.mark.parametrize("base", ["base", "redis", "serving", "feast", "monitoring", "stream"])
def test_base_manifests_name_no_registry_and_no_namespace(base: str) -> None:
    documents = render(ROOT / "deploy" / base)

    assert {c["image"] for d in documents for c in containers(d)} <= NAMES
    assert not [d for d in documents if "namespace" in d["metadata"] or d["kind"] == "Namespace"]


def test_pods_are_held_to_the_restricted_standard(documents: list[Document], overlay: Path) -> None:
    levels = {
        d["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] for d in documents if d["kind"] == "Namespace"
    }

    # The operator's pods cannot meet more; others are applied to a namespace that is there.
    added: set[str] = set()
    others = {"feast": {"baseline"}, "check": added, "monitoring": added, "stream": added}
    assert levels == others.get(overlay.name, {"restricted"})
