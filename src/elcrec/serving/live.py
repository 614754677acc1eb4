"""The bundle that serves, and its replacement when the registry's champion moves."""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from elcrec.errors import UserError
from elcrec.serving.bundle import read_manifest
from elcrec.serving.challenger import Challenger
from elcrec.serving.items_file import ItemsFile
from elcrec.serving.ports import PUSH_FIRST, FeatureStore, ModelRegistry, RegisteredModel, StoreUnavailable
from elcrec.serving.recommender import Query, Recommender
from elcrec.serving.telemetry import Telemetry

logger = logging.getLogger(__name__)

_WARM_UP = (1, 64)


@dataclass(frozen=True, kw_only=True)
class Serving:
    """A version of the model, loaded, checked and warm."""

    name: str
    version: str
    recommender: Recommender

    @property
    def feature_service(self) -> str:
        """The Feast service that it reads."""
        return self.recommender.manifest.feature_service

    @property
    def has_real_times(self) -> bool:
        """Whether the log that it was made from has real times; a benchmark log's are places in an order."""
        return self.recommender.manifest.split.get("time") == "real"

    def is_of(self, registered: RegisteredModel) -> bool:
        """Whether it is this version: by its digest too, for a registry that was made anew counts from 1 again."""
        digest = read_manifest(registered.bundle).digest
        return registered.version == self.version and digest == self.recommender.manifest.digest


