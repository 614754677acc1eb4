"""Claims about the stage, on a small data set and real, untrained models."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from elcrec.artifacts import md5_of, read_json, write_json
from elcrec.config import (
    EncoderConfig,
    EvaluateConfig,
    GroupRule,
    IntentConfig,
    NewItemsConfig,
    RulesConfig,
    SearchConfig,
    TrainConfig,
)
from elcrec.data.dataset import load_sequences
from elcrec.errors import UserError
from elcrec.evaluation import findings, predictions
from elcrec.evaluation.metrics import MISS, mean_metrics
from elcrec.model.io import load_model, save_model
from elcrec.model.sequence_model import SequenceModel
from elcrec.pages import render, report
from elcrec.ranking.bundled import read_facts, read_rules, read_search
from elcrec.ranking.new_items import read_new_items
from elcrec.stages import evaluate as evaluate_stage
from elcrec.stages.evaluate import evaluate

pytestmark = pytest.mark.slow

NUM_ITEMS, USERS = 40, 60
HOSTILE = "<script>alert('x')</script>"
CONFIG = EvaluateConfig(bootstrap=100, block_users=16)
DATA_FILES = (
    "metrics.json",
    "segments.csv",
    "ranks.parquet",
    "intents.json",
    "intents.parquet",
    "rules.json",
    "model_card.md",
)
PAGES = ("report.html", "intents.html")


def write_sequences(folder: Path, *, repeats: bool = True) -> Path:
    """Write a sequences folder; the last user has no history, the one before her no target."""
    generator = np.random.default_rng(3)
    rows = [generator.permutation(np.arange(1, NUM_ITEMS + 1))[:length] for length in 3 + np.arange(USERS) % 20]
    if repeats:
        for row in rows[:6]:
            row[-1] = row[0]
    rows[-1], rows[-2] = rows[-1][:1], rows[-2][:1]
    lengths = [len(row) for row in rows]
    test = [*(length - 1 for length in lengths[:-2]), -1, 0]
    columns: dict[str, Any] = {
        "user_id": [f"u{user}" for user in range(USERS)],
        "items": pa.array([row.tolist() for row in rows], pa.list_(pa.int32())),
        "train_end": pa.array([max(length - 2, 0) for length in lengths], pa.int32()),
        "valid_index": pa.array([length - 2 if length > 2 else -1 for length in lengths], pa.int32()),
        "test_index": pa.array(test, pa.int32()),
    }
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "sequences.parquet")
    ids = [HOSTILE, *(f"i{item}" for item in range(2, NUM_ITEMS + 1))]
    times = pa.array([1] * NUM_ITEMS, pa.timestamp("s", tz="UTC"))
    items = {"item_index": pa.array(range(1, NUM_ITEMS + 1), pa.int32()), "item_id": ids, "event_timestamp": times}
    pq.write_table(pa.table(items), folder / "items.parquet")
    facts = {"split": "leave_one_out", "num_users": USERS, "num_items": NUM_ITEMS, "num_interactions": sum(lengths)}
    write_json(folder / "split.json", facts | {"md5": md5_of(folder / "sequences.parquet")})
    return folder


def write_model(folder: Path, sequences: Path, *, objective: str = "elcrec", seed: int = 1) -> Path:
    torch.manual_seed(seed)
    encoder = EncoderConfig(window=8, hidden_size=8, num_blocks=1)
    config = TrainConfig(objective=objective, seed=seed, encoder=encoder, intents=IntentConfig(num_intents=4))
    model = SequenceModel(config.model, NUM_ITEMS)
    if model.intents is not None:
        torch.nn.init.normal_(model.intents.centers_KD)
    folder.mkdir(parents=True)
    md5 = read_json(sequences / "split.json")["md5"]
    save_model(model, folder, config, sequences_md5=md5, git_revision=None, epochs=2, best_epoch=1, seconds=3.0)
    header = "epoch,loss,next_item,sequence,intent,cluster,valid_ndcg@20,valid_hr@20,effective_intents,seconds"
    (folder / "history.csv").write_text(f"{header}\n1,2.5,1.4,0.5,0.5,0.1,0.01,0.1,3,1\n2,2.4,1.3,0.5,0.5,0.1,,,3,1\n")
    return folder


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models on one data set, evaluated."""
    folder = tmp_path_factory.mktemp("evaluate")
    sequences = write_sequences(folder / "sequences")
    write_model(folder / "model", sequences)
    write_model(folder / "baseline", sequences, objective="sasrec", seed=2)
    evaluate(CONFIG, folder / "model", sequences, folder / "out", baseline=folder / "baseline")
    return folder


