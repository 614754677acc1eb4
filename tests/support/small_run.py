"""A whole run on a small log without the feature store: the evaluation, and serving from the same files."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from elcrec.config import EncoderConfig, EvaluateConfig, SequencesConfig, TrainConfig
from elcrec.serving.publishing import log_tables
from elcrec.stages.evaluate import evaluate
from elcrec.stages.recommend_all import recommend_all
from elcrec.stages.sequences import build_sequences
from elcrec.stages.train import train
from tests.support.engines import ENGINE
from tests.support.logs import SMALL, checked
from tests.support.push_inputs import Inputs, bundle_of

TINY = TrainConfig(
    objective="sasrec",
    encoder=EncoderConfig(window=20, hidden_size=8, num_blocks=1),
    epochs=1,
    device="cpu",
)


@dataclass(frozen=True, kw_only=True)
class SmallRun:
    """The outputs of a run.

    Attributes:
        metrics: of the evaluation.
        bundle: what a server reads.
        histories: what the store serves, `seen_items` among it.
        met: all that the log holds of each user.
    """

    metrics: Mapping[str, Any]
    bundle: Path
    histories: Path
    met: Mapping[str, Collection[str]]

    def answers(self, k: int) -> dict[str, list[str]]:
        """Recommend to everybody, as `elcrec recommend-all` does."""
        out = self.bundle.with_name("answers.parquet")
        recommend_all(self.bundle, self.histories, out, k)
        table = pq.read_table(out)
        return dict(zip(table["user_id"].to_pylist(), table["item_ids"].to_pylist(), strict=True))


def run_on(log: Path, folder: Path, sequences: SequencesConfig | None = None, **validate: Any) -> SmallRun:
    """Fetch, validate, cut, train for an epoch, evaluate, and write what a push would."""
    checked(log, folder, **(SMALL | validate))
    inputs = Inputs(model=folder / "model", sequences=folder / "sequences", evaluation=folder / "evaluation")
    build_sequences(sequences or SequencesConfig(), folder / "out", inputs.sequences, engine=ENGINE)
    train(TINY, inputs.sequences, inputs.model, checkpoint=folder / "checkpoint")
    metrics = evaluate(EvaluateConfig(bootstrap=10), inputs.model, inputs.sequences, inputs.evaluation)
    pq.write_table(pa.concat_tables(log_tables(inputs.sequences).histories), folder / "histories.parquet")
    table = pq.read_table(folder / "out" / "interactions.parquet", columns=["user_id", "item_id"])
    met: dict[str, set[str]] = {}
    for user, item in zip(*(column.to_pylist() for column in table.columns), strict=True):
        met.setdefault(user, set()).add(item)
    return SmallRun(
        metrics=metrics,
        bundle=bundle_of(inputs, folder / "bundle"),
        histories=folder / "histories.parquet",
        met=met,
    )
