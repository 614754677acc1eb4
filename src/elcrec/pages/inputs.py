"""What the findings were made from, as every page of an evaluation says it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elcrec.artifacts import code_revision, read_json
from elcrec.config import EvaluateConfig
from elcrec.evaluation.predictions import Predictions
from elcrec.pages.catalogue_names import CatalogueNames
from elcrec.pages.provenance import origin


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The inputs of the evaluation.

    Attributes:
        config: the section `evaluate`.
        sequences: the sequences folder.
        raw: the raw folder, if one was given; it may not exist.
        folders: `model` and, if there is one, `baseline` -> folder.
        item_ids: raw ids of items 1 to V.
        run: the run of a pipeline, such as its `id`; empty for a command.
        catalogue: names of the items, if there is an items file.
    """

    config: EvaluateConfig
    sequences: Path
    raw: Path | None
    folders: Mapping[str, Path]
    item_ids: list[str]
    run: Mapping[str, str] = field(default_factory=dict)
    catalogue: CatalogueNames | None = None

    @property
    def split(self) -> dict[str, Any]:
        """The content of split.json."""
        return read_json(self.sequences / "split.json")

    @property
    def log(self) -> dict[str, Any]:
        """The content of the raw folder's source.json, empty if there is none."""
        source = self.raw / "source.json" if self.raw else None
        return read_json(source) if source and source.is_file() else {}


def provenance_rows(predictions: Mapping[str, Predictions], inputs: Inputs) -> list[tuple[str, str]]:
    """Return the rows of a page's table of provenance."""
    rows = [("Sequences, md5", inputs.split["md5"])]
    log = inputs.log
    rows += [(f"Raw log, {key}", str(log[key])) for key in ("dataset", "origin", "md5") if key in log]
    for name, given in predictions.items():
        rows += [(f"{name.capitalize()}, {key}", str(value)) for key, value in origin(given.config).items()]
    rows.append(("Evaluation, git revision", code_revision() or "not in a repository"))
    rows += [(f"Run, {key}", value) for key, value in inputs.run.items()]
    return rows
