"""Every HTML artifact in a real browser without a network: no requests, no errors, readable."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.simulation.month import DayPlayed
from benchmarks.simulation.page import write_page
from benchmarks.simulation.service import Mode, Served
from benchmarks.simulation.shop import Habits
from elcrec.config import MonitorConfig, PromoteConfig, parse_config, to_dict
from elcrec.data.user_keys import user_key
from elcrec.monitoring.promotion import decide
from elcrec.pages.promote import write_promotion_page
from elcrec.serving.arms import Arm
from elcrec.serving.exposure_files import EXPOSURE_SCHEMA
from elcrec.stages.evaluate import evaluate
from elcrec.stages.exposures import join_exposures
from elcrec.stages.fetch import fetch
from elcrec.stages.monitor import monitor
from elcrec.stages.sequences import build_sequences
from elcrec.stages.train import train
from elcrec.stages.validate import validate
from tests.support.browser import PROGRAMS, Tab, find_chromium, open_tab
from tests.support.engines import ENGINE
from tests.support.shown_days import Drift, World
from tests.support.tests_of_two import Test

CONFIG = {
    "fetch": {"dataset": "sample", "synthetic": {"users": 300, "items": 80, "intents": 4}},
    "train": {
        "encoder": {"window": 10, "hidden_size": 16, "num_blocks": 1},
        "intents": {"num_intents": 20},
        "epochs": 3,
        "device": "cpu",
    },
    "evaluate": {"bootstrap": 20},
}
PAGES = {
    "validated/validation.html": ("Validation of sample", "Users by history length"),
    "model/training.html": (
        "Training of ELCRec",
        "Validation NDCG@20",
        "num_intents: 20",
        "Effective number of intents",
    ),
    "baseline/training.html": ("Training of SASRec", "Seconds per epoch"),
    "evaluation/report.html": ("ELCRec on sample", "Share of users who find their next item", "Groups of users"),
    "evaluation/intents.html": ("Intents of ELCRec on sample", "Planted truth", "Cosine between intents"),
    "plain/intents.html": ("This model has no intents",),
    "monitor/monitor.html": (
        "Monitor: retrain",
        "Click-through rate fell",
        "Distance from the reference days, 1 is the limit",
        "Share of each intent",
        "Share of known histories by length",
        "furthest intent",
    ),
    "simulation/simulation.html": (
        "30 days in the life of a recommender",
        "taste drifts",
        "promotion",
        "What users do, by planted intent",
        "challenger minus champion, doubly robust",
    ),
    "promotion/promote.html": (
        "The challenger becomes champion",
        "Lift of the click-through rate by day, all days so far",
        "conversion must not fall by 5.0% or more",
    ),
    "attributed/online.html": ("What followed from what was shown", "50.00% of the shown items", "By position"),
}
START = datetime(2026, 3, 1, tzinfo=UTC)
WIDTHS = (1200, 700, 390)
"""A window of its own, the panel of the Kubeflow UI, a telephone."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pages of a whole run."""
    root, config = tmp_path_factory.mktemp("run"), parse_config(CONFIG)
    fetch(config.fetch, root / "raw")
    validate(config.validate, root / "raw", root / "validated", engine=ENGINE, accepted=root / "accepted")
    build_sequences(config.sequences, root / "validated", root / "sequences", engine=ENGINE)
    for name, section in (("model", config.train), ("baseline", config.train.as_baseline())):
        train(section, root / "sequences", root / name, checkpoint=root / "checkpoint")
    inputs = {"baseline": root / "baseline", "truth": root / "raw"}
    evaluate(config.evaluate, root / "model", root / "sequences", root / "evaluation", **inputs)
    evaluate(config.evaluate, root / "baseline", root / "sequences", root / "plain")
    write_exposures(root / "shown")
    write_clicks(root / "clicks.parquet")
    given = {"salt": "salt", "engine": ENGINE, "export": root / "clicks.parquet"}
    join_exposures(config.exposures, root / "shown", root / "attributed", **given)
    write_judged_days(root)
    write_simulated_month(root / "simulation")
    write_test_of_two(root / "promotion")
    return root


def write_test_of_two(folder: Path) -> None:
    """The page of a test that the challenger has won."""
    folder.mkdir()
    config, test = PromoteConfig(min_users=500), Test(seed=1, users=4000, lift=0.3)
    decision = decide(config, test.played(), 3, share=test.share)
    dates = [{"date": f"{START + timedelta(days=look.day):%Y-%m-%d}"} for look in decision.looks]
    facts = {"model": "elcrec", "champion": "1", "challenger": "2", "dry_run": False, "config": to_dict(config)}
    document = msgspec.to_builtins(decision) | facts | {"time": START.isoformat(), "looks": dates}
    write_promotion_page(folder / "promote.html", config, decision, document)


