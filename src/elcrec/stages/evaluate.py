"""Stage evaluate: measure a trained model on the test split, and describe its intents."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from elcrec.artifacts import SCHEMA_VERSION, read_json, require_folder, write_json
from elcrec.config import EvaluateConfig, GroupRule, RulesConfig, to_dict
from elcrec.custody import stage_output, verify
from elcrec.data.dataset import EvaluationSet, SequenceData, load_item_ids, load_sequences, load_user_ids, user_ids_of
from elcrec.data.history_lengths import history_lengths
from elcrec.errors import UserError
from elcrec.evaluation.findings import MANY_REPEATS, METRICS, Findings, flat_metrics, measure
from elcrec.evaluation.intents import load_truth
from elcrec.evaluation.new_item_search import find_new_items, texts_of
from elcrec.evaluation.new_items import NewItemFindings, measure_new_items
from elcrec.evaluation.popularity import training_counts
from elcrec.evaluation.predictions import Predictions, predict
from elcrec.evaluation.provenance import mark_model
from elcrec.evaluation.rules import RuleFindings, measure_rules
from elcrec.evaluation.sampling import asked_users
from elcrec.model.io import CONFIG, WEIGHTS, load_model
from elcrec.ops.device import choose_device
from elcrec.pages.catalogue_names import CatalogueNames
from elcrec.pages.inputs import Inputs
from elcrec.pages.intents import write_intents_page
from elcrec.pages.render import INSTALL, can_write_pages
from elcrec.pages.report import write_card, write_report
from elcrec.ranking.files import FACTS, RULES, SEARCH
from elcrec.ranking.item_facts import ItemFacts, align, read_items_file
from elcrec.ranking.new_items import NewItems, write_new_items
from elcrec.serving.catalogue import Catalogue
from elcrec.stages.search_recall import measure_search

logger = logging.getLogger(__name__)

HEADLINE = (
    "users",
    "test_users",
    *METRICS,
    "ndcg@20_low",
    "ndcg@20_high",
    "popularity_ndcg@20",
    "baseline_ndcg@20",
    "delta_ndcg@20",
    "unmasked_ndcg@20",
    "coverage@20",
    "effective_intents",
    "largest_intent_share",
    "intent_nmi",
    "rules_ndcg@20",
    "rules_delta_ndcg@20",
    "new_items",
    "new_items_ndcg@20",
    "new_items_others_delta_ndcg@20",
    "search_recall@20",
)


def evaluate(
    config: EvaluateConfig,
    model: Path,
    sequences: Path,
    out: Path,
    *,
    baseline: Path | None = None,
    truth: Path | None = None,
    run: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """Rank every test target and write the metrics, the tables, the pages and the model card to `out`.

    Args:
        config: the section `evaluate`.
        model: the model folder.
        sequences: the sequences folder; its test split is read.
        out: the folder to write.
        baseline: a model to compare with, user by user.
        truth: the raw folder, whose planted intents are compared if it holds any.
        run: the run of a pipeline, such as its `id`, shown on the pages.

    Returns:
        The headline numbers of metrics.json, those in `HEADLINE` that apply.

    Raises:
        UserError: an input is missing or damaged, the model was trained on other sequences, no user has a test target,
            or the extra `report` is not installed.
    """
    if not can_write_pages():
        raise UserError("the pages need the extra report", fix=INSTALL)
    folders = {"model": model} | ({"baseline": baseline} if baseline else {})
    _require_folders(baseline, truth)
    _verify(folders.values(), sequences, truth)
    data = load_sequences(sequences)
    test = asked_users(data, "test", config.users, sequences)
    if not len(test.users):
        fix = "give users at least three items, or change sequences.split"
        raise UserError("no user has a test target", where=sequences, fix=fix)
    item_ids = load_item_ids(sequences, data.num_items)
    user_ids = user_ids_of(sequences, test.users).to_pylist()
    predictions = {
        name: predict(folder, data, test, block_users=config.block_users, seed=config.seed)
        for name, folder in folders.items()
    }
    planted = load_truth(truth, item_ids, user_ids) if truth else None
    facts_table = None if config.items_file is None else read_items_file(Path(config.items_file))
    counts = training_counts(data)
    new_items, their_findings = _new_items(config, model, data, test, counts, item_ids, sequences, facts_table)
    known = Catalogue(item_ids=pa.array(item_ids, pa.string()), counts=counts[1:])
    findings = replace(
        measure(config, data, test, predictions, planted),
        rules=_measure_rules(config, folders["model"], test, counts, facts_table, item_ids, sequences),
        new_items=their_findings,
        search=measure_search(config, model, sequences, test, known, facts_table, new_items),
    )
    numbers = flat_metrics(findings)
    catalogue = None if facts_table is None else CatalogueNames(facts_table, item_ids, counts)
    lengths = history_lengths(test.histories, read_json(sequences / "split.json").get("history"))
    inputs = Inputs(
        config=config,
        sequences=sequences,
        raw=truth,
        folders=folders,
        item_ids=item_ids,
        run=run or {},
        catalogue=catalogue,
    )
    with stage_output(out) as scratch:
        write_json(scratch / "metrics.json", {"schema_version": SCHEMA_VERSION, **numbers})
        write_json(scratch / RULES, {"schema_version": SCHEMA_VERSION, "rules": to_dict(config.rules)})
        if config.search.kind != "exact":
            write_json(scratch / SEARCH, {"schema_version": SCHEMA_VERSION, "search": to_dict(config.search)})
        if facts_table is not None:
            pq.write_table(facts_table, scratch / FACTS)
        if new_items is not None:
            write_new_items(new_items, scratch)
        if findings.rules is not None:
            _write_csv(pd.DataFrame(findings.rules.rows), scratch / "rules.csv")
        if findings.new_items is not None:
            _write_csv(pd.DataFrame(findings.new_items.rows), scratch / "new_items.csv")
        _write_csv(findings.segments, scratch / "segments.csv")
        ranks = _ranks_table(user_ids, test, findings)
        pq.write_table(mark_model(ranks, model), scratch / "ranks.parquet")
        pq.write_table(_intents_table(user_ids, predictions["model"]), scratch / "intents.parquet")
        write_json(
            scratch / "intents.json",
            _intents_document(data, findings, item_ids, catalogue) | {"history_lengths": lengths},
        )
        write_card(scratch / "model_card.md", findings, predictions, inputs)
        write_report(scratch / "report.html", findings, predictions, inputs)
        write_intents_page(scratch / "intents.html", findings, predictions, inputs)
    _warn_of_repeats(findings)
    if catalogue is not None:
        logger.info("%s", catalogue.coverage)
    said = {name: numbers[name] for name in HEADLINE if name in numbers}
    return said | {"repeat_target_share": findings.repeat_share} if findings.repeat_share >= MANY_REPEATS else said


def _warn_of_repeats(findings: Findings) -> None:
    if findings.unmasked and findings.repeat_share >= MANY_REPEATS:
        logger.warning(
            "%.0f %% of the test targets are items that their user has met before, and count as missed; where that is "
            "what users do, set sequences.repeats=allow",
            100 * findings.repeat_share,
        )


def _require_folders(*folders: Path | None) -> None:
    for folder in folders:
        if folder is not None:
            require_folder(folder, fix="give one that exists, or leave it out")


def _verify(models: Iterable[Path], sequences: Path, truth: Path | None) -> None:
    """Compare the inputs with the checksums that their stages recorded."""
    for model in models:
        verify(model, CONFIG, WEIGHTS, optional=["history.csv"])
    verify(sequences, "split.json", "sequences.parquet", "items.parquet")
    if truth is not None:
        verify(truth, "source.json", optional=["truth_items.parquet", "truth_users.parquet"])


def _measure_rules(
    config: EvaluateConfig,
    model: Path,
    test: EvaluationSet,
    counts: npt.NDArray[np.int64],
    table: pa.Table | None,
    item_ids: list[str],
    sequences: Path,
) -> RuleFindings | None:
    """Measure the cost of rules and availability, at the time of the log's newest event.

    The rule for new items is measured separately: here there are no new items.
    """
    _require_known_categories(config, table)
    if msgspec.structs.replace(config.rules, new_items=GroupRule()) == RulesConfig() and table is None:
        return None
    facts = ItemFacts.nothing(len(item_ids)) if table is None else align(table, pa.array(item_ids, pa.string()))
    return measure_rules(config, load_model(model), test, counts, facts, item_ids, _newest_event(sequences))


def _new_items(
    config: EvaluateConfig,
    model: Path,
    data: SequenceData,
    test: EvaluationSet,
    counts: npt.NDArray[np.int64],
    item_ids: list[str],
    sequences: Path,
    table: pa.Table | None,
) -> tuple[NewItems | None, NewItemFindings | None]:
    """Return the new items that accompany the model, from all data, and a measure of how good such vectors are.

    The measure uses only data from before the test split.
    """
    sources = config.new_items.sources
    if not sources:
        return None, None
    trained = load_model(model, choose_device("auto").type)
    embeddings_VD = trained.item_embeddings().cpu().numpy()
    user_ids = load_user_ids(sequences).cast(pa.string()).combine_chunks()
    found = find_new_items(config, embeddings_VD, counts, item_ids, data.sequences, user_ids, table)
    reads_text = "text" in sources and table is not None
    texts = texts_of(table, pa.array(item_ids, pa.string())) if reads_text else None
    measured = measure_new_items(config, trained, data, test, counts, item_ids, texts)
    return found, replace(measured, published=0 if found is None else len(found))


def _require_known_categories(config: EvaluateConfig, table: pa.Table | None) -> None:
    known = set() if table is None else set(table["category"].to_pylist())
    unknown = sorted(set(config.rules.categories) - known)
    if unknown:
        where = config.items_file or "evaluate.items_file, which is not set"
        raise UserError(f"no item of category {', '.join(unknown)}", where=where, fix="mend evaluate.rules.categories")


def _newest_event(sequences: Path) -> datetime:
    path = sequences / "items.parquet"
    try:
        newest = pc.max(pq.read_table(path, columns=["event_timestamp"])["event_timestamp"]).as_py()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"not readable ({error})", where=path, fix="run the sequences stage again") from error
    return newest if isinstance(newest, datetime) else datetime.fromtimestamp(0, UTC)


def _ranks_table(user_ids: list[str], test: EvaluationSet, findings: Findings) -> pa.Table:
    ranks, absent = findings.ranks, [None] * len(user_ids)
    return pa.table(
        {
            "user_id": pa.array(user_ids, pa.string()),
            "target": pa.array(test.target_items.astype(np.int32)),
            "rank": pa.array(ranks["model"]),
            "popularity_rank": pa.array(ranks["popularity"]),
            "baseline_rank": pa.array(ranks.get("baseline", absent), pa.int32()),
        }
    )


def _intents_table(user_ids: list[str], predictions: Predictions) -> pa.Table:
    return pa.table({"user_id": pa.array(user_ids, pa.string()), "intent": pa.array(predictions.intents)})


def _intents_document(
    data: SequenceData, findings: Findings, item_ids: list[str], catalogue: CatalogueNames | None
) -> dict[str, object]:
    """Return intents.json: the summary, then every intent with its size and its typical items' raw ids."""
    head: dict[str, object] = {"schema_version": SCHEMA_VERSION, "sequences_md5": data.md5}
    found = findings.intents
    if found is None:
        return head | {"num_intents": 0, "intents": []}
    total = int(found.sizes.sum())
    listed = [
        {
            "intent": intent,
            "users": int(size),
            "share": float(size / total),
            "top_items": [
                {"item_id": item_ids[entry["item"] - 1], "users": entry["users"], "lift": entry["lift"]}
                for entry in typical
            ],
            **({} if catalogue is None else {"name": catalogue.name_of(entry["item"] for entry in typical)}),
        }
        for intent, (size, typical) in enumerate(zip(found.sizes, found.typical, strict=True))
    ]
    summary = {
        "num_intents": len(found.sizes),
        "users": total,
        "effective_intents": found.effective,
        "largest_intent_share": found.largest_share,
        "agreement": found.agreement,
    }
    return head | summary | {"intents": listed}


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False, float_format="%.6f", lineterminator="\n")
