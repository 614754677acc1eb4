"""Findings for people: one self-contained HTML page, and a model card in Markdown."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from elcrec.artifacts import atomic_file, code_revision, read_json
from elcrec.config import EvaluateConfig, to_dict
from elcrec.evaluation import charts
from elcrec.evaluation.answers import TOP_K, Answers
from elcrec.evaluation.findings import METRICS, Findings, IntentFindings

COLLAPSED = 0.5
"""A largest intent with more than this share of the users explains little."""
_SHOWN_INTENTS = 24
_IMPORTED_INTENTS = (
    "Its intents are read as this project pools states, where padding knows nothing of the sequence. In the published "
    "code it does, so users whose history is shorter than the window may have another intent there; ranks are the same."
)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What the findings were made from.

    Attributes:
        config: the section `evaluate`.
        sequences: the sequences folder.
        raw: the raw folder, where one was given; it may not exist.
        folders: `model` and, where there is one, `baseline` -> folder.
        item_ids: raw ids of items 1 to V.
    """

    config: EvaluateConfig
    sequences: Path
    raw: Path | None
    folders: Mapping[str, Path]
    item_ids: list[str]


def write_report(path: Path, findings: Findings, answers: Mapping[str, Answers], sources: Sources) -> None:
    """Write the HTML page; the only output that carries the time of the run."""
    page = _context(findings, answers, sources)
    page |= {"charts": _charts(findings, answers, sources), "created": datetime.now(UTC)}
    _render("report.html.jinja", path, page)


def write_card(path: Path, findings: Findings, answers: Mapping[str, Answers], sources: Sources) -> None:
    """Write the model card, after Mitchell et al., "Model Cards for Model Reporting" (2019)."""
    _render("model_card.md.jinja", path, _context(findings, answers, sources))


def labels(answers: Mapping[str, Answers]) -> dict[str, str]:
    """Return the names of the rankings for people, the model first."""
    named = {"model": answers["model"].label}
    if "baseline" in answers:
        named["baseline"] = f"{answers['baseline'].label} (baseline)"
    return named | {"popularity": "Popularity"}


def takeaways(findings: Findings, named: Mapping[str, str], answers: Mapping[str, Answers]) -> list[str]:
    """Return what the numbers say, a sentence each; claims of a difference only where the interval has it."""
    hit, ndcg = (findings.resampled.estimate("model", name) for name in ("hr@20", "ndcg@20"))
    share = f"{hit.mean:.1%} of the users (interval {hit.low:.1%} to {hit.high:.1%})"
    said = [f"{named['model']} puts the next item among its first 20 for {share}."]
    popularity = findings.resampled.means["popularity"]["ndcg@20"]
    if popularity > 0:
        said.append(f"Its NDCG@20 is {ndcg.mean / popularity:.1f} times that of ranking by popularity.")
    if "baseline" in findings.ranks:
        said.append(_versus_baseline(findings, named))
    else:
        said.append("No baseline model was given, so there is no comparison user by user.")
    said += [_about_absent(named[name], given.config) for name, given in answers.items() if _absent_items(given.config)]
    if findings.unmasked:
        said.append(
            f"{findings.repeat_share:.1%} of the targets are already in the history. The masked protocol can "
            f"never hit them; with the history left in, NDCG@20 is "
            f"{findings.unmasked['model']['ndcg@20']:.4f}."
        )
    if findings.intents:
        said.append(_about_intents(findings.intents))
        said += [_IMPORTED_INTENTS] if "imported" in answers["model"].config else []
    return said


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


def _about_intents(intents: IntentFindings) -> str:
    facts = (
        f"the users spread over {intents.effective:.1f} effective intents of {len(intents.sizes)}; "
        f"the largest holds {intents.largest_share:.1%}"
    )
    if intents.largest_share > COLLAPSED:
        return f"The intents have collapsed: {facts}, so they say little about a user."
    return f"{facts[0].upper()}{facts[1:]} of them."


