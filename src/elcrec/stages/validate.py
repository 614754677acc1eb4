"""Check the raw log; set a few faulty rows aside, stop at more."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from elcrec.artifacts import SCHEMA_VERSION, atomic_dir, md5_of, read_json, write_json
from elcrec.config import ValidateConfig
from elcrec.data.forgotten import Forgotten
from elcrec.data.log import RawLog
from elcrec.data.profile import Profile
from elcrec.data.quality import Assessment, assess, check_rows, with_drift_accepted
from elcrec.data.readers import Columns, read_log
from elcrec.data.validation_page import faults, render_page
from elcrec.errors import UserError

Metrics = dict[str, float | int | str]


class LogRefusedError(UserError):
    """A log that could be read and failed a critical check.

    Attributes:
        reason: which checks failed, and what to do where the change is wanted; without a path.
        evidence: the folder with `validation.json`, `validation.html` and `quarantine.parquet`.
        metrics: the stage's numbers.
    """

    def __init__(self, raw: Path, evidence: Path, assessment: Assessment) -> None:
        """Name the failed checks and the evidence, and tabulate what was observed and expected."""
        names = ", ".join(check.name for check in assessment.failures)
        hint = ""
        if any(name in names for name in ("drift", "change of row count")):
            hint = "; if the change is wanted, say so with accept_drift"
        what, fix = f"validation failed: {names}", f"see {evidence / 'validation.html'}{hint}"
        super().__init__(what, where=raw, fix=fix, details=_details(assessment))
        self.reason, self.evidence, self.metrics = what + hint, evidence, _metrics(assessment)


def validate(
    config: ValidateConfig,
    raw: Path,
    out: Path,
    *,
    accepted: Path | None = None,
    forgotten: Path | None = None,
    now: datetime | None = None,
    accept_drift: str = "",
) -> Metrics:
    """Write `interactions.parquet`, `quarantine.parquet`, `validation.json` and `validation.html`.

    A log that fails leaves its evidence in `<out>.failed` (the next success removes it) and `out` as it was.

    Args:
        config: the limits.
        raw: the fetch stage's folder.
        out: the folder to write.
        accepted: the folder that remembers the last accepted log (`profile.json`), to measure drift against.
        forgotten: the list of users who were forgotten; what they did until then is left out and stands nowhere.
        now: what counts as the present; the clock by default.
        accept_drift: who takes a log that drifted, and why; drift then does not refuse the log, and the report has it.

    Raises:
        UserError: the log, or the list, cannot be read.
        LogRefusedError: a critical check fails; `details` tabulates what and where.
    """
    now = now or datetime.now(UTC)
    source = _read_source(raw)
    log = _without_forgotten(_read(config, raw, source), forgotten)
    memory = accepted / "profile.json" if accepted else None
    previous = _previous_profile(memory, source, log)
    assessment = assess(log, config, source=source, previous=previous, now=now)
    if accept_drift:
        assessment = with_drift_accepted(assessment, accept_drift)
    failed = out.with_name(f"{out.name}.failed")
    if not assessment.passed:
        _write(failed, assessment, source, now)
        raise LogRefusedError(raw, failed, assessment)
    if memory is not None:
        _make_room(memory)
    _write(out, assessment, source, now)
    shutil.rmtree(failed, ignore_errors=True)
    if memory is not None:
        _remember(memory, assessment)
    return _metrics(assessment)


def _read_source(raw: Path) -> dict[str, Any]:
    source = read_json(raw / "source.json")
    missing = [key for key in ("dataset", "format", "file", "md5") if key not in source]
    if missing:
        fix = "run the fetch stage again"
        raise UserError(f"no {', '.join(missing)}", where=raw / "source.json", fix=fix)
    return source


def _read(config: ValidateConfig, raw: Path, source: Mapping[str, Any]) -> RawLog:
    path = raw / source["file"]
    columns = Columns(
        user=config.user_column,
        item=config.item_column,
        time=config.time_column,
        event=config.event_column,
        epoch_unit=config.epoch_unit,
    )
    log = read_log(path, source["format"], columns)
    if md5_of(path) != source["md5"]:
        raise UserError("the file is not the one that was fetched (md5)", where=path, fix="run the fetch stage again")
    return log


def _without_forgotten(log: RawLog, path: Path | None) -> RawLog:
    if path is None:
        return log
    gone = Forgotten.load(path).rows(log.table["user_id"], log.table["timestamp"])
    return replace(log, table=log.table.filter(~gone), forgotten=int(gone.sum()))


def _previous_profile(memory: Path | None, source: Mapping[str, Any], log: RawLog) -> Profile | None:
    """Return what to compare with: the log before this one, also when this one is checked again."""
    if memory is None or not memory.exists():
        return None
    remembered = read_json(memory)
    profile = remembered.get("profile")
    if profile and profile["md5"] == source["md5"]:
        profile = remembered.get("previous")
    comparable = profile and (profile["schema_version"], profile["dataset"], profile["time"])
    return profile if comparable == (SCHEMA_VERSION, source["dataset"], log.time) else None


def _make_room(memory: Path) -> None:
    """Create the folder before the output is written: where it cannot be, there is to be no output."""
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror})", where=memory) from error


def _remember(memory: Path, assessment: Assessment) -> None:
    document = {
        "schema_version": SCHEMA_VERSION,
        "profile": assessment.profile,
        "previous": assessment.previous,
    }
    write_json(memory, document)


def _write(folder: Path, assessment: Assessment, source: Mapping[str, Any], now: datetime) -> None:
    report = _report(assessment, source)
    with atomic_dir(folder) as scratch:
        if assessment.passed:
            pq.write_table(assessment.rows.interactions, scratch / "interactions.parquet", compression="zstd")
        pq.write_table(assessment.rows.quarantine, scratch / "quarantine.parquet", compression="zstd")
        write_json(scratch / "validation.json", report)
        page = render_page(report, assessment, created=now)
        (scratch / "validation.html").write_text(page, encoding="utf-8")


def _report(assessment: Assessment, source: Mapping[str, Any]) -> dict[str, Any]:
    log, rows, profile = assessment.log, assessment.rows, assessment.profile
    times = rows.interactions["timestamp"]
    return {
        "schema_version": SCHEMA_VERSION,
        "passed": assessment.passed,
        "dataset": source["dataset"],
        "format": source["format"],
        "raw_md5": source["md5"],
        "time": log.time,
        "counts": {
            "rows": log.num_rows,
            "accepted": profile["rows"],
            "quarantined": len(rows.quarantine),
            "forgotten": log.forgotten,
            "out_of_order": assessment.out_of_order,
            "users": profile["users"],
            "items": profile["items"],
        },
        "period": {"first": _iso(pc.min(times)), "last": _iso(pc.max(times))},
        "checks": check_rows(assessment.checks),
        "quarantine": {fault.reason: fault.count for fault in faults(rows.quarantine)},
        "compared_with": assessment.previous["md5"] if assessment.previous else None,
        "drift_accepted": assessment.drift_accepted or None,
        "profile": profile,
    }


def _iso(moment: pa.Scalar) -> str | None:
    time = moment.as_py()
    return time.isoformat().replace("+00:00", "Z") if time else None


def _details(assessment: Assessment) -> str:
    """Return what failed as a table, then examples of faulty rows."""
    rows = [("check", "observed", "expected")]
    rows += [(check.name, check.observed, check.expected) for check in assessment.failures]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    for fault in faults(assessment.rows.quarantine):
        lines.append(f"faulty rows, {fault.reason!r} broken: {fault.count:,}, such as")
        lines += [
            f"  row {row['row']}: {row['user_id']!r}, {row['item_id']!r}, {row['timestamp']!r}"
            for row in fault.examples
        ]
    return "\n".join(line.rstrip() for line in lines)


def _metrics(assessment: Assessment) -> Metrics:
    profile, rows = assessment.profile, assessment.rows
    return {
        "rows": assessment.log.num_rows,
        "accepted": profile["rows"],
        "quarantined": len(rows.quarantine),
        "out_of_order": assessment.out_of_order,
        "users": profile["users"],
        "items": profile["items"],
        "warnings": sum(not check.passed and check.severity == "warning" for check in assessment.checks),
    }