def write_judged_days(root: Path) -> None:
    """A monitor's page of days of which the last have fewer clicks."""
    world, attributed = World(seed=1, users=600), root / "days"
    attributed.mkdir()
    days = pa.concat_tables([*world.days(10), *world.days(4, Drift(clicks=0.3))])
    pq.write_table(days, attributed / "attributed.parquet")
    (attributed / "exposures.json").write_text('{"schema_version": 1, "config": {"window": 60}}', encoding="utf-8")
    now = datetime(2026, 3, 16, 1, tzinfo=UTC)
    monitor(MonitorConfig(reference_days=6), attributed, root / "monitor", engine=ENGINE, now=now)


def write_simulated_month(folder: Path) -> None:
    """The page of a month in which a drift on day 15 is noticed, and a new model is tried and promoted."""
    folder.mkdir()
    notes = {
        15: [("drift", "Taste drifts.")],
        16: [("retrain", "Click-through rate fell: 15% -> 9%."), ("challenger", "Version 2 passes the gate.")],
        17: [("split", "Both answer.")],
        21: [("promote", "It is better.")],
    }
    modes: dict[int, Mode] = {17: "shadow"} | dict.fromkeys(range(18, 22), "split")
    days = []
    for number in range(1, 31):
        arms: list[Arm] = ["champion", "challenger"] if modes.get(number) == "split" else ["champion"]
        clicks = {arm: 4000 if number < 15 or number > 21 or arm == "challenger" else 2500 for arm in arms}
        served = Served(answers=Counter(dict.fromkeys(arms, 3000)), clicks=Counter(clicks))
        served.wanted.update({intent: 10 * (intent + number) for intent in range(12)})
        verdict = "learning" if number < 8 else "retrain" if 15 < number < 22 else "fine"
        date = f"2025-06-{number:02d}"
        day = DayPlayed(number=number, date=date, mode=modes.get(number, "off"), champion="1", served=served)
        day.verdict, day.notes = verdict, notes.get(number, [])
        days.append(day)
    one = {"mean": 0.1, "low": 0.09, "high": 0.11}
    estimates = dict.fromkeys(("logged", "ips", "snips", "doubly_robust", "difference"), one)
    log = {"answers": 900, "users": 800, "problem": None, "estimates": estimates}
    write_page(folder / "simulation.html", days, Habits(), {"on_the_log": log})


def write_exposures(folder: Path) -> None:
    """Two items that were shown to each of twelve users, a day each."""
    folder.mkdir()
    fixed = {"item_ids": ["i1", "i2"], "scores": [2.0, 1.0], "policy": "model", "known": 3, "model": "elcrec"}
    rows = [
        {"answer_id": f"a{day}", "time": START + timedelta(days=day), "user_key": user_key(f"u{day}", "salt")}
        | {"intent": day % 3, "version": "1", "digest": "0123456789"}
        | fixed
        for day in range(12)
    ]
    pq.write_table(pa.Table.from_pylist(rows, EXPOSURE_SCHEMA), folder / "shown.parquet")


def write_clicks(path: Path) -> None:
    """A click of each of them on one of the items."""
    times = [START + timedelta(days=day, seconds=5) for day in range(12)]
    users, items = [f"u{day}" for day in range(12)], [f"i{1 + day % 2}" for day in range(12)]
    pq.write_table(pa.table({"user_id": users, "item_id": items, "timestamp": times}), path)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    program = find_chromium()
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(PROGRAMS)} is installed")
    with open_tab(program, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_all_it_has_to_a_browser_without_a_network(pages: Path, tab: Tab, page: str, width: int) -> None:
    visit = tab.visit(pages / page, width=width)
    assert visit.requests == []
    assert visit.complaints == []
    assert [text for text in PAGES[page] if text not in visit.text] == []
    assert visit.overflow <= 0
    assert visit.empty_charts == 0


def test_what_must_not_happen_would_be_seen(tab: Tab, tmp_path: Path) -> None:
    bad = "<p style='width:2000px'>x<svg style='height:0'></svg><script src='http://cdn.example/a.js'></script>"
    (tmp_path / "bad.html").write_text(f"<!doctype html>{bad}<script>console.error('oh'); throw Error('no')</script>")
    visit = tab.visit(tmp_path / "bad.html", width=700)
    assert visit.requests == ["http://cdn.example/a.js"]
    assert any("oh" in said for said in visit.complaints)
    assert len(visit.complaints) >= 3
    assert visit.overflow > 1000
    assert visit.empty_charts == 1


def test_a_reference_that_slips_into_a_page_is_refused_by_the_page_itself(
    pages: Path, tab: Tab, tmp_path: Path
) -> None:
    for source in PAGES:
        page = (pages / source).read_text(encoding="utf-8")
        slipped = "<img src='http://cdn.example/a.png'><script>document.title = 'ran'</script></body>"
        (tmp_path / "page.html").write_text(page.replace("</body>", slipped), encoding="utf-8")
        visit = tab.visit(tmp_path / "page.html", width=700)
        assert visit.requests == []
        assert len([said for said in visit.complaints if "Content Security Policy" in said]) == 2