@pytest.fixture(scope="module")
def out(workdir: Path) -> Path:
    return workdir / "out"


def digests(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in DATA_FILES}


def again(workdir: Path, out: Path, config: EvaluateConfig = CONFIG, **inputs: Any) -> Path:
    evaluate(config, workdir / "model", workdir / "sequences", out, **inputs)
    return out


def test_the_folder_has_the_documented_files(out: Path) -> None:
    assert sorted(path.name for path in out.iterdir()) == sorted(["checksums.json", *DATA_FILES, *PAGES])


def test_ranks_are_those_of_a_plain_ranker(workdir: Path, out: Path) -> None:
    model = load_model(workdir / "model")
    test = load_sequences(workdir / "sequences").evaluation("test")
    vectors, items = model.encode(test.histories).vectors, model.item_vectors()
    expected = []
    for user, target in enumerate(test.target_items.tolist()):
        history = set(test.histories.row(user).tolist())
        scores = [
            -np.inf if item in history else float(vectors[user] @ items[item]) for item in range(1, NUM_ITEMS + 1)
        ]
        place = sum(score >= scores[target - 1] for score in scores)
        expected.append(MISS if target in history else place)
    table = pq.read_table(out / "ranks.parquet")
    assert table["rank"].to_pylist() == expected
    assert table["target"].to_pylist() == test.target_items.tolist()


def test_the_metrics_are_those_of_the_ranks(out: Path) -> None:
    metrics, ranks = read_json(out / "metrics.json"), pq.read_table(out / "ranks.parquet").to_pandas()
    for prefix in ("", "popularity_", "baseline_"):
        for name, value in mean_metrics(ranks[f"{prefix}rank"].to_numpy()).items():
            assert metrics[f"{prefix}{name}"] == pytest.approx(value)
    assert metrics["delta_ndcg@20"] == pytest.approx(metrics["ndcg@20"] - metrics["baseline_ndcg@20"])
    assert metrics["ndcg@20_low"] < metrics["ndcg@20"] < metrics["ndcg@20_high"]
    assert metrics["users"] == len(ranks) == USERS - 1


def test_metrics_are_flat_numbers(out: Path) -> None:
    assert all(isinstance(value, int | float) for value in read_json(out / "metrics.json").values())


def test_the_same_inputs_give_the_same_bytes(workdir: Path, out: Path, tmp_path: Path) -> None:
    repeated = again(workdir, tmp_path / "again", baseline=workdir / "baseline")
    assert digests(repeated) == digests(out)


def test_repeated_targets_are_missed_and_the_second_protocol_is_separate(out: Path) -> None:
    metrics, ranks = read_json(out / "metrics.json"), pq.read_table(out / "ranks.parquet")["rank"].to_pylist()
    assert metrics["repeat_target_share"] == pytest.approx(6 / (USERS - 1))
    assert ranks[:6] == [MISS] * 6
    assert "unmasked_ndcg@20" in metrics
    assert "baseline_unmasked_ndcg@20" in metrics


