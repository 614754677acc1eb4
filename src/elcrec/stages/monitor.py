"""Monitor: judge what is served, day by day, and decide whether to request retraining."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from elcrec.artifacts import atomic_dir, read_json, write_json
from elcrec.config import MonitorConfig, to_dict
from elcrec.data.engine import Engine, Session
from elcrec.monitoring.attributed import ATTRIBUTED_FILE, is_settled, read_window
from elcrec.monitoring.daily import Measured, Period, bundles, days, measure, score_edges
from elcrec.monitoring.profile import NO_PROFILE, Profile, read_profile
from elcrec.monitoring.sentences import say_stale
from elcrec.monitoring.state import MONITOR_FILE, BundleState, Request, State, document, read_state
from elcrec.monitoring.verdict import Day, Reference, Verdict, judge, limits, may_ask
from elcrec.pages.monitor import write_monitor_page
from elcrec.pages.render import can_write_pages
from elcrec.serving.bundle import MANIFEST, read_manifest
from elcrec.serving.exposure_files import LATER_COLUMNS

_EPOCH = date(1970, 1, 1)
_KEPT_DAYS = 120
_TOGETHER = -1
"""Number of the period that contains all reference days."""


class Champion(NamedTuple):
    """The bundle that serves: its identity, its age in days, and its training profile."""

    digest: str
    age: float
    profile: Profile


def monitor(
    config: MonitorConfig,
    attributed: Path,
    out: Path,
    *,
    engine: Engine,
    now: datetime,
    earlier: Path | None = None,
    bundle: Path | None = None,
) -> dict[str, object]:
    """Judge every whole day of every bundle that was shown; return the verdict and some numbers.

    A day is judged again as events arrive, until the window of attribution after its end has passed: then it is
    settled. Checks that need events (`verdict.NEEDS_EVENTS`) are judged only on settled days. A day that is judged
    twice counts once.

    Args:
        config: the section `monitor`.
        attributed: the output of `elcrec exposures`.
        out: the folder to write: `monitor.json`, and a page.
        engine: runs the SQL.
        now: the present time; a day is whole if it ended before it.
        earlier: the output of an earlier run; `None` looks for it in `out`.
        bundle: the champion's bundle, for its age and its training profile; `None` takes the newest bundle that was
            shown.

    Raises:
        UserError: an input is missing or invalid.
    """
    window, before = read_window(attributed, lacking=LATER_COLUMNS), read_state(earlier or out)
    champion = None if bundle is None else _champion(bundle, now)
    with atomic_dir(out) as scratch:
        with engine.session(out) as session:
            session.scan("attributed", [attributed / ATTRIBUTED_FILE])
            known = {state.digest: state for state in before.bundles}
            found = [_judged(config, state) for state in _remeasured(config, session, known, now, window)]
        state = _concluded(config, before, found, champion, now)
        state = msgspec.structs.replace(state, config=to_dict(config), window=window, time=now)
        write_json(scratch / MONITOR_FILE, document(state))
        if config.page and can_write_pages():
            write_monitor_page(scratch / "monitor.html", state, NO_PROFILE if champion is None else champion.profile)
    judged = [one.date for each in found for one in each.judgements if one.judged]
    numbers = {"bundles": len(found), "judged_days": len(judged), "requests": len(state.requests)}
    return {"verdict": state.verdict, "retrain": state.retrain, **numbers}


def _champion(bundle: Path, now: datetime) -> Champion:
    manifest, written = read_manifest(bundle), read_json(bundle / MANIFEST)
    age = (now - datetime.fromisoformat(written["created"])) / timedelta(days=1)
    return Champion(manifest.digest, age, read_profile(bundle))


def _remeasured(
    config: MonitorConfig, session: Session, known: Mapping[str, BundleState], now: datetime, window: float
) -> list[BundleState]:
    """Return every bundle with its whole days measured; settled days stay as they are."""
    rows, shown = bundles(session), days(session)
    states = {row["digest"]: known.get(row["digest"]) or _new(row) for row in rows}
    today = (now.date() - _EPOCH).days
    wanted = [(digest, day, users) for digest, day, users in shown if day < today and _is_open(states[digest], day)]
    first = _first_days(config, states, wanted)
    edges = {digest: state.edges for digest, state in states.items()} | score_edges(session, first)
    measured = measure(session, [(digest, day, day) for digest, day, _ in wanted], edges)
    for digest, state in states.items():
        new = [
            Day(date=_date(day), settled=is_settled(day, now, window), measured=one)
            for (of, day), one in measured.items()
            if of == digest
        ]
        changes = {"edges": tuple(edges[digest]), "days": _joined(state.days, new)}
        states[digest] = msgspec.structs.replace(state, **changes)
    return [*_with_references(config, session, states), *(known[digest] for digest in known if digest not in states)]


def _new(row: Mapping[str, Any]) -> BundleState:
    names = {"digest": row["digest"], "model": row["model"], "version": row["version"]}
    return BundleState(**names, first=_date(row["first"]))


def _is_open(state: BundleState, day: int) -> bool:
    """Return whether a day must still be measured: it is not the first, and later than every settled day."""
    settled = [one.date for one in state.days if one.settled]
    if state.reference is not None:
        settled += [one.date for one in state.reference.days]
    return _date(day) > max([state.first, *settled])


def _first_days(
    config: MonitorConfig, states: Mapping[str, BundleState], wanted: Sequence[tuple[str, int, int]]
) -> dict[str, int]:
    """Return the first day with enough users of each bundle whose scores have no deciles yet."""
    first: dict[str, int] = {}
    for digest, day, users in wanted:
        if not states[digest].edges and users >= config.min_users:
            first.setdefault(digest, day)
    return first


def _date(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).isoformat()


def _joined(old: Sequence[Day], new: Sequence[Day]) -> tuple[Day, ...]:
    by_date = {day.date: day for day in (*old, *new)}
    return tuple(by_date[name] for name in sorted(by_date))[-_KEPT_DAYS:]


def _with_references(
    config: MonitorConfig, session: Session, states: Mapping[str, BundleState]
) -> Iterator[BundleState]:
    """Yield the bundles; a bundle that now has enough settled days gets its reference."""
    ready = {
        digest: [day for day in state.days if day.settled and day.measured.users >= config.min_users]
        for digest, state in states.items()
        if state.reference is None
    }
    chosen = {digest: found[: config.reference_days] for digest, found in ready.items()}
    whole = {digest: found for digest, found in chosen.items() if len(found) == config.reference_days}
    periods: list[Period] = [
        (digest, (date.fromisoformat(day.date) - _EPOCH).days, _TOGETHER)
        for digest, found in whole.items()
        for day in found
    ]
    edges = {digest: state.edges for digest, state in states.items()}
    pooled = measure(session, periods, edges)
    for digest, state in states.items():
        if digest in whole:
            # If the table has no rows of these days any more, the last of them stands in for all, which is less
            # accurate.
            together = pooled.get((digest, _TOGETHER), whole[digest][-1].measured)
            yield _referred(state, whole[digest], together)
        else:
            yield state


def _referred(state: BundleState, found: Sequence[Day], pooled: Measured) -> BundleState:
    later = tuple(day for day in state.days if day.date > found[-1].date)
    return msgspec.structs.replace(state, reference=Reference(days=tuple(found), pooled=pooled), days=later)


def _judged(config: MonitorConfig, state: BundleState) -> BundleState:
    if state.reference is None:
        return state
    judgements = tuple(judge(config, state.days, state.reference))
    return msgspec.structs.replace(state, limits=limits(config, state.reference), judgements=judgements)


def _concluded(
    config: MonitorConfig, before: State, found: Sequence[BundleState], champion: Champion | None, now: datetime
) -> State:
    """Return the verdict on the bundle that serves, and whether to request retraining."""
    by_digest = {state.digest: state for state in found}
    newest = max(
        found, key=lambda state: (state.days[-1].date if state.days else state.first, state.first), default=None
    )
    current = newest if champion is None else by_digest.get(champion.digest)
    verdict, reasons = _verdict(config, current)
    if champion is not None and config.stale_days is not None and champion.age >= config.stale_days:
        asks = "staleness" in config.retrain_on
        verdict = "retrain" if asks or verdict == "retrain" else "warn"
        reasons = (*reasons, say_stale(champion.age, config.stale_days))
    digest = champion.digest if champion is not None else current.digest if current is not None else None
    asked = [request.time for request in before.requests]
    retrain = verdict == "retrain" and digest is not None and may_ask(asked, now, config.cool_down_days)
    requests = (*before.requests, Request(time=now, digest=digest)) if retrain and digest else before.requests
    return State(
        bundle=digest,
        verdict=verdict,
        reasons=reasons,
        retrain=retrain,
        requests=requests,
        bundles=tuple(found),
    )


def _verdict(config: MonitorConfig, state: BundleState | None) -> tuple[Verdict, tuple[str, ...]]:
    if state is None:
        return "learning", ("The bundle that serves has not been shown to any user yet.",)
    judged = [one for one in state.judgements if one.judged]
    if judged:
        return judged[-1].verdict, judged[-1].reasons
    if state.reference is not None:
        return "learning", ("The reference days are known; no later day has been judged yet.",)
    usable = sum(day.settled and day.measured.users >= config.min_users for day in state.days)
    return "learning", (f"{usable} of the {config.reference_days} reference days are known.",)
