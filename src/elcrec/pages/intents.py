"""The page of intents."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elcrec.evaluation.findings import Findings, IntentFindings
from elcrec.evaluation.intent_profiles import largest, mean_cosines, moves
from elcrec.evaluation.predictions import Predictions
from elcrec.pages import intent_charts
from elcrec.pages.drawing import INTENT_COLORS
from elcrec.pages.inputs import Inputs, provenance_rows
from elcrec.pages.render import render

COLLAPSED = 0.5
"""A largest intent with more than this share of the users explains little."""
_PURE = 0.8
"""An intent with this share of its users on one planted intent counts as a copy of it."""
_SIZEABLE = 0.1
"""Smallest size of an intent in charts, relative to the largest: a mean over fewer users is not meaningful."""
_SHOWN, _COMPARED = 24, len(INTENT_COLORS)
_IMPORTED = (
    "Its intents are computed from mean states without padding, as everywhere in this project. The published code "
    "includes padding, so users with a history shorter than the window may have another intent there; ranks agree."
)


def write_intents_page(path: Path, findings: Findings, predictions: Mapping[str, Predictions], inputs: Inputs) -> None:
    """Write the page; for a model without intents, the page says so."""
    model, found = predictions["model"], findings.intents
    page: dict[str, Any] = {
        "model": model,
        "dataset": inputs.log.get("dataset"),
        "found": found,
        "intents": intent_rows(found, inputs),
        "shown_intents": _SHOWN,
        "provenance": provenance_rows({"model": model}, inputs),
    }
    if found is not None:
        page["of_items"] = model.config.get("model", {}).get("intents") == "items"
        page["charts"] = _charts(found, findings, model)
        page["takeaways"] = about_intents(found, model.config) + _about_order(found)
    render("intents.html.jinja", path, page)


def about_intents(found: IntentFindings, config: Mapping[str, Any]) -> list[str]:
    """Return sentences on the distribution of users over the intents."""
    facts = (
        f"the users spread over {found.effective:.1f} effective intents of {len(found.sizes)}; "
        f"the largest holds {found.largest_share:.1%}"
    )
    if found.largest_share > COLLAPSED:
        said = f"The intents have collapsed: {facts}, so they say little about a user."
    else:
        said = f"{facts[0].upper()}{facts[1:]} of them."
    return [said, *([_IMPORTED] if "imported" in config else [])]


def intent_rows(found: IntentFindings | None, inputs: Inputs) -> list[dict[str, Any]]:
    """Return the used intents, largest first, with raw ids of their typical items, and names from the items file."""
    if found is None:
        return []
    names = inputs.catalogue
    total = found.sizes.sum()
    return [
        {
            "intent": intent,
            "users": int(found.sizes[intent]),
            "share": found.sizes[intent] / total,
            "color": intent_charts.color_of(place),
            "name": names.name_of(entry["item"] for entry in found.typical[intent]) if names else "",
            "items": [
                entry | {"id": inputs.item_ids[entry["item"] - 1], "title": names and names.title_of(entry["item"])}
                for entry in found.typical[intent]
            ],
            "profile": found.profiles.loc[intent],
            "planted": _planted(found, intent),
        }
        for place, intent in enumerate(largest(found.sizes, len(found.sizes)))
    ]


def _planted(found: IntentFindings, intent: int) -> tuple[int, float] | None:
    """Return the planted intent that most users of an intent follow, and the share of those who do."""
    if found.planted is None:
        return None
    counts = found.planted[:, intent]
    return int(counts.argmax()), float(counts.max() / counts.sum())


def _about_order(found: IntentFindings) -> list[str]:
    said = []
    if found.kept is not None:
        said.append(f"With one more item, {found.kept:.1%} of the users keep their intent.")
    if found.planted is not None:
        pure = (found.planted.max(axis=0) >= _PURE * found.sizes) @ found.sizes / found.sizes.sum()
        said.append(
            f"{pure:.1%} of the users are in an intent that matches one planted intent: at least {_PURE:.0%} of its "
            f"users follow it."
        )
    return said


def _charts(found: IntentFindings, findings: Findings, model: Predictions) -> dict[str, str]:
    chosen, shown = (largest(found.sizes, most) for most in (_COMPARED, _SHOWN))
    sizeable = [intent for intent in shown if found.sizes[intent] >= _SIZEABLE * found.sizes.max()]
    now = model.intents[model.pictured]
    overall = findings.resampled.means["model"]["ndcg@20"]
    drawn = {
        "sizes": intent_charts.intent_sizes(found.sizes),
        "map": intent_charts.intent_map(model.pictured_states, now, found.sizes),
    }
    if len(sizeable) > 1:
        drawn["accuracy"] = intent_charts.accuracy(found.profiles, sizeable, overall)
    if len(chosen) > 1:
        drawn["similarity"] = intent_charts.similarity(mean_cosines(model.pictured_states, now, chosen), chosen)
        known = model.earlier_intents >= 0
        drawn["moves"] = intent_charts.moves(moves(model.earlier_intents[known], now[known], chosen), chosen)
    if found.planted is not None:
        drawn["planted"] = intent_charts.planted(found.planted, sizeable)
    return drawn
