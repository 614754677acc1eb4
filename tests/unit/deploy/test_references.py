"""Everything that the manifests name exists: secrets, claims, accounts, variables, commands."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from components._image import IMAGE
from elcrec import cli
from elcrec.adapters import spark_cluster
from elcrec.config import load_config
from tests.support.kustomize import Document, containers, load, render, sections

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
LIBRARIES = {
    "MLFLOW_TRACKING_USERNAME": "mlflow/environment_variables.py",
    "MLFLOW_TRACKING_PASSWORD": "mlflow/environment_variables.py",
    "MLFLOW_S3_ENDPOINT_URL": "mlflow/environment_variables.py",
    "AWS_ACCESS_KEY_ID": "mlflow/store/artifact/s3_artifact_repo.py",
    "AWS_SECRET_ACCESS_KEY": "mlflow/store/artifact/s3_artifact_repo.py",
    "AWS_DEFAULT_REGION": "mlflow/store/artifact/s3_artifact_repo.py",
    "AWS_ENDPOINT_URL": "feast/infra/offline_stores/duckdb.py",
}
"""Variables that a library reads, and the file of it that says so."""
OF_IMAGES = {"REDISCLI_AUTH", "REDIS_PASSWORD"}
"""The first is read by redis-cli, the second is where its value comes from."""
MADE_BY_OTHERS = {("ServiceAccount", "default-editor")}


def present(overlay: Path, template: list[Document]) -> set[tuple[str, str]]:
    documents = [*render(overlay), *template]
    if overlay.name in {"check", "monitoring", "stream"}:
        documents += render(overlay.parent / "example")
    return {(d["kind"], d["metadata"]["name"]) for d in documents} | MADE_BY_OTHERS


def references(document: Document) -> set[tuple[str, str]]:
    """Return kind and name of everything that a document relies on."""
    found = {("ServiceAccount", name) for name in sections(document, "serviceAccountName")}
    found |= {("PersistentVolumeClaim", claim["claimName"]) for claim in sections(document, "persistentVolumeClaim")}
    found |= {("Secret", ref["name"]) for key in ("secretRef", "secretKeyRef") for ref in sections(document, key)}
    found |= {("ConfigMap", ref["name"]) for ref in sections(document, "configMap")}
    found |= {(subject["kind"], subject["name"]) for subject in document.get("subjects", [])}
    if "roleRef" in document:
        found.add((document["roleRef"]["kind"], document["roleRef"]["name"]))
    if document["kind"] == "StatefulSet":
        found.add(("Service", document["spec"]["serviceName"]))
    return found


def test_every_referenced_object_exists(overlay: Path, template: list[Document]) -> None:
    wanted = set().union(*(references(document) for document in render(overlay)))

    assert wanted - present(overlay, template) == set()


def test_keys_of_secrets_are_in_the_template(documents: list[Document], template: list[Document]) -> None:
    keys = {(d["metadata"]["name"], key) for d in template for key in d["stringData"]}
    wanted = {(ref["name"], ref["key"]) for d in documents for ref in sections(d, "secretKeyRef")}

    assert wanted <= keys


def test_stores_of_the_feature_store_name_variables_of_its_servers(template: list[Document]) -> None:
    documents = render(DEPLOY / "overlays" / "feast")
    (store,) = (d for d in documents if d["kind"] == "FeatureStore")
    (texts,) = (d["stringData"] for d in documents if d["kind"] == "Secret")
    secrets = {d["metadata"]["name"]: set(d["stringData"]) for d in template}
    for service in (store["spec"]["services"]["onlineStore"], store["spec"]["services"]["registry"]["local"]):
        given = {key for source in service["server"]["envFrom"] for key in secrets[source["secretRef"]["name"]]}
        assert set(re.findall(r"\$\{(\w+)\}", texts[service["persistence"]["store"]["type"]])) <= given


def test_every_port_leads_to_a_container() -> None:
    documents = render(DEPLOY / "overlays" / "example")
    ports = {port["name"] for d in documents for c in containers(d) for port in c.get("ports", [])}
    numbers = {port["containerPort"] for d in documents for c in containers(d) for port in c.get("ports", [])}
    (service,) = (d for d in documents if d["kind"] == "Service")
    rules = [rule for d in documents for rules in sections(d, "ingress") for rule in rules]
    allowed = {port["port"] for rule in rules for port in rule.get("ports", [])}

    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    assert allowed == numbers | {spark_cluster.PORT}


def test_selectors_select() -> None:
    """Policies, budgets and services find pods by labels that the pods carry."""
    documents = render(DEPLOY / "overlays" / "example")
    labels = [labels for d in documents for labels in _pod_labels(d)]
    selectors = [d["spec"]["selector"] for d in documents if d["kind"] == "Service"]
    selectors += [d["spec"]["selector"]["matchLabels"] for d in documents if d["kind"] == "PodDisruptionBudget"]
    selectors += [d["spec"]["podSelector"]["matchLabels"] for d in documents if d["kind"] == "NetworkPolicy"]
    spreads = [spread for d in documents for spreads in sections(d, "topologySpreadConstraints") for spread in spreads]
    selectors += [spread["labelSelector"]["matchLabels"] for spread in spreads]

    assert len(labels) == 2
    labels.append(spark_cluster.LABELS)
    for selector in selectors:
        assert any(selector.items() <= pod.items() for pod in labels), selector


def test_the_monitor_finds_services_whose_ports_lead_to_pods_with_metrics() -> None:
    documents = [d for name in ("example", "monitoring", "stream") for d in render(DEPLOY / "overlays" / name)]
    (monitor,) = (d["spec"] for d in documents if d["kind"] == "ServiceMonitor")
    labels = [labels for d in documents for labels in _pod_labels(d)]
    ports = {port["name"] for d in documents for c in containers(d) for port in c.get("ports", [])}
    (wanted,) = monitor["selector"]["matchExpressions"]
    found = [
        d["spec"]
        for d in documents
        if d["kind"] == "Service"
        and monitor["selector"]["matchLabels"].items() <= d["metadata"]["labels"].items()
        and d["metadata"]["labels"].get(wanted["key"]) in wanted["values"]
    ]

    assert len(found) == len(wanted["values"])
    (endpoint,) = monitor["endpoints"]
    for service in found:
        assert [port["name"] for port in service["ports"]] == [endpoint["port"]]
        assert service["ports"][0]["targetPort"] in ports
        assert any(service["selector"].items() <= pod.items() for pod in labels)


def test_the_dashboard_is_what_was_generated() -> None:
    (found,) = (d for d in render(DEPLOY / "overlays" / "monitoring") if d["kind"] == "ConfigMap")

    assert found["data"] == {"dashboard.json": (DEPLOY / "monitoring" / "dashboard.json").read_text()}
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_every_pod_of_ours_is_closed_until_a_policy_opens_it() -> None:
    documents = render(DEPLOY / "overlays" / "example")
    (deny,) = (d["spec"] for d in documents if d["metadata"]["name"] == "elcrec-default-deny")

    assert deny["policyTypes"] == ["Ingress"]
    assert not deny.get("ingress")
    for labels in (labels for d in documents for labels in _pod_labels(d)):
        assert deny["podSelector"]["matchLabels"].items() <= labels.items()


def _pod_labels(document: Document) -> Iterator[dict[str, str]]:
    if document["kind"] == "InferenceService":
        yield document["spec"]["predictor"]["labels"]
    else:
        yield from (
            node["metadata"]["labels"]
            for node in sections(document, "template")
            if "containers" in node.get("spec", {})
        )


def granted_rights() -> dict[str, set[tuple[str, str]]]:
    """Resources and verbs by service account."""
    documents = render(DEPLOY / "overlays" / "example")
    granted: dict[str, set[tuple[str, str]]] = {}
    rules = {(d["kind"], d["metadata"]["name"]): d["rules"] for d in documents if "rules" in d}
    for binding in (d for d in documents if "roleRef" in d):
        role = rules[binding["roleRef"]["kind"], binding["roleRef"]["name"]]
        rights = {(resource, verb) for rule in role for resource in rule["resources"] for verb in rule["verbs"]}
        for subject in binding["subjects"]:
            granted.setdefault(subject["name"], set()).update(rights)
    return granted


def test_the_account_of_a_run_may_launch_and_follow_trainjobs_and_sparkapplications() -> None:
    granted = granted_rights()
    needed = {
        *(("sparkapplications", verb) for verb in ("create", "get", "delete")),
        ("events", "list"),
        *(("trainjobs", verb) for verb in ("create", "get", "list", "watch", "patch", "delete")),
        *((kind, verb) for kind in ("trainingruntimes", "clustertrainingruntimes") for verb in ("get", "list")),
        *((kind, verb) for kind in ("pods", "pods/log") for verb in ("get", "list", "watch")),
    }

    assert all(needed <= granted[name] for name in ("elcrec-pipeline", "default-editor"))
    assert not [right for rights in granted.values() for right in rights if "*" in right]


def test_a_driver_of_spark_may_make_executors_and_has_an_account_that_is_here() -> None:
    account = spark_cluster.SparkSettings().service_account
    accounts = {d["metadata"]["name"] for d in render(DEPLOY / "base") if d["kind"] == "ServiceAccount"}
    assert account in accounts
    assert {
        ("pods", "create"),
        ("pods", "watch"),
        ("services", "create"),
        ("configmaps", "create"),
    } <= granted_rights()[account]


VARIABLES = sorted(
    {key for document in load(DEPLOY / "secrets" / "secrets.yaml") for key in document["stringData"]}
    | {
        entry["name"]
        for overlay in (DEPLOY / "overlays").iterdir()
        for document in render(overlay)
        for env in sections(document, "env")
        for entry in env
    }
)


@pytest.mark.parametrize("name", [name for name in VARIABLES if name not in OF_IMAGES])
def test_every_variable_is_read_by_someone(name: str) -> None:
    if name in LIBRARIES:
        package, _, rest = LIBRARIES[name].partition("/")
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        readers = [Path(spec.origin).parent / rest]
    else:
        folders = ("src", "components", "pipelines", "features")
        readers = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]

    assert any(re.search(rf"\b{name}\b", file.read_text(encoding="utf-8")) for file in readers)


def test_variables_of_others_are_used() -> None:
    assert set(LIBRARIES) | OF_IMAGES <= set(VARIABLES)


def test_a_canary_s_pods_are_none_of_the_champion_s_and_have_an_account_and_policies_of_their_own() -> None:
    documents = render(DEPLOY / "overlays" / "canary")
    services = {d["metadata"]["name"]: d["spec"]["predictor"] for d in documents if d["kind"] == "InferenceService"}
    kinds = {"ServiceAccount", "PodDisruptionBudget", "NetworkPolicy"}
    names = {(d["kind"], d["metadata"]["name"]) for d in documents if d["kind"] in kinds}
    champion, challenger = services["elcrec"], services["elcrec-challenger"]

    assert champion["labels"] != challenger["labels"]
    assert {(kind, "elcrec-challenger") for kind in kinds} <= names
    assert challenger["serviceAccountName"] == "elcrec-challenger"
    selectors = [d["spec"]["selector"]["matchLabels"] for d in documents if d["kind"] == "PodDisruptionBudget"]
    for predictor in (champion, challenger):
        assert sum(selector.items() <= predictor["labels"].items() for selector in selectors) == 1
    arguments = [*challenger["containers"][0]["command"], *challenger["containers"][0]["args"]][1:]
    assert arguments[-2:] == ["--set", "serve.alias=challenger"]
    assert load_config(ROOT / "params.yaml", overrides=cli._parser().parse_args(arguments).overrides)


def test_the_servers_command_is_understood() -> None:
    (service,) = (d for d in render(DEPLOY / "serving") if d["kind"] == "InferenceService")
    (container,) = service["spec"]["predictor"]["containers"]
    program, *arguments = [*container["command"], *container["args"]]

    assert program == "elcrec"
    assert cli._parser().parse_args(arguments)


def test_the_consumers_command_is_understood() -> None:
    (deployment,) = (d for d in render(DEPLOY / "stream") if d["kind"] == "Deployment")
    (container,) = containers(deployment)
    program, *arguments = [*container["command"], *container["args"]]

    assert program == "elcrec"
    assert cli._parser().parse_args(arguments).overrides == [
        f"stream.metrics_port={container['ports'][0]['containerPort']}"
    ]


def test_the_images_have_the_pipelines_version() -> None:
    version = IMAGE.rpartition(":")[2]
    for overlay, name in (
        ("example", "elcrec-serve"),
        ("canary", "elcrec-serve"),
        ("feast", "elcrec-serve"),
        ("check", "elcrec-train"),
        ("stream", "elcrec-serve"),
    ):
        (settings,) = load(DEPLOY / "overlays" / overlay / "kustomization.yaml")
        tags = {image["name"]: image["newTag"] for image in settings["images"]}
        assert tags[name].startswith(version)


def test_pipelines_are_given_claims_and_secrets_that_are_here(template: list[Document]) -> None:
    (platform,) = load(ROOT / "pipelines" / "platform.yaml")
    claims = {d["metadata"]["name"] for d in render(DEPLOY / "base") if d["kind"] == "PersistentVolumeClaim"}
    keys = {d["metadata"]["name"]: set(d["stringData"]) for d in template}

    assert set(filter(None, platform["claims"].values())) <= claims == {"elcrec-store", "elcrec-workspace"}
    wanted = {name: set(secret["keys"]) for name, secret in platform["secrets"].items()}
    assert {name for name in wanted if not wanted[name] <= keys.get(name, set())} == set()


def test_the_nodes_of_a_training_have_an_account_that_is_here() -> None:
    (platform,) = load(ROOT / "pipelines" / "platform.yaml")
    accounts = {d["metadata"]["name"] for d in render(DEPLOY / "base") if d["kind"] == "ServiceAccount"}
    assert platform["trainjob"]["service_account"] in accounts
