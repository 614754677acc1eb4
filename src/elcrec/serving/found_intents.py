"""What an evaluation found about a model's intents."""

from dataclasses import dataclass
from pathlib import Path

from elcrec.artifacts import read_json


@dataclass(frozen=True, kw_only=True)
class FoundIntent:
    """What an evaluation found about an intent: raw ids of typical items, the share of users with it, its name."""

    items: list[str]
    share: float | None
    name: str = ""


def read_intents(path: Path) -> dict[int, FoundIntent]:
    """Read intents.json: the findings by intent."""
    return {
        each["intent"]: FoundIntent(
            items=[item["item_id"] for item in each["top_items"]], share=each.get("share"), name=each.get("name", "")
        )
        for each in read_json(path)["intents"]
    }