class Live:
    """Holds what serves. Whoever reads `current` keeps that version until done; a swap is one assignment.

    Attributes:
        problem: what is wrong with the champion or the registry; `None` while the champion serves.
        challenger: what is tried beside the champion; `None` where challengers are not looked at.
    """

    def __init__(
        self,
        name: str,
        registry: ModelRegistry,
        features: FeatureStore,
        telemetry: Telemetry,
        items: ItemsFile | None = None,
        check: Callable[[Path], None] | None = None,
        *,
        challenged: bool = False,
        alias: Literal["champion", "challenger"] = "champion",
        seed: int | None = None,
    ) -> None:
        """Load the champion of model `name`, or, where it cannot be served, the newest other version that can.

        `items` is what the shop knows of its items, in place of the bundle's copy. `check` raises UserError for a
        bundle that is not to be trusted. `challenged` brings in the challenger too, if it can be served; `alias`
        serves it in the champion's place. `seed` seeds what the rules of every version explore; `None` for no two
        servers alike.

        Raises:
            UserError: there is none, or no version can be served.
        """
        self._name, self._registry, self._features, self._telemetry = name, registry, features, telemetry
        self._items, self._check, self._seed = items, check, seed
        self.problem: str | None = None
        self.challenger = Challenger(name, registry, self._load, telemetry) if challenged else None
        self._alias = alias
        champion = self._wanted()
        if champion is None:
            raise UserError(f"no champion of model {name!r}", fix=PUSH_FIRST)
        try:
            self._put(self._load(champion))
        except UserError as error:
            self._fall_back(champion, error)
        self._refresh_challenger()

    def refresh(self) -> None:
        """Bring in the registry's versions if others are here, and new items; on any failure what was stays."""
        if self._items is not None and self._items.reread():
            beside = None if self.challenger is None else self.challenger.loaded
            for serving in (self.current, beside):
                if serving is not None:
                    self._items.apply(serving.recommender)
        self._refresh_champion()
        self._refresh_challenger()

    def _refresh_challenger(self) -> None:
        if self.challenger is not None:
            self.challenger.refresh(self.current.version)

    def _refresh_champion(self) -> None:
        try:
            champion = self._wanted()
        except Exception as error:  # noqa: BLE001 - an unreachable registry must not end the server
            self._telemetry.registry_errors.inc()
            self._say(f"the registry does not answer: {_text(error)}")
            return
        if champion is None:
            self._say(f"the registry has no champion of model {self._name!r}")
            return
        try:
            if self.current.is_of(champion):
                self.problem = None
                return
            serving = self._promoted(champion) or self._load(champion)
        except Exception as error:  # noqa: BLE001 - nor may a bundle that cannot be served
            what = f"version {champion.version} is refused, version {self.current.version} stays: {_text(error)}"
            if self._say(what):
                self._telemetry.swaps.labels("refused").inc()
            return
        self._put(serving)
        self._telemetry.swaps.labels("swapped").inc()

    @property
    def items_problem(self) -> str | None:
        """What is wrong with the items file; `None` where nothing is, or there is none."""
        return None if self._items is None else self._items.problem

    def _wanted(self) -> RegisteredModel | None:
        """Return the version that is to be served; while there is no challenger that is the champion."""
        found = self._registry.challenger(self._name) if self._alias == "challenger" else None
        return found or self._registry.champion(self._name)

    def _promoted(self, champion: RegisteredModel) -> Serving | None:
        """Return the challenger if it has become the champion: it is loaded and warm."""
        loaded = None if self.challenger is None else self.challenger.loaded
        return loaded if loaded is not None and loaded.is_of(champion) else None

    def _fall_back(self, champion: RegisteredModel, error: UserError) -> None:
        """Serve the newest other version that can be served.

        Raises:
            UserError: there is none; it says what is wrong with the champion.
        """
        for version in self._registry.versions(self._name):
            if version == champion.version:
                continue
            with suppress(UserError):
                found = self._registry.version(self._name, version)
                if found is not None:
                    self._put(self._load(found))
                    what = f"version {champion.version}, the champion, cannot be served: {error}"
                    self._say(f"{what}; version {version} serves instead")
                    return
        raise error

    def _load(self, champion: RegisteredModel) -> Serving:
        # The service first: a bundle that is refused is looked at again with every poll.
        manifest = read_manifest(champion.bundle)
        self._features.check(manifest.feature_service, manifest.feature_schema)
        if self._check is not None:
            self._check(champion.bundle)
        recommender = Recommender.load(champion.bundle, seed=self._seed)
        if self._items is not None:
            self._items.apply(recommender)
        _warm_up(recommender)
        self._touch_store(manifest.feature_service)
        return Serving(name=champion.name, version=champion.version, recommender=recommender)

    def _touch_store(self, service: str) -> None:
        """Read once: the first read opens the store, which takes longer than a request may wait."""
        try:
            self._features.histories(["nobody"], service=service)
        except StoreUnavailable as error:
            logger.warning("the online store is down", extra={"fields": {"kind": type(error.__cause__).__name__}})

    def _put(self, serving: Serving) -> None:
        self.current, self.problem = serving, None
        digest, index = serving.recommender.manifest.digest, serving.recommender.index
        self._telemetry.show_bundle(serving.name, serving.version, digest)
        self._telemetry.show_search("exact" if index is None else "approximate")
        search = "exact" if index is None else f"approximate, {index.probes} of {index.lists} parts"
        fields = {"model": serving.name, "digest": digest, "search": search}
        logger.info("version %s serves", serving.version, extra={"fields": fields})

    def _say(self, message: str) -> bool:
        """Log a problem once, not at every look; return whether it is new."""
        new = message != self.problem
        if new:
            self.problem = message
            logger.warning("%s", message)
        return new


def _text(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else type(error).__name__


def _warm_up(recommender: Recommender) -> None:
    """Rank once, so that the first request does not pay for it, and a model that gives no numbers is found out.

    Raises:
        UserError: a score is not a number.
    """
    history = recommender.catalogue.ids[1:2]
    for size in _WARM_UP:
        for answer in recommender.recommend([Query(history=history, k=10)] * size):
            if not np.isfinite(answer.scores).all():
                raise UserError("its scores are not numbers", fix="train and push the model again")


class Watcher(threading.Thread):
    """Looks at the registry every `seconds` until it is stopped."""

    def __init__(self, live: Live, seconds: float) -> None:
        """Take what to refresh."""
        super().__init__(name="champion", daemon=True)
        self._live, self._seconds, self._stop_asked = live, seconds, threading.Event()

    def run(self) -> None:
        """Refresh until stopped."""
        while not self._stop_asked.wait(self._seconds):
            self._live.refresh()

    def stop(self) -> None:
        """Ask it to end; a look that has begun is not waited for."""
        self._stop_asked.set()
