"""The store folder: the model registry and the feature store of one installation.

The environment may point away from the folder: `MLFLOW_TRACKING_URI` to an MLflow server,
`ELCREC_FEATURES` to the Feast repository (default: `features` in the working directory).
"""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from elcrec.serving.ports import FeatureStore, ModelRegistry


@dataclass(frozen=True)
class Store:
    """Both halves of a store; each is imported and opened when it is first asked for."""

    folder: Path
    features_repository: Path
    tracking_uri: str | None

    @property
    def histories(self) -> Path:
        """Everybody's history at the last push, a Parquet file with `user_id` and `item_ids`."""
        return self.folder / "feast" / "data" / "histories.parquet"

    @cached_property
    def registry(self) -> ModelRegistry:
        """The model registry."""
        from elcrec.adapters.model_registry import MlflowRegistry  # noqa: PLC0415 - MLflow takes seconds

        return MlflowRegistry(self.folder / "mlflow", tracking_uri=self.tracking_uri)

    @cached_property
    def features(self) -> FeatureStore:
        """The feature store."""
        from elcrec.adapters.feast_store import FeastStore  # noqa: PLC0415 - Feast takes seconds

        return FeastStore(self.folder, self.features_repository)


def open_store(folder: Path) -> Store:
    """Return the store in `folder`; nothing is read or written before it is used."""
    return Store(
        folder=folder.absolute(),
        features_repository=Path(os.environ.get("ELCREC_FEATURES") or "features").absolute(),
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or None,
    )
