"""The survey of a log: write its rows to files, and measure the figures for the checks."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from elcrec.config import ValidateConfig
from elcrec.data.benchmark import refuse_repeated_users
from elcrec.data.engine import Session
from elcrec.data.forgotten import Forgotten
from elcrec.data.interactions import KIND
from elcrec.data.lines import Lines
from elcrec.data.log import RawLog, TimeKind, TornLine, stage_log
from elcrec.data.profile import Counts, Figures, Profile, count_out_of_order, count_popular_before, describe, measure
from elcrec.data.rows import Rule, find_faulty, leave_out_forgotten, leave_out_others, row_rules, stream_set_aside
from elcrec.data.sorting import Fault, Sorted, sort_rows
from elcrec.data.suspects import Shares, Suspect, leave_out_heavy

_LOG = "log.parquet"


class Limits(NamedTuple):
    """The limits for rows.

    Attributes:
        max_id_length: largest length of an id in characters.
        now: the present time.
        earliest: the first plausible time; 0 for any.
        shares: shares above which users and items are left out; `None` leaves none out.
        repeats: whether rows with the same user, item and time are different events.
    """

    max_id_length: int
    now: datetime
    earliest: int = 0
    shares: Shares | None = None
    repeats: bool = False


def limits_of(config: ValidateConfig, now: datetime) -> Limits:
    """Return the limits for rows in the configuration."""
    first = datetime.fromisoformat(config.earliest).replace(tzinfo=UTC)
    shares = Shares(config.max_user_share, config.max_item_share) if config.leave_out_heavy else None
    since, repeats = int(first.timestamp()) * 1_000_000, config.duplicates == "keep"
    return Limits(config.max_id_length, now, since, shares, repeats)


def _placed(found: Sorted, log: RawLog) -> Sorted:
    """Add to the examples of faulty rows their line numbers, and to torn rows their text."""
    if log.lines is None:
        return found
    torn = {line.row: line for line in log.torn_lines}
    return replace(found, faults=[_placed_fault(fault, log.lines, torn) for fault in found.faults])


def _placed_fault(fault: Fault, lines: Lines, torn: Mapping[int, TornLine]) -> Fault:
    numbers = lines.of_rows(np.asarray([row["row"] for row in fault.examples], np.int64)).tolist()
    examples = [{**row, "line": number} for row, number in zip(fault.examples, numbers, strict=True)]
    for row in examples:
        if line := torn.get(row["row"]):
            row |= {"torn": line.fault, "text": line.text}
    return replace(fault, examples=examples)


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The figures of a log.

    Attributes:
        time: whether its times are real.
        types: the columns' types in the file.
        rows: number of rows that count, including torn ones.
        torn: number of torn rows.
        lines: facts about the lines of a text.
        forgotten: number of rows of forgotten users, which are counted nowhere else.
        others: number of rows that do not count by `validate.keep`.
        left_out: users and items with an implausible share, whose rows are counted nowhere else.
        rules: the rules for rows.
        broken: number of rows that break each rule, by its name.
        sorted: the outcome for the rows.
        figures: figures of the accepted rows.
        out_of_order: number of events after a later event of the same user.
        profile: the profile, for comparison with the next log.
        previous: the profile of the previous log, if any.
        popular_before: events of the items that were popular in the previous log, and of all others.
    """

    time: TimeKind
    types: dict[str, str]
    rows: int
    torn: int
    lines: Lines | None
    forgotten: int
    others: int
    left_out: list[Suspect]
    rules: list[Rule]
    broken: dict[str, int]
    sorted: Sorted
    figures: Figures
    out_of_order: int
    profile: Profile
    previous: Profile | None
    popular_before: Counts | None


def survey(
    session: Session,
    log: RawLog,
    *,
    source: Mapping[str, Any],
    previous: Profile | None,
    limits: Limits,
    forgotten: Forgotten,
    folder: Path,
) -> Survey:
    """Read a log once, write its rows to files and measure it.

    Args:
        session: the session of the engine.
        log: the log to read.
        source: the log's `source.json`.
        previous: profile of the last accepted log of the same data set.
        limits: the limits for rows.
        forgotten: the list of forgotten users.
        folder: folder for `interactions.parquet` and `quarantine.parquet`.
    """
    staged = stage_log(log, session.folder / _LOG)
    earliest = limits.earliest if log.time == "real" else 0
    rules = row_rules(limits.max_id_length, limits.now, earliest=earliest, event_ids=staged.event_ids, whole=log.whole)
    rules = [rule for rule in rules if log.time == "real" or not rule.about_present]
    session.scan("staged", [staged.file])
    left_out = leave_out_forgotten(session, forgotten, spellings=staged.spellings)
    others = leave_out_others(session) if staged.filtered else 0
    heavy, heavy_rows = leave_out_heavy(session, limits.shares) if limits.shares else ([], 0)
    if log.a_line_a_user:
        refuse_repeated_users(session, log.file)
    broken = find_faulty(
        session, rules, event_ids=staged.event_ids, kinds=KIND in staged.columns, repeats=limits.repeats
    )
    files = {"interactions": folder / "interactions.parquet", "quarantine": folder / "quarantine.parquet"}
    rows = sort_rows(staged, stream_set_aside(session), [rule.name for rule in rules], **files)
    staged.file.unlink()
    session.scan("interactions", [files["interactions"]])
    session.view("accepted", "SELECT row, user_id, item_id, unix_micros(timestamp) AS micros FROM interactions")
    figures = measure(session)
    return Survey(
        time=log.time,
        types=log.types,
        rows=staged.rows - left_out - others - heavy_rows,
        torn=staged.torn,
        lines=log.lines,
        forgotten=left_out,
        others=others,
        left_out=heavy,
        rules=rules,
        broken=broken,
        sorted=_placed(rows, log),
        figures=figures,
        out_of_order=0 if rows.by_time else count_out_of_order(session),
        profile=describe(figures, dataset=source["dataset"], time=log.time, md5=source["md5"]),
        previous=previous,
        popular_before=None if previous is None else count_popular_before(session, previous),
    )
