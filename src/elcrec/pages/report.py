"""The evaluation page in HTML, and the model card in Markdown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from elcrec.config import to_dict
from elcrec.evaluation.findings import MANY_REPEATS, METRICS, Findings
from elcrec.evaluation.new_items import HELD_OUT, NewItemFindings
from elcrec.evaluation.predictions import TOP_K, Predictions
from elcrec.evaluation.rules import ALL, NONE, RuleFindings
from elcrec.pages import accuracy_charts, training_charts
from elcrec.pages.inputs import Inputs, provenance_rows
from elcrec.pages.intents import about_intents, intent_rows
from elcrec.pages.provenance import known_settings
from elcrec.pages.render import render

_SHOWN_INTENTS = 5
"""Number of the largest intents on this page; the others are on the page of intents."""


def write_report(path: Path, findings: Findings, predictions: Mapping[str, Predictions], inputs: Inputs) -> None:
    """Write the evaluation page; pages are the only output with the time of the run."""
    page = _context(findings, predictions, inputs)
    render("report.html.jinja", path, page | {"charts": _charts(findings, predictions, inputs)})


def write_card(path: Path, findings: Findings, predictions: Mapping[str, Predictions], inputs: Inputs) -> None:
    """Write the model card, after Mitchell et al., "Model Cards for Model Reporting" (2019)."""
    render("model_card.md.jinja", path, _context(findings, predictions, inputs))


def labels(predictions: Mapping[str, Predictions]) -> dict[str, str]:
    """Return the names of the rankings for readers, the model first."""
    named = {"model": predictions["model"].label}
    if "baseline" in predictions:
        named["baseline"] = f"{predictions['baseline'].label} (baseline)"
    return named | {"popularity": "Popularity"}


def takeaways(findings: Findings, named: Mapping[str, str], predictions: Mapping[str, Predictions]) -> list[str]:
    """Return the main findings, one sentence each; a difference is claimed only if the interval excludes 0."""
    hit, ndcg = (findings.resampled.estimate("model", name) for name in ("hr@20", "ndcg@20"))
    users = f"the {len(findings.ranks['model']):,} sampled users" if findings.sampled else "the users"
    share = f"{hit.mean:.1%} of {users} (interval {hit.low:.1%} to {hit.high:.1%})"
    said = [f"{named['model']} puts the next item among its first 20 for {share}."]
    popularity = findings.resampled.means["popularity"]["ndcg@20"]
    if popularity > 0:
        said.append(f"Its NDCG@20 is {ndcg.mean / popularity:.1f} times that of ranking by popularity.")
    if "baseline" in findings.ranks:
        said.append(_versus_baseline(findings, named))
    else:
        said.append("No baseline model was given, so there is no comparison user by user.")
    said += [
        _about_absent(named[name], given.config) for name, given in predictions.items() if _absent_items(given.config)
    ]
    if findings.unmasked:
        many = findings.repeat_share >= MANY_REPEATS
        said.insert(0 if many else len(said), _about_repeats(findings))
    if findings.rules is not None:
        said.append(_about_rules(findings.rules))
    if findings.new_items is not None and HELD_OUT in findings.new_items.resampled:
        said.append(_about_new_items(findings.new_items))
    if findings.search is not None:
        said.append(f"The approximate search finds {findings.search.recall:.1%} of the exact answers' first {TOP_K}.")
    if findings.intents:
        said += about_intents(findings.intents, predictions["model"].config)
    return said


def _about_repeats(findings: Findings) -> str:
    return (
        f"{findings.repeat_share:.1%} of the targets are already in the history. They count as missed, because such "
        f"items are not recommended (sequences.repeats); with the history left in, NDCG@20 is "
        f"{findings.unmasked['model']['ndcg@20']:.4f}."
    )


def _about_rules(rules: RuleFindings) -> str:
    delta = rules.resampled.difference(ALL, NONE, "ndcg@20")
    return f"All rules together change NDCG@20 by {delta.mean:+.4f} (interval {delta.low:+.4f} to {delta.high:+.4f})."


def _about_new_items(found: NewItemFindings) -> str:
    new = found.resampled[HELD_OUT]
    hit, trained = new.estimate("given", "hr@20"), new.means["trained"]["hr@20"]
    return (
        f"Treated as new, held-out items are found by {hit.mean:.1%} of the users who choose one next (interval "
        f"{hit.low:.1%} to {hit.high:.1%}), and by {trained:.1%} with their trained vectors."
    )


def _absent_items(config: Mapping[str, Any]) -> int:
    return int(config.get("imported", {}).get("absent_items", 0))


def _about_absent(label: str, config: Mapping[str, Any]) -> str:
    return (
        f"{label} knew {_absent_items(config):,} items more, which do not occur in these sequences and are not ranked: "
        f"its figures are easier to reach than its authors'."
    )


def _versus_baseline(findings: Findings, named: Mapping[str, str]) -> str:
    delta = findings.resampled.difference("model", "baseline", "ndcg@20")
    gap = f"{delta.mean:+.4f} NDCG@20 (interval {delta.low:+.4f} to {delta.high:+.4f}), user by user"
    if delta.low > 0:
        return f"It is better than {named['baseline']}: {gap}."
    if delta.high < 0:
        return f"It is worse than {named['baseline']}: {gap}."
    return f"No difference to {named['baseline']} is shown: {gap}."


def _context(findings: Findings, predictions: Mapping[str, Predictions], inputs: Inputs) -> dict[str, Any]:
    """Return the values that both templates use."""
    model = predictions["model"]
    named = labels(predictions)
    return {
        "labels": named,
        "findings": findings,
        "estimate": findings.resampled.estimate,
        "difference": findings.resampled.difference,
        "confidence": f"{findings.resampled.confidence:.0%}",
        "metrics": METRICS,
        "top_k": TOP_K,
        "split": inputs.split,
        "model": model,
        "takeaways": takeaways(findings, named, predictions)
        + ([inputs.catalogue.coverage] if inputs.catalogue else []),
        "dataset": inputs.log.get("dataset"),
        "intents": intent_rows(findings.intents, inputs),
        "shown_intents": _SHOWN_INTENTS,
        "rulings": [] if findings.rules is None else findings.rules.rows,
        "cost_of_new": None if findings.new_items is None else findings.new_items.cost_of_others,
        "worlds": [] if findings.new_items is None else findings.new_items.rows,
        "provenance": provenance_rows(predictions, inputs),
        "configuration": yaml.safe_dump(
            {"train": known_settings(model.config), "evaluate": to_dict(inputs.config)}, sort_keys=False
        ),
    }


def _charts(findings: Findings, predictions: Mapping[str, Predictions], inputs: Inputs) -> dict[str, str]:
    named, model = labels(predictions), predictions["model"]
    drawn = {
        "comparison": accuracy_charts.comparison(findings.resampled, named),
        "hits": accuracy_charts.hit_curve(findings.ranks, named, len(inputs.item_ids)),
        "segments": accuracy_charts.segment_bars(findings.segments, named),
    }
    history = inputs.folders["model"] / "history.csv"
    if history.is_file():
        best = model.config.get("best_epoch") or 0
        drawn["training"] = training_charts.training_curves(pd.read_csv(history), best)
    return drawn
