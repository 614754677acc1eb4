"""The simulated month: every day is served, and every morning the stages run as in operation."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq

from benchmarks.simulation.service import Mode, Served, serve_day
from benchmarks.simulation.shop import FIRST_DAY, Shop
from elcrec.adapters.engine import open_engine
from elcrec.adapters.event_export import export_events
from elcrec.adapters.store import Store
from elcrec.artifacts import read_json
from elcrec.config import Config
from elcrec.serving.ports import RegisteredModel
from elcrec.stages.evaluate import evaluate
from elcrec.stages.exposures import join_exposures
from elcrec.stages.fetch import fetch
from elcrec.stages.monitor import monitor
from elcrec.stages.promote import promote
from elcrec.stages.push import push
from elcrec.stages.sequences import build_sequences
from elcrec.stages.train import train
from elcrec.stages.validate import validate

logger = logging.getLogger(__name__)

_MORNING = timedelta(hours=7)
"""When the work of the day before is judged: its window of attribution has passed."""


@dataclass(kw_only=True)
class DayPlayed:
    """A day and the morning after it.

    Attributes:
        number: number of the day, from 1.
        date: date in ISO 8601.
        mode: the server's mode for a challenger.
        champion: version that served.
        served: the behaviour of users.
        verdict: the monitor's verdict on the next morning.
        reasons: its reasons.
        notes: events of that morning, one word and one sentence each.
    """

    number: int
    date: str
    mode: Mode
    champion: str
    served: Served
    verdict: str = ""
    reasons: list[str] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)


class Month:
    """A shop, its store, and their operation."""

    def __init__(self, config: Config, folder: Path, store: Store, shop: Shop, *, drift_day: int, seed: int) -> None:
        """Take the parts.

        Args:
            config: the configuration of all stages.
            folder: folder for the output of all stages.
            store: the registry and the feature store.
            shop: the simulated users.
            drift_day: the day, from 1, on which tastes drift.
            seed: seed of the server's exploration.
        """
        self._config, self._folder, self._store, self._shop = config, folder, store, shop
        self._drift_day, self._seed = drift_day, seed
        self._engine = open_engine(config.engine)
        self._mode: Mode = "off"
        self._trainings = 0
        self.gate: dict[str, Any] | None = None
        """What the gate said of the retrained model, gate.json; `None` while there is none."""

    def open(self) -> None:
        """Train on the log before the first day, and push."""
        log = self._folder / "history.parquet"
        pq.write_table(self._shop.history(), log)
        self._train(log, "champion")

    def play(self, days: int) -> Iterator[DayPlayed]:
        """Simulate day after day; yield each day after the work of the next morning."""
        for number in range(1, days + 1):
            notes = []
            if number == self._drift_day:
                self._shop.drift()
                notes.append(("drift", f"{self._shop.habits.turned:.0%} of the users turn to intents that were rare."))
            day = self._serve(number, notes)
            self._operate(day, FIRST_DAY + timedelta(days=number) + _MORNING)
            yield day

    def _serve(self, number: int, notes: list[tuple[str, str]]) -> DayPlayed:
        visits = self._shop.visits(number - 1)
        day = (self._config, self._store, self._folder / "exposures", self._shop, visits)
        served = serve_day(*day, mode=self._mode, seed=self._seed + number)
        date = (FIRST_DAY + timedelta(days=number - 1)).date().isoformat()
        return DayPlayed(
            number=number, date=date, mode=self._mode, champion=self._champion.version, served=served, notes=notes
        )

    @property
    def _champion(self) -> RegisteredModel:
        champion = self._store.registry.champion(self._config.push.model_name)
        assert champion is not None, "the shop was opened"
        return champion

    def _operate(self, day: DayPlayed, now: datetime) -> None:
        """Do the scheduled work of the morning: join exposures, judge, and act on the verdict."""
        attributed, config = self._folder / "attributed", self._config
        join = partial(join_exposures, config.exposures, salt=self._store.user_salt, engine=self._engine)
        join(self._folder / "exposures", attributed, log=self._store.features.event_log)
        judge = partial(monitor, config.monitor, attributed, self._folder / "monitor", engine=self._engine)
        found = judge(now=now, bundle=self._champion.bundle)
        day.verdict = str(found["verdict"])
        day.reasons = read_json(self._folder / "monitor" / "monitor.json")["reasons"]
        if self._mode == "split":
            self._decide(day, now)
        elif self._mode == "shadow":
            self._mode = "split"
            day.notes.append(("split", "The challenger answers a part of the users from now on."))
        elif found["retrain"]:
            self._retrain(day)

    def _retrain(self, day: DayPlayed) -> None:
        day.notes.append(("retrain", f"The monitor asks for a training: {' '.join(day.reasons)}"))
        log = self._folder / "grown.parquet"
        base = self._folder / "history.parquet"
        export_events(self._store.features.event_log, log, base=base)
        pushed = self._train(log, "challenger")
        self.gate = read_json(self._folder / "push" / "gate.json")
        if pushed["accepted"]:
            self._mode = "shadow"
            day.notes.append(("challenger", f"Version {pushed['version']} passes the gate: {pushed['reason']}."))
        else:
            day.notes.append(("refused", f"The gate refuses the new model: {pushed['reason']}."))

    def _decide(self, day: DayPlayed, now: datetime) -> None:
        decided = promote(
            self._folder / "attributed",
            registry=self._store.registry,
            features=self._store.features,
            config=self._config,
            out=self._folder / "promotion",
            engine=self._engine,
            now=now,
        )
        outcome, reason = str(decided["outcome"]), f"{str(decided['reason'])[:1].upper()}{str(decided['reason'])[1:]}."
        if outcome == "collect":
            return
        day.notes.append((outcome, reason))
        self._mode = "off"

    def _train(self, log: Path, alias: str) -> dict[str, Any]:
        """Run the pipeline on a log, like `elcrec run`, and push under an alias."""
        self._trainings += 1
        work, config = self._folder / f"training-{self._trainings}", self._config
        source = msgspec.structs.replace(config.fetch.file, path=str(log), format="parquet")
        fetch(msgspec.structs.replace(config.fetch, dataset="file", file=source), work / "raw")
        validate(config.validate, work / "raw", work / "validated", engine=self._engine)
        build_sequences(config.sequences, work / "validated", work / "sequences", engine=self._engine)
        champion = self._store.registry.champion(config.push.model_name)
        start = None if champion is None else champion.bundle
        train(config.train, work / "sequences", work / "model", checkpoint=work / "checkpoint", warm_start=start)
        evaluate(config.evaluate, work / "model", work / "sequences", work / "evaluation")
        section = msgspec.structs.replace(config.push, alias=alias, gate=self._gate())
        inputs = (work / "model", work / "sequences", work / "evaluation", self._folder / "push")
        release = partial(push, registry=self._store.registry, features=self._store.features)
        with self._store.pushing():
            return release(section, *inputs, salt=lambda: self._store.user_salt)

    def _gate(self) -> Any:
        """Return the gate's section with the log of this month, which the first push does not use."""
        gate = self._config.push.gate
        asked = msgspec.structs.replace(gate.counterfactual, attributed=str(self._folder / "attributed"))
        return msgspec.structs.replace(gate, counterfactual=asked)