def _context(findings: Findings, answers: Mapping[str, Answers], sources: Sources) -> dict[str, Any]:
    """Return everything that both templates use."""
    model = answers["model"]
    named = labels(answers)
    split = read_json(sources.sequences / "split.json")
    return {
        "labels": named,
        "findings": findings,
        "estimate": findings.resampled.estimate,
        "difference": findings.resampled.difference,
        "confidence": f"{findings.resampled.confidence:.0%}",
        "metrics": METRICS,
        "top_k": TOP_K,
        "split": split,
        "model": model,
        "takeaways": takeaways(findings, named, answers),
        "dataset": _dataset(sources.raw).get("dataset"),
        "intents": _intent_rows(findings.intents, sources.item_ids),
        "shown_intents": _SHOWN_INTENTS,
        "provenance": _provenance(answers, split, sources),
        "configuration": yaml.safe_dump(
            {"train": _known_settings(model.config), "evaluate": to_dict(sources.config)}, sort_keys=False
        ),
    }


def _intent_rows(found: IntentFindings | None, item_ids: list[str]) -> list[dict[str, Any]]:
    """Return the used intents, largest first, with the raw ids of their typical items."""
    if found is None:
        return []
    total = found.sizes.sum()
    order = np.argsort(-found.sizes, kind="stable")[: np.count_nonzero(found.sizes)]
    return [
        {
            "intent": int(intent),
            "users": int(found.sizes[intent]),
            "share": found.sizes[intent] / total,
            "color": charts.INTENT_COLORS[place] if place < len(charts.INTENT_COLORS) else charts.OTHERS,
            "items": [entry | {"id": item_ids[entry["item"] - 1]} for entry in found.typical[intent]],
        }
        for place, intent in enumerate(order)
    ]


def _dataset(raw: Path | None) -> dict[str, Any]:
    """Return what the raw folder says of its log, empty where there is none."""
    source = raw / "source.json" if raw else None
    return read_json(source) if source and source.is_file() else {}


def _provenance(answers: Mapping[str, Answers], split: Mapping[str, Any], sources: Sources) -> list[tuple[str, str]]:
    rows = [("Sequences, md5", split["md5"])]
    dataset = _dataset(sources.raw)
    rows += [(f"Raw log, {key}", str(dataset[key])) for key in ("dataset", "origin", "md5") if key in dataset]
    for name, given in answers.items():
        rows += [(f"{name.capitalize()}, {key}", str(value)) for key, value in _origin(given.config).items()]
    rows.append(("Evaluation, git revision", code_revision() or "not in a repository"))
    return rows


def _origin(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return where a model came from: its training, or the file that it was imported from."""
    facts = {"objective": config["train"]["objective"]}
    if "imported" in config:
        facts |= {"imported from": config["imported"]["file"], "sha256 of that file": config["imported"]["sha256"]}
    else:
        facts["seed"] = config["train"]["seed"]
        facts["epochs"] = f"{config.get('epochs')} (best {config.get('best_epoch')})"
        facts["seconds"] = config.get("seconds")
    return facts | {"git revision": config.get("git_revision") or "not in a repository"}


def _known_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the train section; of an imported model what its tensors tell, as nobody knows how it was trained."""
    settings: dict[str, Any] = config["train"]
    if "imported" not in config:
        return settings
    encoder = {name: settings["encoder"][name] for name in ("window", "hidden_size", "num_blocks", "num_heads")}
    known = {"objective": settings["objective"], "encoder": encoder}
    num_intents = settings["intents"]["num_intents"]
    return known | ({} if settings["objective"] == "sasrec" else {"intents": {"num_intents": num_intents}})


def _charts(findings: Findings, answers: Mapping[str, Answers], sources: Sources) -> dict[str, str]:
    named, model = labels(answers), answers["model"]
    drawn = {
        "comparison": charts.comparison(findings.resampled, named),
        "hits": charts.hit_curve(findings.ranks, named, len(sources.item_ids)),
        "segments": charts.segment_bars(findings.segments, named),
    }
    history = sources.folders["model"] / "history.csv"
    if history.is_file():
        best = model.config.get("best_epoch") or 0
        drawn["training"] = charts.training_curves(pd.read_csv(history), best)
    if findings.intents is not None:
        drawn["sizes"] = charts.intent_sizes(findings.intents.sizes)
        pictured = model.intents[model.pictured]
        drawn["map"] = charts.intent_map(model.pictured_states, pictured, findings.intents.sizes)
    return drawn


def _render(template: str, path: Path, context: Mapping[str, Any]) -> None:
    import jinja2  # noqa: PLC0415 - only needed once everything is measured

    loader = jinja2.PackageLoader("elcrec.evaluation")
    environment = jinja2.Environment(
        loader=loader,
        autoescape=template.endswith(".html.jinja"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template(template).render(context)
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
