"""The part of kustomize that deploy/ uses, for machines without it; a test compares it with the real one.

Known: resources, labels (metadata alone), images with further paths for them, patches of JSON operations with a
target, `namespace`, NamespaceTransformer, and configMapGenerator of files. Anything else is refused, so that no field
is silently left out.
"""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]

CLUSTER_SCOPED = {"Namespace", "ClusterRole", "ClusterRoleBinding"}
_KNOWN = {
    "apiVersion",
    "kind",
    "resources",
    "labels",
    "images",
    "patches",
    "namespace",
    "transformers",
    "configurations",
    "configMapGenerator",
}


def load(file: Path) -> list[Document]:
    """Return the documents of a YAML file."""
    return [document for document in yaml.safe_load_all(file.read_text(encoding="utf-8")) if document]


def render(folder: Path) -> list[Document]:
    """Return what `kubectl kustomize FOLDER` prints, in another order."""
    (settings,) = load(folder / "kustomization.yaml")
    unknown = set(settings) - _KNOWN
    assert not unknown, f"{folder}: this renderer does not know {unknown}"
    documents = [document for name in settings["resources"] for document in _resource(folder / name)]
    documents += [_config_map(folder, wanted) for wanted in settings.get("configMapGenerator", [])]
    for patch in settings.get("patches", []):
        _patch(documents, patch)
    if "namespace" in settings:
        _set_namespace(documents, settings["namespace"], all_subjects=False)
    for name in settings.get("transformers", []):
        (transformer,) = load(folder / name)
        assert (transformer["kind"], transformer["setRoleBindingSubjects"]) == (
            "NamespaceTransformer",
            "allServiceAccounts",
        )
        _set_namespace(documents, transformer["metadata"]["namespace"], all_subjects=True)
    for labels in settings.get("labels", []):
        assert set(labels) == {"pairs"}
        for document in documents:
            document["metadata"].setdefault("labels", {}).update(labels["pairs"])
    paths = [p for name in settings.get("configurations", []) for p in load(folder / name)[0]["images"]]
    for image in settings.get("images", []):
        for document in documents:
            _set_image(document, image, paths)
    return documents


def containers(node: Any) -> Iterator[Document]:
    """Yield every container of a document, wherever it stands."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in {"containers", "initContainers"}:
                yield from value
            else:
                yield from containers(value)
    elif isinstance(node, list):
        for item in node:
            yield from containers(item)


def _resource(path: Path) -> list[Document]:
    return render(path) if path.is_dir() else load(path)


def _config_map(folder: Path, wanted: Document) -> Document:
    options = wanted["options"]
    assert set(wanted) == {"name", "files", "options"}
    assert set(options) == {"disableNameSuffixHash", "labels"}
    assert options["disableNameSuffixHash"]
    metadata = {"name": wanted["name"], "labels": dict(options["labels"])}
    data = {name: (folder / name).read_text(encoding="utf-8") for name in wanted["files"]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _set_namespace(documents: list[Document], namespace: str, *, all_subjects: bool) -> None:
    for document in documents:
        if document["kind"] == "Namespace":
            document["metadata"]["name"] = namespace
        elif document["kind"] not in CLUSTER_SCOPED:
            document["metadata"]["namespace"] = namespace
        for subject in document.get("subjects", []):
            assert all_subjects, "plain `namespace` treats subjects by rules of its own"
            subject["namespace"] = namespace


def _set_image(document: Document, image: Document, paths: list[Document]) -> None:
    for container in containers(document):
        container["image"] = _renamed(container["image"], image)
    for place in paths:
        if document["kind"] == place["kind"]:
            _edit(document, place["path"].split("/"), lambda old: _renamed(old, image))


def _renamed(old: str, image: Document) -> str:
    if old != image["name"]:
        return old
    name = image.get("newName", old)
    return f"{name}@{image['digest']}" if "digest" in image else f"{name}:{image['newTag']}"


def _patch(documents: list[Document], patch: Document) -> None:
    target = patch["target"]
    assert set(target) <= {"kind", "name"}
    of_kind = [document for document in documents if document["kind"] == target["kind"]]
    hit = [document for document in of_kind if target.get("name") in {None, document["metadata"]["name"]}]
    assert hit, f"no {target}"
    for document in hit:
        for operation in yaml.safe_load(patch["patch"]):
            assert operation["op"] in {"add", "replace"}
            parts = [part.replace("~1", "/") for part in operation["path"].removeprefix("/").split("/")]
            value = copy.deepcopy(operation["value"])
            if operation["op"] == "add":
                _add(document, parts, value)
            else:
                _edit(document, parts, lambda _, value=value: value)


def _add(node: Any, parts: list[str], value: Any) -> None:
    for part in parts[:-1]:
        node = node[int(part) if isinstance(node, list) else part]
    if isinstance(node, list):
        node.insert(len(node) if parts[-1] == "-" else int(parts[-1]), value)
    else:
        node[parts[-1]] = value


def _edit(node: Any, parts: list[str], change: Callable[[Any], Any]) -> None:
    """Replace what stands at a path, which must exist."""
    for part in parts[:-1]:
        node = node[int(part) if isinstance(node, list) else part]
    last: Any = int(parts[-1]) if isinstance(node, list) else parts[-1]
    node[last] = change(node[last])


def sections(node: Any, key: str) -> Iterator[Any]:
    """Yield every value that stands under a key, wherever it does."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from sections(value, key)
    elif isinstance(node, list):
        for item in node:
            yield from sections(item, key)
