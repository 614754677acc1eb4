"""The bundle that serves, and its replacement when the registry's champion changes."""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np

from elcrec.errors import UserError
from elcrec.serving.bundle import read_manifest
from elcrec.serving.challenger import Challenger
from elcrec.serving.items_file import ItemsFile
from elcrec.serving.loaded import Serving
from elcrec.serving.ports import PUSH_FIRST, FeatureStore, ModelRegistry, RegisteredModel, StoreUnavailable
from elcrec.serving.recommender import Query, Recommender
from elcrec.serving.telemetry import Telemetry

logger = logging.getLogger(__name__)

_WARM_UP = (1, 64)


class Live:
    """Holds the version that serves. A reader of `current` keeps that version until done; a swap is one assignment.

    Attributes:
        problem: what is wrong with the champion or the registry; `None` while the champion serves.
        challenger: the version that is tried beside the champion; `None` if challengers are ignored.
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
        """Load the champion of model `name`, or, if it cannot be served, the newest other version that can.

        `items` is the shop's items file, which replaces the bundle's copy. `check` raises UserError for a bundle that
        must not be trusted. With `challenged` the challenger is loaded too, if it can be served; `alias` serves it in
        place of the champion. `seed` seeds the exploration of every version's rules; `None` draws differently on each
        server.

        Raises:
            UserError: there is no champion, or no version can be served.
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
        """Load new versions from the registry, and new items; after a failure, the present ones stay."""
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
        """What is wrong with the items file; `None` if nothing is wrong, or there is no items file."""
        return None if self._items is None else self._items.problem

    def _wanted(self) -> RegisteredModel | None:
        """Return the version to serve: the one with the alias, or the champion if there is no challenger."""
        found = self._registry.challenger(self._name) if self._alias == "challenger" else None
        return found or self._registry.champion(self._name)

    def _promoted(self, champion: RegisteredModel) -> Serving | None:
        """Return the challenger if it has become the champion: it is already loaded and warm."""
        loaded = None if self.challenger is None else self.challenger.loaded
        return loaded if loaded is not None and loaded.is_of(champion) else None

    def _fall_back(self, champion: RegisteredModel, error: UserError) -> None:
        """Serve the newest other version that can be served.

        Raises:
            UserError: there is none; the error is the champion's.
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
        # The service is checked first, because it is cheap: a refused bundle is checked again at every poll.
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
        """Read the store once: the first read opens it, which takes longer than a request may wait."""
        try:
            self._features.histories(["nobody"], service=service)
        except StoreUnavailable as error:
            logger.warning("the online store is down", extra={"fields": {"kind": type(error.__cause__).__name__}})

    def _put(self, serving: Serving) -> None:
        self.current, self.problem = serving, None
        digest, index = serving.digest, serving.recommender.index
        self._telemetry.show_bundle(serving.name, serving.version, digest)
        self._telemetry.show_search("exact" if index is None else "approximate")
        search = "exact" if index is None else f"approximate, {index.probes} of {index.lists} parts"
        fields = {"model": serving.name, "digest": digest, "search": search}
        logger.info("version %s serves", serving.version, extra={"fields": fields})

    def _say(self, message: str) -> bool:
        """Log a problem once, not at every poll; return whether it is new."""
        new = message != self.problem
        if new:
            self.problem = message
            logger.warning("%s", message)
        return new


def _text(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else type(error).__name__


def _warm_up(recommender: Recommender) -> None:
    """Rank once, so that the first request is not slow, and a model with invalid scores is found.

    Raises:
        UserError: a score is not a finite number.
    """
    history = recommender.catalogue.ids[1:2]
    for size in _WARM_UP:
        for answer in recommender.recommend([Query(history=history, k=10)] * size):
            if not np.isfinite(answer.scores).all():
                raise UserError("its scores are not numbers", fix="train and push the model again")


class Watcher(threading.Thread):
    """Polls the registry every `seconds` until it is stopped."""

    def __init__(self, live: Live, seconds: float) -> None:
        """Take what to refresh."""
        super().__init__(name="champion", daemon=True)
        self._live, self._seconds, self._stop_asked = live, seconds, threading.Event()

    def run(self) -> None:
        """Refresh until stopped."""
        while not self._stop_asked.wait(self._seconds):
            try:
                self._live.refresh()
            except Exception as error:
                # A thread that has ended would follow nothing any more, and no one would know.
                logger.exception("following the registry failed; it is tried again")
                self._live.problem = f"following the registry failed: {error!r}"

    def stop(self) -> None:
        """Ask it to end; do not wait for a poll that has begun."""
        self._stop_asked.set()
