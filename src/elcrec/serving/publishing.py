"""The tables that a push publishes from a log and from a bundle, some users at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from elcrec.artifacts import read_json
from elcrec.data.split_points import HistoriesOverTime, ServedHistories, longest_history, read_users
from elcrec.errors import UserError
from elcrec.model.io import load_model
from elcrec.ranking.new_items import read_new_items
from elcrec.serving.bundle import BundleSource
from elcrec.serving.catalogue import load_catalogue
from elcrec.serving.histories import MAX_SEEN
from elcrec.serving.new_items import Served, with_new_items
from elcrec.serving.ports import FeatureTables


def log_tables(sequences: Path) -> FeatureTables:
    """Return the tables to publish from a log alone.

    Raises:
        UserError: the folder is not the output of the sequences stage.
    """
    return FeatureTables(
        histories=ServedHistories(folder=sequences, most_seen=MAX_SEEN),
        earlier=HistoriesOverTime(folder=sequences, most=longest_history(sequences)),
        model_outputs=None,
        item_statistics=None,
        real_times=read_json(sequences / "split.json").get("time") == "real",
    )


def bundle_tables(source: BundleSource, digest: str) -> FeatureTables:
    """Return the tables to publish from a bundle.

    Raises:
        UserError: an input cannot be read.
    """
    path = source.sequences / "items.parquet"
    try:
        statistics = pq.read_table(path, columns=["item_id", "count", "total"])
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"not readable ({error})", where=path, fix="run the sequences stage again") from error
    outputs = ModelOutputs(source=source, digest=digest)
    return replace(log_tables(source.sequences), model_outputs=outputs, item_statistics=statistics)


@dataclass(frozen=True, kw_only=True)
class ModelOutputs:
    """The model's outputs for every served history: tables of `user_id`, `intent`, `vector`, `bundle`.

    Attributes:
        source: the model and the histories.
        digest: digest of the bundle.
    """

    source: BundleSource
    digest: str

    def __iter__(self) -> Iterator[pa.Table]:
        """Yield the tables; each iteration encodes every history anew.

        Raises:
            UserError: an input cannot be read.
        """
        model, catalogue = load_model(self.source.model), load_catalogue(self.source.sequences / "items.parquet")
        new = read_new_items(self.source.evaluation, model.config.encoder.hidden_size)
        served = with_new_items(model, catalogue, new)
        for histories in read_users(self.source.sequences, ["item_ids"]):
            yield self._encode(served, histories.combine_chunks())

    def _encode(self, served: Served, histories: pa.Table) -> pa.Table:
        raw = histories["item_ids"].combine_chunks()
        offsets = np.asarray(raw.offsets, np.int64)
        values = raw.values.slice(offsets[0], offsets[-1] - offsets[0]).cast(pa.string())
        encoded = served.model.encode(served.catalogue.histories(values, offsets - offsets[0]).histories)
        vectors = encoded.vectors.cpu().numpy()
        ends = pa.array(np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1])
        return pa.table(
            {
                "user_id": histories["user_id"],
                "intent": pa.array(encoded.intents.cpu().numpy(), pa.int64()),
                "vector": pa.ListArray.from_arrays(ends, pa.array(vectors.ravel(), pa.float32())),
                "bundle": pa.array([self.digest] * len(vectors), pa.string()),
            }
        )
