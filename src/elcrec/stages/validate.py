"""Stage validate: check the raw log; a few faulty rows go to the quarantine, more stop the run."""

import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from elcrec.artifacts import SCHEMA_VERSION, atomic_dir, md5_of, read_json, write_json
from elcrec.config import KeepConfig, ValidateConfig
from elcrec.custody import stage_output, verify
from elcrec.data.engine import Engine, Session
from elcrec.data.forgotten import Forgotten
from elcrec.data.log import RawLog, TimeKind, shown
from elcrec.data.profile import Profile
from elcrec.data.quality import DRIFT, Assessment, assess, check_rows, with_drift_accepted
from elcrec.data.raw_columns import Columns
from elcrec.data.readers import read_log
from elcrec.data.survey import Survey, limits_of, survey
from elcrec.errors import UserError
from elcrec.pages.validation import write_validation_page

Metrics = dict[str, float | int | str]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class LogRefusedError(UserError):
    """A log that could be read and failed a critical check.

    Attributes:
        reason: which checks failed, and what to do if the change is intended; without a path.
        evidence: the folder with `validation.json`, `validation.html` and `quarantine.parquet`.
        metrics: the stage's numbers.
    """

    def __init__(self, raw: Path, evidence: Path, assessment: Assessment) -> None:
        """Name the failed checks and the evidence, with a table of observed and expected values."""
        names = ", ".join(check.name for check in assessment.failures)
        hint = ""
        if any(check.name in DRIFT for check in assessment.failures):
            hint = "; if the change is intended, say who accepts it: --accept-drift (a parameter in a pipeline run)"
        what, fix = f"validation failed: {names}", f"see {evidence / 'validation.html'}{hint}"
        super().__init__(what, where=raw, fix=fix, details=_details(assessment))
        self.reason, self.evidence, self.metrics = what + hint, evidence, _metrics(assessment)


class _State(NamedTuple):
    """What outlives runs: what is remembered of the last accepted log, and the list of forgotten users."""

    remembered: Mapping[str, Any]
    forgotten: Path | None


def validate(
    config: ValidateConfig,
    raw: Path,
    out: Path,
    *,
    engine: Engine,
    accepted: Path | None = None,
    forgotten: Path | None = None,
    now: datetime | None = None,
    accept_drift: str = "",
) -> Metrics:
    """Write `interactions.parquet`, `quarantine.parquet`, `validation.json` and `validation.html`.

    A log that fails leaves its evidence in `<out>.failed`, which the next success removes, and does not change `out`.

    Args:
        config: the limits.
        raw: the fetch stage's folder.
        out: the folder to write.
        engine: sorts and counts; the results do not depend on it.
        accepted: the folder with the profile of the last accepted log (`profile.json`), from which drift is measured.
        forgotten: the list of forgotten users, whose events until then are left out of every output.
        now: the present time; by default the clock's.
        accept_drift: who accepts a log with drift, and why; the log is then not refused for drift, and the report says
            so. If it is checked again, this need not be said again.

    Raises:
        UserError: the log, or the list, cannot be read.
        LogRefusedError: a critical check fails; `details` tabulates what and where.
    """
    now = now or datetime.now(UTC)
    verify(raw, "source.json")  # source.json has the md5 of the log
    source = _read_source(raw)
    memory = accepted / "profile.json" if accepted else None
    failed = out.with_name(f"{out.name}.failed")
    with stage_output(out) as folder:
        remembered = read_json(memory) if memory is not None and memory.exists() else {}
        state, session = _State(remembered, forgotten), engine.session(out)
        assessment = _assess(config, raw, folder, source=source, state=state, now=now, session=session)
        if reason := accept_drift or _accepted_before(remembered, source):
            assessment = with_drift_accepted(assessment, reason)
        report = _report(assessment, source)
        write_json(folder / "validation.json", report)
        write_validation_page(folder / "validation.html", report, assessment, created=now)
        if not assessment.passed:
            (folder / "interactions.parquet").unlink()
            with atomic_dir(failed) as evidence:
                _move(folder, evidence)
            raise LogRefusedError(raw, failed, assessment)
        if memory is not None:
            _make_room(memory)
    shutil.rmtree(failed, ignore_errors=True)
    if memory is not None:
        _remember(memory, assessment)
    return _metrics(assessment)


def _assess(
    config: ValidateConfig,
    raw: Path,
    folder: Path,
    *,
    source: Mapping[str, Any],
    state: _State,
    now: datetime,
    session: AbstractContextManager[Session],
) -> Assessment:
    """Write the rows into `folder` and judge the log."""
    forgotten = Forgotten.load(state.forgotten) if state.forgotten else Forgotten()
    log = _open(config, raw / source["file"], source, spellings=bool(forgotten.until))
    previous = _previous_profile(state.remembered, source, log.time)
    limits = limits_of(config, now)
    with session as opened:
        found = survey(opened, log, source=source, previous=previous, limits=limits, forgotten=forgotten, folder=folder)
    if md5_of(log.file) != source["md5"]:
        fix = "run the fetch stage again"
        raise UserError("the file is not the one that was fetched (md5)", where=log.file, fix=fix)
    return assess(found, config, now=now)


