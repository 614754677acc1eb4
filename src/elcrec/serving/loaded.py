"""A version of the model that a server holds in memory."""

from dataclasses import dataclass
from functools import cached_property

from elcrec.serving.bundle import read_manifest
from elcrec.serving.ports import RegisteredModel
from elcrec.serving.recommender import Recommender


@dataclass(frozen=True, kw_only=True)
class Serving:
    """A version of the model, loaded, checked and warm."""

    name: str
    version: str
    recommender: Recommender

    @cached_property
    def digest(self) -> str:
        """Digest of its bundle: a hash over the whole manifest, which is too much to compute for each answer."""
        return self.recommender.manifest.digest

    @property
    def feature_service(self) -> str:
        """The Feast service from which it reads."""
        return self.recommender.manifest.feature_service

    @property
    def has_real_times(self) -> bool:
        """Whether its log has real times; in a benchmark log they are only positions in an order."""
        return self.recommender.manifest.split.get("time") == "real"

    def is_of(self, registered: RegisteredModel) -> bool:
        """Whether it is this version; digests are compared too, because a new registry counts from 1 again."""
        digest = read_manifest(registered.bundle).digest
        return registered.version == self.version and digest == self.digest
