"""The store folder: the model registry and the feature store of one installation.

Environment variables can replace parts of the folder: `MLFLOW_TRACKING_URI` names an MLflow server, `ELCREC_FEATURES`
the Feast repository (default: `features` in the working directory), `REDIS` a Redis for the online store and
`FEAST_REGISTRY` a database for Feast's registry. `MODEL_REGISTRY_URL` is a Kubeflow Model Registry in which versions
are registered too. `ELCREC_USER_SALT` is the salt of users' keys if servers share no folder.
`ELCREC_SIGNING_KEY` and `ELCREC_SIGNING_PASSWORD` sign the bundles that are pushed.
"""

import logging
import math
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from elcrec.data.user_keys import SALT_FILE, load_salt
from elcrec.errors import UserError
from elcrec.locks import held
from elcrec.serving.ports import FeatureStore, ModelRegistry, ServiceCheck
from elcrec.shipped import own_or_shipped

logger = logging.getLogger(__name__)

_MOUNTS = Path("/proc/mounts")
_NETWORK = ("nfs", "cifs", "smb", "fuse.")
"""Prefixes of the names of file systems on which SQLite's locks are unreliable."""


_WINDOW = re.compile(r"^WINDOW = ([0-9]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Store:
    """Both halves of a store; each is imported and opened at its first use."""

    folder: Path
    features_repository: Path
    tracking_uri: str | None
    redis: str | None = field(default=None, repr=False)
    feast_registry: str | None = field(default=None, repr=False)
    salt: str | None = field(default=None, repr=False)
    model_registry: str | None = field(default=None, repr=False)
    signing_key: str | None = field(default=None, repr=False)
    signing_password: str | None = field(default=None, repr=False)

    @property
    def histories(self) -> Path:
        """Every user's history at the last push, a Parquet file with `user_id` and `item_ids`."""
        return self.folder / "feast" / "data" / "histories.parquet"

    def pushing(self) -> AbstractContextManager[None]:
        """Make other pushes to this folder wait: each compares its model with the champion, and moves the alias."""
        return held(self.folder / ".push.lock", subject=self.folder, patience=math.inf)

    @property
    def signer(self) -> Callable[[Path], None] | None:
        """The function that signs a bundle folder; `None` if no key is set."""
        if self.signing_key is None:
            return None
        from elcrec.adapters.signatures import signer  # noqa: PLC0415 - the extra `signing`

        return signer(self.signing_key, self.signing_password)

    @property
    def user_salt(self) -> str:
        """The salt of users' keys in exposures: the same for all processes that share the store or the variable."""
        return self.salt or load_salt(self.folder / SALT_FILE)

    @property
    def has_user_salt(self) -> bool:
        """Whether a salt exists; if not, no file holds users' keys."""
        return self.salt is not None or (self.folder / SALT_FILE).exists()

    @cached_property
    def registry(self) -> ModelRegistry:
        """The model registry."""
        from elcrec.adapters.model_registry import MlflowRegistry  # noqa: PLC0415 - MLflow takes seconds

        if self.tracking_uri is None:
            self._warn_of_network()
        if self.model_registry is not None:
            from elcrec.adapters.kubeflow_registry import MirroredRegistry  # noqa: PLC0415 - rarely used

            return MirroredRegistry(self.folder / "mlflow", mirror=self.model_registry, tracking_uri=self.tracking_uri)
        return MlflowRegistry(self.folder / "mlflow", tracking_uri=self.tracking_uri)

    @property
    def quick_registry(self) -> ModelRegistry:
        """The same registry for a few quick queries, without MLflow's slow import."""
        if self.tracking_uri is None:
            from elcrec.adapters.quick_registry import QuickRegistry  # noqa: PLC0415 - as the registry itself

            found = QuickRegistry.open(self.folder / "mlflow", lambda: self.registry)
            if found is not None:
                return found
        return self.registry

    @property
    def quick_check(self) -> ServiceCheck:
        """The check of a feature service, without importing Feast if the service is noted beside a file registry."""
        if self.feast_registry is not None:
            return self.features
        from elcrec.adapters.checked_services import QuickCheck  # noqa: PLC0415 - as above

        return QuickCheck(self.folder / "feast", lambda: self.features)

    @cached_property
    def features(self) -> FeatureStore:
        """The feature store."""
        from elcrec.adapters.quiet import quiet  # noqa: PLC0415 - as below

        with quiet("feast"):
            from elcrec.adapters.feast_config import Servers  # noqa: PLC0415 - Feast takes seconds
            from elcrec.adapters.feast_store import FeastStore  # noqa: PLC0415 - as above

        servers = Servers(redis=self.redis, registry=self.feast_registry)
        return FeastStore(self.folder, self.features_repository, servers)

    def require_history(self, longest: int) -> None:
        """Refuse histories that a push would refuse, before training starts.

        Raises:
            UserError: the feature view keeps shorter ones, according to the repository's source text (`WINDOW = 50`).
        """
        views = self.features_repository / "views.py"
        found = _WINDOW.search(views.read_text(encoding="utf-8")) if views.is_file() else None
        if found and longest > int(found[1]):
            what = f"sequences.history is {longest}, but the online store keeps {found[1]} items per user"
            raise UserError(what, where=views, fix="lower sequences.history, or raise WINDOW there")

    def _warn_of_network(self) -> None:
        """Warn that SQLite files on a network file system may break if several pods write to them."""
        kind = file_system_of(self.folder)
        if kind.startswith(_NETWORK):
            what = "SQLite may lose its file if two pods write at the same time; name servers in MLFLOW_TRACKING_URI"
            logger.warning("%s is on %s: %s, FEAST_REGISTRY and REDIS", self.folder, kind, what)


def file_system_of(folder: Path) -> str:
    """Return the type of a folder's file system, as Linux names it; empty if unknown."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    mounts = [(Path(place), kind) for _, place, kind, *_ in map(str.split, lines) if folder.is_relative_to(place)]
    depth, kind = 0, ""
    for place, mounted in mounts:  # the deepest mount holds the folder, and the later one of two at the same path
        if len(place.parts) >= depth:
            depth, kind = len(place.parts), mounted
    return kind


def open_store(folder: Path) -> Store:
    """Return the store in `folder`; nothing is read or written before it is used."""
    named = os.environ.get("ELCREC_FEATURES")
    return Store(
        folder=folder.absolute(),
        features_repository=(Path(named) if named else own_or_shipped(Path("features"))).absolute(),
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or None,
        redis=os.environ.get("REDIS") or None,
        feast_registry=os.environ.get("FEAST_REGISTRY") or None,
        salt=os.environ.get("ELCREC_USER_SALT") or None,
        model_registry=os.environ.get("MODEL_REGISTRY_URL") or None,
        signing_key=os.environ.get("ELCREC_SIGNING_KEY") or None,
        signing_password=os.environ.get("ELCREC_SIGNING_PASSWORD") or None,
    )