def _move(folder: Path, target: Path) -> None:
    for path in folder.iterdir():
        path.rename(target / path.name)


def _read_source(raw: Path) -> dict[str, Any]:
    source = read_json(raw / "source.json")
    missing = [key for key in ("dataset", "format", "file", "md5") if key not in source]
    if missing:
        fix = "run the fetch stage again"
        raise UserError(f"no {', '.join(missing)}", where=raw / "source.json", fix=fix)
    return source


def _open(config: ValidateConfig, path: Path, source: Mapping[str, Any], *, spellings: bool) -> RawLog:
    config = config.for_layout(source.get("layout"))
    columns = Columns(
        user=config.user_column,
        item=config.item_column,
        time=config.time_column,
        event=config.event_column,
        epoch_unit=config.epoch_unit,
        null_tokens=config.null_tokens,
        csv=config.csv,
        kind=config.time,
        time_format=config.time_format,
        keep=None if config.keep == KeepConfig() else config.keep,
        event_kind=config.kind_column,
        tie=config.tie_column,
        spellings=spellings,
    )
    return shown(read_log([path], source["format"], columns))


def _previous_profile(remembered: Mapping[str, Any], source: Mapping[str, Any], time: TimeKind) -> Profile | None:
    """Return the profile to compare with: that of the previous log, even if this log is checked again."""
    profile = remembered.get("profile")
    if profile and profile["md5"] == source["md5"]:
        profile = remembered.get("previous")
    comparable = profile and (profile["schema_version"], profile["dataset"], profile["time"])
    return profile if comparable == (SCHEMA_VERSION, source["dataset"], time) else None


def _accepted_before(remembered: Mapping[str, Any], source: Mapping[str, Any]) -> str:
    """Return who accepted the drift of this very log, and why; empty if no one did."""
    same = (remembered.get("profile") or {}).get("md5") == source["md5"]
    return (same and remembered.get("drift_accepted")) or ""


def _make_room(memory: Path) -> None:
    """Create the folder of the accepted log first: if that fails, no output must be written."""
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror})", where=memory) from error


def _remember(memory: Path, assessment: Assessment) -> None:
    found = assessment.survey
    document = {
        "schema_version": SCHEMA_VERSION,
        "profile": found.profile | {"known": list(found.figures.sketches)},
        "previous": found.previous,
        "drift_accepted": assessment.drift_accepted or None,
    }
    write_json(memory, document)


def _report(assessment: Assessment, source: Mapping[str, Any]) -> dict[str, Any]:
    found = assessment.survey
    return {
        "schema_version": SCHEMA_VERSION,
        "passed": assessment.passed,
        "dataset": source["dataset"],
        "format": source["format"],
        "raw_md5": source["md5"],
        "time": found.time,
        "counts": _counts(found),
        "period": {"first": _iso(found.figures.first), "last": _iso(found.figures.last)},
        "checks": check_rows(assessment.checks),
        "quarantine": {fault.reason: fault.count for fault in found.sorted.faults},
        "compared_with": found.previous["md5"] if found.previous else None,
        "drift_accepted": assessment.drift_accepted or None,
        "profile": found.profile,
    }


def _counts(found: Survey) -> dict[str, int]:
    return {
        "rows": found.rows,
        "accepted": found.sorted.accepted,
        "quarantined": found.sorted.quarantined,
        "forgotten": found.forgotten,
        "out_of_order": found.out_of_order,
        "users": found.figures.users,
        "items": found.figures.items,
    }


def _iso(micros: int | None) -> str | None:
    return None if micros is None else (_EPOCH + timedelta(microseconds=micros)).isoformat().replace("+00:00", "Z")


def _details(assessment: Assessment) -> str:
    """Return the failed checks as a table, then examples of faulty rows."""
    rows = [("check", "observed", "expected")]
    rows += [(check.name, check.observed, check.expected) for check in assessment.failures]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    for fault in assessment.survey.sorted.faults:
        lines.append(f"faulty rows, {fault.reason!r} broken: {fault.count:,}, such as")
        lines += [f"  {_place(row)}: {_content(row)}" for row in fault.examples]
    return "\n".join(line.rstrip() for line in lines)


def _place(row: Mapping[str, Any]) -> str:
    # Rows of a table are numbered from 1, like lines.
    return f"line {row['line']}" if "line" in row else f"row {row['row'] + 1}"


def _content(row: Mapping[str, Any]) -> str:
    if "torn" in row:
        return f"{row['torn']}: {row['text']}"
    return ", ".join(repr(row[name]) for name in ("user_id", "item_id", "timestamp"))


def _metrics(assessment: Assessment) -> Metrics:
    counts = {name: count for name, count in _counts(assessment.survey).items() if name != "forgotten"}
    warnings = sum(not check.passed and check.severity == "warning" for check in assessment.checks)
    return {**counts, "warnings": warnings}
