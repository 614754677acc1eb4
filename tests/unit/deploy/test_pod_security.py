"""Every pod that we describe meets `restricted`, and every rule of it can be broken."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.kustomize import Document, render, sections
from tests.support.pod_security import pods, violations

ROOT = Path(__file__).parents[3]
Pod = dict[str, Any]


def test_every_pod_is_restricted(documents: list[Document]) -> None:
    found = {f"{d['kind']} {d['metadata']['name']}": violations(pod) for d in documents for pod in pods(d)}

    assert {name: broken for name, broken in found.items() if broken} == {}


def test_every_workload_is_found() -> None:
    kinds = {d["kind"] for d in render(ROOT / "deploy" / "overlays" / "example") for _ in pods(d)}

    assert kinds == {"StatefulSet", "InferenceService"}


def test_a_quota_on_requests_and_limits_admits_every_container(documents: list[Document]) -> None:
    """The operator's servers too, whose pods are made from these sections."""
    for document in documents:
        for resources in sections(document, "resources"):
            if isinstance(resources, dict) and "storage" not in resources["requests"]:
                assert set(resources["requests"]) >= {"cpu", "memory"}, document["metadata"]["name"]
                assert set(resources["limits"]) >= {"cpu", "memory"}, document["metadata"]["name"]


def test_istio_injects_no_proxy_into_our_pods(documents: list[Document]) -> None:
    labels = {
        f"{d['kind']} {d['metadata']['name']}": d["spec"]["predictor"]["labels"]
        if d["kind"] == "InferenceService"
        else d["spec"]["template"]["metadata"]["labels"]
        for d in documents
        if d["kind"] in {"InferenceService", "Job", "StatefulSet", "Deployment"}
    }
    assert {name for name, found in labels.items() if found.get("sidecar.istio.io/inject") != "false"} == set()


@pytest.mark.parametrize(
    ("overlay_name", "policy", "port"),
    [("example", "elcrec-server", 8080), ("feast", "elcrec-feast", 8000), ("stream", "elcrec-events", 8081)],
)
def test_prometheus_reaches_what_has_metrics(overlay_name: str, policy: str, port: int) -> None:
    documents = render(ROOT / "deploy" / "overlays" / overlay_name)
    (found,) = (d for d in documents if (d["kind"], d["metadata"]["name"]) == ("NetworkPolicy", policy))
    (rule,) = (rule for rule in found["spec"]["ingress"] if "monitoring" in str(rule["from"]))
    assert [entry["port"] for entry in rule["ports"]] == [port]


@pytest.mark.parametrize("base", ["redis", "serving"])
def test_every_container_may_write_to_tmp(base: str) -> None:
    for pod in (pod for document in render(ROOT / "deploy" / base) for pod in pods(document)):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in pod["containers"]:
            mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert volumes[mounted["/tmp"]]["emptyDir"]["sizeLimit"]


def test_feast_pods_are_as_restricted_as_the_resource_allows() -> None:
    (store,) = (d for d in render(ROOT / "deploy" / "overlays" / "feast") if d["kind"] == "FeatureStore")

    assert store["spec"]["services"]["securityContext"] == {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def first(pod: Pod) -> Pod:
    container: Pod = pod["containers"][0]
    return container


BREAKS: dict[str, Callable[[Pod], Any]] = {
    "host namespaces": lambda pod: pod.update(hostPID=True),
    "volume types": lambda pod: pod["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
    "sysctls": lambda pod: pod["securityContext"].update(sysctls=[{"name": "kernel.msgmax", "value": "1"}]),
    "SELinux": lambda pod: pod["securityContext"].update(seLinuxOptions={"user": "x"}),
    "own account": lambda pod: pod.pop("serviceAccountName"),
    "no token": lambda pod: pod.pop("automountServiceAccountToken"),
    "runAsNonRoot": lambda pod: pod["securityContext"].pop("runAsNonRoot"),
    "runAsUser": lambda pod: first(pod)["securityContext"].update(runAsUser=0),
    "seccompProfile": lambda pod: first(pod)["securityContext"].update(seccompProfile={"type": "Unconfined"}),
    "privileged": lambda pod: first(pod)["securityContext"].update(privileged=True),
    "allowPrivilegeEscalation": lambda pod: first(pod)["securityContext"].pop("allowPrivilegeEscalation"),
    "capabilities dropped": lambda pod: first(pod)["securityContext"]["capabilities"].update(drop=["NET_RAW"]),
    "capabilities added": lambda pod: first(pod)["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
    "procMount": lambda pod: first(pod)["securityContext"].update(procMount="Unmasked"),
    "container SELinux": lambda pod: first(pod)["securityContext"].update(seLinuxOptions={"role": "x"}),
    "host ports": lambda pod: first(pod)["ports"][0].update(hostPort=80),
    "host in probes": lambda pod: first(pod)["livenessProbe"]["httpGet"].update(host="10.0.0.1"),
    "read-only root": lambda pod: first(pod)["securityContext"].update(readOnlyRootFilesystem=False),
    "requests": lambda pod: first(pod)["resources"]["requests"].pop("cpu"),
    "limits": lambda pod: first(pod)["resources"]["limits"].pop("cpu"),
    "memory as asked for": lambda pod: first(pod)["resources"]["requests"].update(memory="1Gi"),
}


@pytest.mark.parametrize(("rule", "spoil"), BREAKS.items(), ids=BREAKS)
def test_a_broken_rule_is_named(rule: str, spoil: Callable[[Pod], Any]) -> None:
    (service,) = (d for d in render(ROOT / "deploy" / "serving") if d["kind"] == "InferenceService")
    (pod,) = copy.deepcopy(list(pods(service)))
    assert violations(pod) == []
    spoil(pod)

    assert violations(pod) == [rule]
