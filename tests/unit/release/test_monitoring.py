"""Dashboard and alerts use exposed metrics, and every alert links to its section of the runbook."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import promql_parser
import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from elcrec.serving.app import App
from elcrec.serving.live import Live
from elcrec.serving.stream_metrics import StreamMetrics
from elcrec.serving.telemetry import Telemetry
from release.alerts import ALERTS
from release.dashboard import LEFT_OUT
from release.metrics import defined
from release.monitoring import FOLDER, main, written
from tests.support.serving import NAME, Installation
from tests.unit.serving.test_app import EVENT, PATIENT, REQUEST, asked

ROOT = Path(__file__).parents[3]
OF_SCRAPES = {"namespace", "job", "instance"}
"""Labels that Prometheus adds."""

Series = dict[str, dict[str, set[str]]]
"""Values by label by series."""


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """What a server that was asked and a consumer of a stream expose."""
    installation, telemetry = Installation.make(tmp_path_factory.mktemp("monitored")), Telemetry()
    app = App(PATIENT, Live(NAME, installation.registry, installation.store, telemetry), installation.store, telemetry)

    async def ask(client: httpx.AsyncClient) -> str:
        await client.post("/recommend", json={**REQUEST, "user_id": "user-1"})
        await client.post("/events", json=EVENT)
        telemetry.arms.show_challenger((NAME, "2", "digest"))
        return (await client.get("/metrics")).text

    pages = [asked(app, ask), generate_latest(StreamMetrics().registry).decode()]
    found: Series = {}
    for family in (family for page in pages for family in text_string_to_metric_families(page)):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    return found


def panels() -> dict[str, list[str]]:
    """Queries of the committed dashboard by panel, as Grafana sends them."""
    document = json.loads((FOLDER / "dashboard.json").read_text())
    graphs = (panel for panel in document["panels"] if panel["type"] != "row")
    return {
        panel["title"]: [target["expr"].replace("$__rate_interval", "5m") for target in panel["targets"]]
        for panel in graphs
    }


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["spec"]["groups"]
    return list(group["rules"])


def nodes(query: str, kind: type) -> list[Any]:
    """Nodes of a kind in a query, which must be PromQL with sound types."""
    found: list[Any] = []
    promql_parser.walk(promql_parser.parse(query), found.append)
    return [node for node in found if isinstance(node, kind)]


ALL = [query for queries in panels().values() for query in queries] + [alert["expr"] for alert in alerts()]


def test_the_committed_files_are_those_that_are_generated(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path)]) == 0

    for name, content in written().items():
        assert (tmp_path / name).read_text() == content
        assert (FOLDER / name).read_text() == content, "run `python -m release.monitoring`, and look at the difference"


@pytest.mark.parametrize("query", ALL)
def test_every_query_asks_for_series_and_labels_that_are_exposed(query: str, exposed: Series) -> None:
    selectors = nodes(query, promql_parser.VectorSelector)
    assert selectors
    for selector in selectors:
        assert selector.name in exposed
        for matcher in selector.matchers.matchers:
            assert matcher.name in {*exposed[selector.name], *OF_SCRAPES}
    kept = {label for selector in selectors for label in exposed[selector.name]}
    for aggregate in nodes(query, promql_parser.AggregateExpr):
        grouped = set() if aggregate.modifier is None else set(aggregate.modifier.labels)
        assert grouped <= kept | OF_SCRAPES


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_matches_values_that_its_metric_has(alert: dict[str, Any], exposed: Series) -> None:
    for selector in nodes(alert["expr"], promql_parser.VectorSelector):
        for matcher in selector.matchers.matchers:
            values = exposed[selector.name][matcher.name]
            if matcher.name != "status":  # none has failed
                assert any(re.fullmatch(matcher.value, value) for value in values), (matcher.value, values)


def test_what_is_exposed_has_a_panel_or_is_left_out_for_a_reason(exposed: Series) -> None:
    known, titles = defined(), panels()

    told = {name for name, metric in known.items() if metric.series in exposed}
    assert told == set(known)
    assert {name for name in exposed if name.startswith(("elcrec_", "process_")) and not name.endswith("_created")} <= {
        name + ending for name in known for ending in ("", "_total", "_bucket", "_count", "_sum")
    }
    assert set(known) - set(titles) == set(LEFT_OUT)


def test_every_alert_has_a_section_of_the_runbook_and_links_to_it() -> None:
    headings = re.findall(r"^### (\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)

    assert headings == [alert.name for alert in ALERTS]
    for alert in alerts():
        page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert page.endswith("docs/runbook.md")
        assert anchor == alert["alert"].lower()


def test_every_section_of_the_runbook_says_what_it_means_and_what_to_do() -> None:
    _, *sections = re.split(r"^### ", (ROOT / "docs" / "runbook.md").read_text(), flags=re.MULTILINE)

    for section in sections:
        assert all(f"**{part}**" in section for part in ("Means.", "Look.", "Do.")), section.splitlines()[0]


def test_an_address_of_the_runbook_may_be_named(tmp_path: Path) -> None:
    main(["--out", str(tmp_path), "--runbook", "https://wiki.example/elcrec"])

    assert "runbook_url: https://wiki.example/elcrec#elcrecslow" in (tmp_path / "alerts.yaml").read_text()