def test_where_repeats_are_allowed_they_are_ranked_and_there_is_one_protocol(
    workdir: Path, out: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sequences = write_sequences(tmp_path / "sequences")
    write_json(sequences / "split.json", read_json(sequences / "split.json") | {"repeats": "allow"})
    evaluate(CONFIG, workdir / "model", sequences, tmp_path / "out")
    found, masked = read_json(tmp_path / "out" / "metrics.json"), read_json(out / "metrics.json")
    assert found["ndcg@20"] == masked["unmasked_ndcg@20"]
    assert max(pq.read_table(tmp_path / "out" / "ranks.parquet")["rank"].to_pylist()) <= NUM_ITEMS
    assert not [name for name in found if "unmasked" in name]
    assert "count as missed" not in caplog.text


def test_many_repeats_among_the_targets_are_reported_first(
    workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (evaluate_stage, report):
        monkeypatch.setattr(module, "MANY_REPEATS", 0.01)
    said = evaluate(CONFIG, workdir / "model", workdir / "sequences", tmp_path / "out")
    assert said["repeat_target_share"] == pytest.approx(6 / (USERS - 1))
    assert "set sequences.repeats=allow" in caplog.text


def test_without_repeats_there_is_one_protocol(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences", repeats=False)
    write_model(tmp_path / "model", sequences)
    metrics = read_json(again(tmp_path, tmp_path / "out") / "metrics.json")
    assert metrics["repeat_target_share"] == 0
    assert not [name for name in metrics if "unmasked" in name]


def test_absent_baseline_and_truth_are_left_out_and_said_so_and_the_run_is_named(workdir: Path, tmp_path: Path) -> None:
    out = again(workdir, tmp_path / "out", run={"id": "5a1b", "namespace": "team"})
    assert not [
        name for name in read_json(out / "metrics.json") if name.startswith(("baseline", "delta", "intent_nmi"))
    ]
    assert pq.read_table(out / "ranks.parquet")["baseline_rank"].null_count == USERS - 1
    assert "No baseline model was given" in (out / "report.html").read_text()
    for page in PAGES:
        text = (out / page).read_text()
        assert "lanted" not in text
        assert re.search(r"Run, id.{1,40}5a1b.{1,40}Run, namespace.{1,40}team", text, re.DOTALL)
    assert "5a1b" not in (out / "model_card.md").read_text(), "the card is part of what a bundle is"


@pytest.mark.parametrize("name", ["baseline", "truth"])
def test_a_folder_that_was_asked_for_and_is_not_there_is_an_error(workdir: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="no such folder"):
        again(workdir, tmp_path / "out", **{name: tmp_path / "nothing"})
    assert not (tmp_path / "out").exists()


def test_a_model_beside_itself_shows_no_difference(workdir: Path, tmp_path: Path) -> None:
    out = again(workdir, tmp_path / "out", baseline=workdir / "model")
    metrics = read_json(out / "metrics.json")
    assert metrics["delta_ndcg@20"] == metrics["delta_ndcg@20_low"] == metrics["delta_ndcg@20_high"] == 0
    assert "No difference to" in (out / "report.html").read_text()


def test_intents_are_those_of_the_model_with_raw_item_ids(workdir: Path, out: Path) -> None:
    test = load_sequences(workdir / "sequences").evaluation("test")
    intents = load_model(workdir / "model").encode(test.histories).intents.tolist()
    table, document = pq.read_table(out / "intents.parquet"), read_json(out / "intents.json")
    assert sum(document["history_lengths"].values()) == pytest.approx(1)
    assert table["intent"].to_pylist() == intents
    assert table["user_id"].to_pylist()[-1] == f"u{USERS - 1}"
    assert intents[-1] == -1
    assert [entry["users"] for entry in document["intents"]] == np.bincount(
        np.array(intents[:-1]), minlength=4
    ).tolist()
    listed = {item["item_id"] for entry in document["intents"] for item in entry["top_items"]}
    assert listed <= {HOSTILE, *(f"i{item}" for item in range(2, NUM_ITEMS + 1))}


def test_the_planted_truth_is_compared(workdir: Path, tmp_path: Path) -> None:
    ids = pq.read_table(workdir / "sequences" / "items.parquet")["item_id"]
    users = pq.read_table(workdir / "sequences" / "sequences.parquet")["user_id"]
    truth = pa.table({"item_id": ids, "intent": pa.array([item % 3 for item in range(NUM_ITEMS)], pa.int32())})
    pq.write_table(truth, tmp_path / "truth_items.parquet")
    held = pa.array([[user % 3] for user in range(USERS)], pa.list_(pa.int32()))
    pq.write_table(pa.table({"user_id": users, "intents": held}), tmp_path / "truth_users.parquet")
    out = again(workdir, tmp_path / "out", truth=tmp_path)
    metrics, page = read_json(out / "metrics.json"), (out / "intents.html").read_text()
    assert f"<b>{metrics['intent_nmi']:.3f}</b>" in page
    assert "Learned beside planted intents" in page
    for name in ("intent_nmi", "intent_nmi_chance", "intent_nmi_single"):
        assert 0 <= metrics[name] <= 1


def test_a_model_without_intents_is_evaluated(workdir: Path, tmp_path: Path) -> None:
    evaluate(CONFIG, workdir / "baseline", workdir / "sequences", tmp_path / "out")
    assert read_json(tmp_path / "out" / "intents.json")["num_intents"] == 0
    assert set(pq.read_table(tmp_path / "out" / "intents.parquet")["intent"].to_pylist()) == {-1}
    assert "effective_intents" not in read_json(tmp_path / "out" / "metrics.json")
    for page in PAGES:
        assert "This model has no intents" in (tmp_path / "out" / page).read_text()


def test_intents_that_collapsed_into_one_are_a_page_that_says_so(workdir: Path, tmp_path: Path) -> None:
    model = load_model(workdir / "model")
    assert model.intents is not None
    torch.nn.init.ones_(model.intents.centers_KD)
    (tmp_path / "model").mkdir()
    facts = {"git_revision": None, "epochs": 2, "best_epoch": 1, "seconds": 3.0}
    md5 = read_json(workdir / "sequences" / "split.json")["md5"]
    save_model(model, tmp_path / "model", TrainConfig(), sequences_md5=md5, **facts)
    evaluate(CONFIG, tmp_path / "model", workdir / "sequences", tmp_path / "out")
    page = (tmp_path / "out" / "intents.html").read_text()
    assert "The intents have collapsed" in page
    assert "nothing to compare" in page


def test_segments_cover_every_user_twice(out: Path) -> None:
    users = pd.read_csv(out / "segments.csv").groupby("segment")["users"].sum()
    assert users.to_dict() == {"history_length": USERS - 1, "target_popularity": USERS - 1}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_one_file_that_needs_no_network(out: Path, name: str) -> None:
    page = (out / name).read_text()
    references = re.findall(r"""(?:src|href|action|data|poster)\s*=\s*["']([^"']*)""", page)
    references += re.findall(r"url\(([^)]*)\)", page)
    assert references
    assert all(reference.strip("\"'").startswith(("#", "data:")) for reference in references)
    assert "@import" not in page
    assert "<script" not in page.lower()
    assert len(page) < 1_500_000


@pytest.mark.parametrize("page", PAGES)
def test_no_id_occurs_twice_in_a_page(out: Path, page: str) -> None:
    ids = re.findall(r'\sid="([^"]*)"', (out / page).read_text())
    assert len(ids) == len(set(ids))


def test_raw_ids_are_escaped_in_the_pages(workdir: Path, tmp_path: Path) -> None:
    out = again(workdir, tmp_path / "out", CONFIG_ALL_ITEMS)
    for name in PAGES:
        page = (out / name).read_text()
        assert "&lt;script&gt;alert" in page
        assert HOSTILE not in page


def test_without_the_extra_nothing_is_written_and_the_error_names_it(
    workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "find_spec", lambda _: None)
    refused("extra report", workdir / "model", workdir / "sequences", tmp_path / "out")


CONFIG_ALL_ITEMS = EvaluateConfig(bootstrap=10, top_items=NUM_ITEMS)


@pytest.mark.parametrize(
    "changed",
    [
        EvaluateConfig(bootstrap=50, block_users=16),
        EvaluateConfig(bootstrap=100, block_users=16, confidence=0.5001),
        EvaluateConfig(bootstrap=100, block_users=16, seed=2),
        EvaluateConfig(bootstrap=100, block_users=16, top_items=1),
    ],
)
def test_every_option_has_an_effect(workdir: Path, out: Path, tmp_path: Path, changed: EvaluateConfig) -> None:
    assert digests(again(workdir, tmp_path / "out", changed, baseline=workdir / "baseline")) != digests(out)


def test_a_sample_of_users_is_the_same_for_all_models_and_reported(workdir: Path, out: Path, tmp_path: Path) -> None:
    config = EvaluateConfig(bootstrap=100, block_users=16, users=20)
    found = again(workdir, tmp_path / "out", config, baseline=workdir / "baseline")
    whole, sample = (pq.read_table(folder / "ranks.parquet").to_pandas() for folder in (out, found))
    assert len(sample) == 20
    pd.testing.assert_frame_equal(whole[whole.user_id.isin(sample.user_id)].reset_index(drop=True), sample)
    metrics = read_json(found / "metrics.json")
    assert metrics["users"] == 20
    assert metrics["test_users"] == len(whole)
    assert metrics["ndcg@20"] == pytest.approx(mean_metrics(sample["rank"].to_numpy())["ndcg@20"])
    segments = pd.read_csv(found / "segments.csv").groupby("segment")["users"].sum()
    assert (segments == 20).all()
    assert "A sample of 20 of the 59 users" in (found / "report.html").read_text()
    assert "20 of 59 test users" in (found / "model_card.md").read_text()
    assert "test_users" not in read_json(out / "metrics.json")


def test_users_that_are_answered_in_parts_get_the_same_answers(
    workdir: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "_USERS_AT_ONCE", 7)
    parts = again(workdir, tmp_path / "out", baseline=workdir / "baseline")
    for name in ("ranks.parquet", "intents.parquet", "segments.csv"):
        assert (parts / name).read_bytes() == (out / name).read_bytes()


ITEMS_FILE = "item_id,category,available,available_until\n" + "".join(
    f"i{item},{'toys' if item % 2 else 'books'},{item % 5 > 0},{1 if item == 3 else ''}\n"
    for item in range(2, NUM_ITEMS + 1)
)
RULES = RulesConfig(
    categories={"toys": GroupRule(cap=3, boost=0.5)}, intent_cap=6, diversity=0.3, calibration=0.2, exploration=0.1
)


@pytest.fixture(scope="module")
def ruled(workdir: Path) -> Path:
    (workdir / "items.csv").write_text(ITEMS_FILE)
    config = EvaluateConfig(bootstrap=100, block_users=16, rules=RULES, items_file=str(workdir / "items.csv"))
    return again(workdir, workdir / "ruled", config, baseline=workdir / "baseline")


def test_the_report_shows_what_each_rule_costs_and_what_all_do(ruled: Path, out: Path) -> None:
    table = pd.read_csv(ruled / "rules.csv").set_index("rule")
    kinds = ["availability", "boosts", "caps", "diversity", "calibration", "exploration"]
    assert list(table.index) == ["no rules", *kinds, "all rules"]
    metrics, plain = read_json(ruled / "metrics.json"), read_json(out / "metrics.json")
    assert table.loc["no rules", "ndcg@20"] == pytest.approx(metrics["ndcg@20"], abs=1e-6)
    assert table.loc["all rules", "ndcg@20"] == pytest.approx(metrics["rules_ndcg@20"], abs=1e-6)
    difference = metrics["rules_ndcg@20"] - metrics["ndcg@20"]
    assert metrics["rules_delta_ndcg@20"] == pytest.approx(difference)
    assert {name: metrics[name] for name in plain} == plain, "rules are beside the model's own numbers"
    assert table.loc["diversity", "likeness"] < table.loc["no rules", "likeness"]
    assert table.loc["availability", "coverage"] < table.loc["no rules", "coverage"]
    page = (ruled / "report.html").read_text()
    assert all(f"<td>{name}</td>" in page for name in table.index)
    assert "All rules together change NDCG@20 by" in (ruled / "model_card.md").read_text()


def test_rules_and_facts_go_with_the_evaluation(ruled: Path, out: Path) -> None:
    assert read_rules(ruled) == RULES
    facts = read_facts(ruled)
    assert facts is not None
    assert facts["item_id"].to_pylist() == [f"i{item}" for item in range(2, NUM_ITEMS + 1)]
    assert read_rules(out) == RulesConfig()
    assert read_facts(out) is None
    assert not (out / "rules.csv").exists()


TITLES = "item_id,category,title\n" + "".join(f"i{item},toys,thing {item % 7}\n" for item in range(2, NUM_ITEMS + 4))
SHARE = 0.3
"""Of the items that are held out, so that a few users of this small log choose one."""


def test_items_and_intents_are_named_by_the_catalogue_and_absent_items_are_counted(
    workdir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "elcrec")
    rows = [f"i{item},Title {item},{'odd' if item % 2 else 'even'},brand {item}" for item in range(4, NUM_ITEMS + 5)]
    (tmp_path / "items.csv").write_text("\n".join(["item_id,title,category,brand", *rows]))
    out = again(workdir, tmp_path / "out", EvaluateConfig(bootstrap=10, items_file=str(tmp_path / "items.csv")))
    said = f"The catalogue lacks 3 of the log's {NUM_ITEMS} items"
    assert any(message.startswith(said) for message in caplog.messages)
    assert said.replace("'", "&#39;") in (out / "report.html").read_text()
    named = [intent for intent in read_json(out / "intents.json")["intents"] if intent.get("name")]
    assert named
    assert all(re.match(r"(odd|even).*: Title \d+", intent["name"]) for intent in named)
    page = (out / "intents.html").read_text()
    assert all(f"<small>{intent['name']}</small>" in page for intent in named if intent["users"])
    assert "brand" in read_facts(out).column_names


def test_an_approximate_search_is_measured_against_the_exact_one_and_goes_with_the_model(
    workdir: Path, out: Path
) -> None:
    plain = read_json(out / "metrics.json")
    whole, narrow = (SearchConfig(kind="approximate", probes=probes, oversampling=1) for probes in (100, 4))
    found = {}
    for name, search in (("whole", whole), ("narrow", narrow)):
        config = EvaluateConfig(bootstrap=100, block_users=16, search=search)
        other = again(workdir, workdir / f"search_{name}", config, baseline=workdir / "baseline")
        found[name] = read_json(other / "metrics.json")
        assert read_search(other) == search
        recall = f'<td class="num">{found[name]["search_recall@20"]:.4f}</td>'
        assert recall in (other / "report.html").read_text(encoding="utf-8")

    assert found["whole"]["search_recall@20"] == found["whole"]["search_complete@20"] == 1
    assert 0 < found["narrow"]["search_recall@20"] < 1
    assert {name: found["narrow"][name] for name in plain} == plain, "all other numbers are those of exact search"
    assert not (out / "search.json").exists()


@pytest.fixture(scope="module")
def new_items(workdir: Path) -> dict[str, Any]:
    """Sources, titles of three items more than the model has, and live events of two of these and of another."""
    (workdir / "titles.csv").write_text(TITLES)
    met = ["i5", f"i{NUM_ITEMS + 1}", "i5", f"i{NUM_ITEMS + 2}", "bogus"]
    rows = [(user, item, time) for user in ("u0", "u1") for time, item in enumerate(met)]
    columns = dict(zip(("user_id", "item_id", "timestamp"), zip(*rows, strict=True), strict=True))
    times = pa.array(columns["timestamp"], pa.timestamp("us", tz="UTC"))
    pq.write_table(pa.table(columns | {"timestamp": times}), workdir / "events.parquet")
    sources = ["co_seen", "text"]
    options = {"sources": sources, "window": 1, "held_out": SHARE, "log": str(workdir / "events.parquet")}
    return {"bootstrap": 100, "block_users": 16, "items_file": str(workdir / "titles.csv"), "new_items": options}


def with_options(new_items: dict[str, Any], rules: RulesConfig | None = None, **changed: Any) -> EvaluateConfig:
    options = NewItemsConfig(**(new_items["new_items"] | changed))
    return EvaluateConfig(**(new_items | {"new_items": options, "rules": rules or RulesConfig()}))


@pytest.fixture(scope="module")
def with_new(workdir: Path, new_items: dict[str, Any]) -> Path:
    return again(workdir, workdir / "with_new", with_options(new_items), baseline=workdir / "baseline")


def test_items_that_the_model_lacks_go_with_it_by_events_else_by_text(workdir: Path, with_new: Path) -> None:
    found = read_new_items(with_new, 8)

    assert found is not None
    beyond = range(NUM_ITEMS + 1, NUM_ITEMS + 4)
    named = dict(zip(found.item_ids.to_pylist(), found.sources.to_pylist(), strict=True))
    assert named == dict(zip([f"i{item}" for item in beyond], ["co_seen", "co_seen", "text"], strict=True))
    vectors = load_model(workdir / "model").item_vectors().numpy()
    np.testing.assert_allclose(found.vectors_WD[0], vectors[5], rtol=1e-6)
    assert read_json(with_new / "metrics.json")["new_items"] == 3


def test_the_report_measures_vectors_of_new_items_and_their_cost(with_new: Path, out: Path) -> None:
    table = pd.read_csv(with_new / "new_items.csv")
    metrics, plain = read_json(with_new / "metrics.json"), read_json(out / "metrics.json")
    ours = table.set_index(["targets", "items"])

    users = table.drop_duplicates("targets").set_index("targets")["users"]
    assert users.sum() == plain["users"]
    assert users["held out"] > 0
    assert ours.loc[("held out", "unknown"), "hr@20"] == 0
    for metric in ("hr@20", "ndcg@20"):
        assert ours.loc[("held out", "given"), metric] == pytest.approx(metrics[f"new_items_{metric}"], abs=1e-6)
        trained = table[table["items"] == "trained"]
        assert np.average(trained[metric], weights=trained["users"]) == pytest.approx(plain[metric], abs=1e-6)
    cost = ours.loc[("others", "given"), "ndcg@20"] - ours.loc[("others", "unknown"), "ndcg@20"]
    assert metrics["new_items_others_delta_ndcg@20"] == pytest.approx(cost, abs=2e-6)
    assert {name: metrics[name] for name in plain} == plain, "new items are beside the model's own numbers"
    assert "New items" in (with_new / "report.html").read_text()
    assert "Treated as new" in (with_new / "model_card.md").read_text()


def test_a_cap_of_no_new_item_leaves_none_to_be_found(workdir: Path, new_items: dict[str, Any], tmp_path: Path) -> None:
    config = with_options(new_items, RulesConfig(new_items=GroupRule(cap=0)))

    metrics = read_json(again(workdir, tmp_path / "out", config) / "metrics.json")

    assert metrics["new_items_hr@20"] == 0
    assert metrics["new_items_trained_hr@20"] > 0


@pytest.mark.parametrize(
    "changed",
    [
        {"sources": ["text", "co_seen"]},
        {"window": 3},
        {"least_users": 3},
        {"neighbours": 2},
        {"log": None},
        {"held_out": 0.1},
        {"held_out_seen": 1},
    ],
    ids=str,
)
def test_every_option_of_new_items_has_an_effect(
    workdir: Path, new_items: dict[str, Any], with_new: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    again(workdir, tmp_path / "out", with_options(new_items, **changed), baseline=workdir / "baseline")

    names = ("metrics.json", "new_items.csv", "new_items.parquet")
    assert any((tmp_path / "out" / name).read_bytes() != (with_new / name).read_bytes() for name in names)


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"log": "absent.parquet"}, "absent.parquet"), ({"text_model": "absent"}, "nothing is downloaded")],
)
def test_what_new_items_are_read_from_must_be_there(
    workdir: Path, new_items: dict[str, Any], tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        again(workdir, tmp_path / "out", with_options(new_items, **changed))


def test_text_of_items_without_title_and_category_is_refused(workdir: Path, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id\ni2\n")
    options = NewItemsConfig(sources=["text"])

    with pytest.raises(UserError, match="no item has a title or a category"):
        again(workdir, tmp_path / "out", EvaluateConfig(items_file=str(tmp_path / "items.csv"), new_items=options))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EvaluateConfig(rules=RulesConfig(categories={"toys": GroupRule(cap=1)})), "no item of category toys"),
        (EvaluateConfig(rules=RulesConfig(intents={"lost": GroupRule(cap=1)})), "no item 'lost'"),
        (EvaluateConfig(items_file="absent.csv"), "absent.csv"),
    ],
)
def test_rules_that_fit_no_item_are_refused(
    workdir: Path, tmp_path: Path, config: EvaluateConfig, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        again(workdir, tmp_path / "out", config)
    assert not (tmp_path / "out").exists()


def test_a_configured_block_size_is_what_every_ranking_takes(
    workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, object]] = []

    def recorded(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any, block_users: int | None, **options: Any) -> Any:
            asked.append((work.__name__, block_users))
            return work(*inputs, block_users=block_users, **options)

        return call

    monkeypatch.setattr(predictions, "rank_targets", recorded(predictions.rank_targets))
    monkeypatch.setattr(findings, "rank_by_popularity", recorded(findings.rank_by_popularity))
    for block in (None, 16):
        asked.clear()
        again(workdir, tmp_path / "out", EvaluateConfig(bootstrap=10, block_users=block))
        assert {*asked} == {("rank_targets", block), ("rank_by_popularity", block)}


