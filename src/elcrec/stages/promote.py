"""Promote: decide between challenger and champion by the behaviour of their users, and act on the decision."""

import logging
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from elcrec.artifacts import SCHEMA_VERSION, atomic_dir, write_json
from elcrec.config import Config, to_dict
from elcrec.data.engine import Engine
from elcrec.errors import UserError
from elcrec.monitoring.arms import began, daily_sums
from elcrec.monitoring.attributed import ATTRIBUTED_FILE, is_settled, read_window
from elcrec.monitoring.promotion import Decision, decide
from elcrec.pages.promote import write_promotion_page
from elcrec.pages.render import can_write_pages
from elcrec.serving.bundle import read_manifest, verify_bundle
from elcrec.serving.ports import PUSH_FIRST, ModelRegistry, RegisteredModel, ServiceCheck

logger = logging.getLogger(__name__)

PROMOTE_FILE = "promote.json"
_EPOCH = date(1970, 1, 1)


def promote(
    attributed: Path,
    *,
    registry: ModelRegistry,
    features: ServiceCheck,
    config: Config,
    out: Path,
    engine: Engine,
    now: datetime,
    dry_run: bool = False,
) -> dict[str, object]:
    """Write the decision into `out`, and act on it: the challenger becomes champion, stays, or is rejected.

    Whole, settled days count, from the first one after both versions were shown in their arms. A second run after an
    action finds no challenger and changes nothing.

    Args:
        attributed: the output of `elcrec exposures`.
        registry: the registry with champion and challenger.
        features: the feature store, which must have the features that the challenger reads.
        config: the configuration; used are the section `promote`, `push.model_name` and `serve.challenger.share`.
        out: the folder to write: `promote.json`, and a page.
        engine: runs the SQL.
        now: the present time; a day counts if all events that may follow from its answers happened before it.
        dry_run: whether to leave the registry unchanged.

    Returns:
        The outcome (`promotion.Outcome`), its reason and some numbers.

    Raises:
        UserError: there is no champion, an input is invalid, or the challenger cannot be served.
    """
    name = config.push.model_name
    champion, challenger = registry.champion(name), registry.challenger(name)
    if champion is None:
        raise UserError(f"no champion of model {name!r}", fix=PUSH_FIRST)
    if challenger is not None and challenger.version == champion.version:
        challenger = None
    with atomic_dir(out) as scratch:
        decision = Decision(outcome="none", reason=f"model {name!r} has no challenger")
        if challenger is not None:
            decision = _decide(config, attributed, champion, challenger, out, engine, now)
        document = _document(config, decision, champion, challenger, now) | {"dry_run": dry_run}
        write_json(scratch / PROMOTE_FILE, document)
        if config.promote.page and decision.looks and can_write_pages():
            write_promotion_page(scratch / "promote.html", config.promote, decision, document)
        if challenger is not None and not dry_run:
            _act(decision, challenger, registry, features)
    logger.info("%s: %s", decision.outcome, decision.reason)
    return _summary(config, decision, challenger)


def _decide(
    config: Config,
    attributed: Path,
    champion: RegisteredModel,
    challenger: RegisteredModel,
    out: Path,
    engine: Engine,
    now: datetime,
) -> Decision:
    window, section = read_window(attributed), config.promote
    digests = {arm: read_manifest(each.bundle).digest for arm, each in _arms(champion, challenger).items()}
    with engine.session(out) as session:
        session.scan("attributed", [attributed / ATTRIBUTED_FILE])
        first, last = began(session, digests), (now.date() - _EPOCH).days - 1
        while not is_settled(last, now, window):
            last -= 1
        if first is None:
            reason = "champion and challenger were not shown in two arms yet: servers need serve.challenger.mode=split"
            return Decision(outcome="collect", reason=reason)
        first = max(first + 1, (date.fromisoformat(section.since or _EPOCH.isoformat()) - _EPOCH).days)
        days, crossed = daily_sums(session, first, last, [section.metric, *section.guards])
        return decide(section, days, crossed, share=config.serve.challenger.share)


def _arms(champion: RegisteredModel, challenger: RegisteredModel) -> dict[Any, RegisteredModel]:
    return {"champion": champion, "challenger": challenger}


def _act(decision: Decision, challenger: RegisteredModel, registry: ModelRegistry, features: ServiceCheck) -> None:
    """Move the alias, or reject the challenger; in both cases, no challenger remains."""
    if decision.outcome == "promote":
        manifest = verify_bundle(challenger.bundle)
        features.check(manifest.feature_service, manifest.feature_schema)
        registry.set_champion(challenger.name, challenger.version)
    elif decision.outcome == "drop":
        registry.reject(challenger.name, challenger.version, decision.reason)


def _document(
    config: Config,
    decision: Decision,
    champion: RegisteredModel,
    challenger: RegisteredModel | None,
    now: datetime,
) -> dict[str, Any]:
    """Return the content of promote.json, except whether it was acted on."""
    found = msgspec.to_builtins(decision)
    looks = [{"date": _date(look["day"]), **look} for look in found.pop("looks")]
    return {
        "schema_version": SCHEMA_VERSION,
        "model": config.push.model_name,
        "champion": champion.version,
        "challenger": None if challenger is None else challenger.version,
        **found,
        "share": config.serve.challenger.share,
        "time": now.isoformat(timespec="seconds"),
        "config": to_dict(config.promote),
        "looks": looks,
    }


def _summary(config: Config, decision: Decision, challenger: RegisteredModel | None) -> dict[str, object]:
    summary: dict[str, object] = {"outcome": decision.outcome, "reason": decision.reason}
    if challenger is not None:
        summary["challenger"] = challenger.version
    if decision.looks:
        last = decision.looks[-1]
        found = last.estimates.get(config.promote.metric)
        summary |= {"days": len(decision.looks), "users": sum(last.users.values())}
        if found is not None:
            summary |= {"lift": found.lift, "lift_low": found.low, "lift_high": found.high}
    return summary


def _date(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).isoformat()
