"""Every document satisfies the schema of its kind, unknown fields included."""

import copy
import importlib.resources
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from referencing import Registry, Resource

from tests.support.kustomize import Document, load, render

ROOT = Path(__file__).parents[3]
SCHEMAS = Path(__file__).parent / "schemas"
CUSTOM = {path.stem for path in SCHEMAS.glob("*.yaml")}
OLDEST, NEWEST = "1.30.0", kubernetes_validate.latest_version()


@cache
def definitions(version: str) -> Resource[Any]:
    folder = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}-local-strict"
    return Resource.from_contents(json.loads((folder / "_definitions.json").read_text(encoding="utf-8")))


def check(document: Document, version: str) -> None:
    """Raise ValidationError unless a document satisfies its kind's schema; unknown fields are errors."""
    if document["kind"] in CUSTOM:
        (schema,) = load(SCHEMAS / f"{document['kind']}.yaml")
        registry = definitions(version) @ Registry()
        jsonschema.Draft202012Validator(schema, registry=registry).validate(document)
    else:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_document_satisfies_its_schema(documents: list[Document], version: str) -> None:
    for document in documents:
        check(document, version)


def test_the_template_of_the_secrets_satisfies_its_schema(template: list[Document]) -> None:
    for document in template:
        check(document, NEWEST)


def find(overlay: str, kind: str) -> Document:
    documents = render(ROOT / "deploy" / "overlays" / overlay)
    return next(copy.deepcopy(d) for d in documents if d["kind"] == kind)


@pytest.mark.parametrize(
    ("overlay", "kind", "spoil"),
    [
        ("example", "StatefulSet", lambda d: d["spec"].update(replica=1)),
        ("example", "NetworkPolicy", lambda d: d["spec"].update(podSelector=[])),
        ("example", "InferenceService", lambda d: d["spec"]["predictor"].update(minReplica=1)),
        ("example", "InferenceService", lambda d: d["spec"]["predictor"]["containers"][0].update(probe={})),
        ("example", "InferenceService", lambda d: d["spec"]["predictor"].update(scaleMetric="load")),
        ("monitoring", "ServiceMonitor", lambda d: d["spec"]["endpoints"][0].update(ports="x")),
        ("monitoring", "PrometheusRule", lambda d: d["spec"]["groups"][0]["rules"][0].update({"for": "2 minutes"})),
        ("feast", "FeatureStore", lambda d: d["spec"]["services"]["onlineStore"].update(servers={})),
        ("feast", "FeatureStore", lambda d: d["spec"]["services"]["registry"]["local"]["persistence"].clear()),
        (
            "feast",
            "FeatureStore",
            lambda d: d["spec"]["services"]["onlineStore"]["persistence"]["store"].update(type="sqlite"),
        ),
    ],
)
def test_a_wrong_field_is_found(overlay: str, kind: str, spoil: Callable[[Document], None]) -> None:
    document = find(overlay, kind)
    check(document, NEWEST)
    spoil(document)

    with pytest.raises(jsonschema.ValidationError):
        check(document, NEWEST)


@pytest.mark.parametrize("overlay", ["example", "small"])
def test_kserve_takes_the_scaling(overlay: str) -> None:
    """KServe's admission compares the two annotations with these very words before it allows a CPU target."""
    service = find(overlay, "InferenceService")
    predictor = service["spec"]["predictor"]

    assert service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"
    assert service["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "hpa"
    assert predictor["scaleMetric"] == "cpu"
    assert 0 < predictor["scaleTarget"] <= 100
    assert 0 < predictor["minReplicas"] <= predictor["maxReplicas"]


def test_the_server_is_asked_by_the_open_inference_protocol() -> None:
    (container,) = find("example", "InferenceService")["spec"]["predictor"]["containers"]
    (port,) = container["ports"]
    paths = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}

    assert container["name"] == "kserve-container"
    assert port["containerPort"] == 8080
    assert {container[name]["httpGet"]["port"] for name in paths} == {8080}
    assert paths == {
        "startupProbe": "/v2/health/live",
        "readinessProbe": "/v2/health/ready",
        "livenessProbe": "/v2/health/live",
    }