@pytest.mark.parametrize("block", [None, 1000])
def test_the_block_size_changes_no_result(workdir: Path, out: Path, tmp_path: Path, block: int | None) -> None:
    changed = EvaluateConfig(bootstrap=100, block_users=block)
    assert digests(again(workdir, tmp_path / "out", changed, baseline=workdir / "baseline")) == digests(out)


def refused(message: str, *inputs: Path) -> None:
    *_, out = inputs
    with pytest.raises(UserError, match=message):
        evaluate(CONFIG, *inputs)
    assert not out.exists()
    assert not list(out.parent.glob(".*.partial"))


def test_a_model_of_other_sequences_is_refused(workdir: Path, tmp_path: Path) -> None:
    other = write_sequences(tmp_path / "sequences", repeats=False)
    refused("trained on other sequences", workdir / "model", other, tmp_path / "out")


def test_a_diverged_model_is_refused(workdir: Path, tmp_path: Path) -> None:
    model = load_model(workdir / "model")
    torch.nn.init.constant_(model.encoder.item_embedding.weight, torch.nan)
    (tmp_path / "model").mkdir()
    md5 = read_json(workdir / "sequences" / "split.json")["md5"]
    save_model(model, tmp_path / "model", TrainConfig(), sequences_md5=md5)
    refused("not finite", tmp_path / "model", workdir / "sequences", tmp_path / "out")


def test_a_split_without_test_targets_is_refused(workdir: Path, tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences")
    table = pq.read_table(sequences / "sequences.parquet")
    none = pa.array([-1] * USERS, pa.int32())
    pq.write_table(table.set_column(4, "test_index", none), sequences / "sequences.parquet")
    refused("no user has a test target", workdir / "model", sequences, tmp_path / "out")


def test_a_missing_model_is_refused(workdir: Path, tmp_path: Path) -> None:
    refused("no such file", tmp_path / "model", workdir / "sequences", tmp_path / "out")


def test_a_damaged_item_index_is_refused(workdir: Path, tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences")
    (sequences / "items.parquet").write_bytes(b"nothing")
    refused("items.parquet: not readable", workdir / "model", sequences, tmp_path / "out")
