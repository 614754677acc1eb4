"""The challenger: loaded like the champion, without ever disturbing it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from elcrec.errors import UserError
from elcrec.serving.loaded import Serving
from elcrec.serving.ports import ModelRegistry, RegisteredModel
from elcrec.serving.telemetry import Telemetry

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """A test that the registry asks for by naming a challenger.

    Attributes:
        test: its name, unique among the tests of all models.
        serving: the challenger; `None` if it cannot be served and the champion answers in its place.
    """

    test: str
    serving: Serving | None


class Challenger:
    """Holds the challenger while the registry names one. A reader of `challenge` keeps the object until done.

    Attributes:
        challenge: `None` while no version challenges the champion.
        problem: what is wrong with the challenger; `None` if nothing is wrong, or there is no challenger.
    """

    def __init__(
        self, name: str, registry: ModelRegistry, load: Callable[[RegisteredModel], Serving], telemetry: Telemetry
    ) -> None:
        """Take the model's name and the function that loads a version; nothing is loaded before `refresh`."""
        self._name, self._registry, self._load, self._telemetry = name, registry, load, telemetry
        self.loaded: Serving | None = None
        self.challenge: Challenge | None = None
        self.problem: str | None = None

    def refresh(self, champion: str) -> None:
        """Load the registry's challenger beside version `champion`; a failure here never fails a request."""
        try:
            found = self._registry.challenger(self._name)
        except Exception as error:  # noqa: BLE001 - an unreachable registry must not end the server
            self._say(f"the registry does not answer: {_text(error)}")
            return
        if found is None or found.version == champion:
            self._put(None)
            self.challenge = self.problem = None
            return
        test = f"{found.name} {found.version}"
        try:
            if self.loaded is None or not self.loaded.is_of(found):
                self._put(self._load(found))
            self.problem = None
        except Exception as error:  # noqa: BLE001 - nor may a bundle that cannot be served
            self._put(None)
            what = f"version {found.version}, the challenger, cannot be served"
            self._say(f"{what}: {_text(error)}; the champion answers")
        self.challenge = Challenge(test=test, serving=self.loaded)

    def failed(self, error: Exception) -> None:
        """Note that the challenger could not rank; it is not asked again before the next look at the registry."""
        self._telemetry.arms.failures.inc()
        if self.challenge is not None:
            self.challenge = Challenge(test=self.challenge.test, serving=None)
        self._say(f"the challenger does not rank: {type(error).__name__}; the champion answers")

    def _put(self, serving: Serving | None) -> None:
        self.loaded = serving
        if serving is None:
            self._telemetry.arms.show_challenger(None)
            return
        digest = serving.digest
        self._telemetry.arms.show_challenger((serving.name, serving.version, digest))
        fields = {"model": serving.name, "digest": digest}
        logger.info("version %s is the challenger", serving.version, extra={"fields": fields})

    def _say(self, message: str) -> None:
        """Log a problem once, not at every look."""
        if message != self.problem:
            self.problem = message
            logger.warning("%s", message)


def _text(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else type(error).__name__
