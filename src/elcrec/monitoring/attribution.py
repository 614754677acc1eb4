"""Attribution: which event follows from which exposure, in SQL, as one table with a row per shown item.

An event that names an answer belongs to that answer, however late it comes, if the answer showed the item to this user
(or to a request without a user); otherwise it belongs to no answer. An event that names no answer belongs to the newest
answer that showed the item to this user within the window before it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from elcrec.data.engine import Session
from elcrec.data.user_keys import KEY_LENGTH
from elcrec.serving.exposure_files import EXPOSURE_SCHEMA, LATER_COLUMNS
from elcrec.serving.ports import LOG_SCHEMA

ATTRIBUTED_SCHEMA = pa.schema(
    [
        *(EXPOSURE_SCHEMA.field(name) for name in ("answer_id", "time", "user_key")),
        pa.field("position", pa.int32()),
        pa.field("item_id", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("propensity", pa.float64()),
        *(EXPOSURE_SCHEMA.field(name) for name in ("intent", "policy", "known", "model", "version", "digest")),
        pa.field("events", pa.int64()),
        pa.field("event_time", pa.timestamp("us", tz="UTC")),
        pa.field("found_by", pa.string()),
        pa.field("next_time", pa.timestamp("us", tz="UTC")),
        pa.field("is_next", pa.bool_()),
        EXPOSURE_SCHEMA.field("arm"),
    ]
)
"""One row per shown item, by time and position (from 1). `propensity` is 1 if nothing was drawn at random. `events`
counts the events that belong to it, `event_time` is the time of the first one, `found_by` how it was found (`answer` or
`window`). `next_time` is the time of the user's next event within the window, whatever its item; `is_next` says whether
it is of this item."""

_ROWS = 50_000

# The same event may be in a log twice, and also in an export of the log.
_EVENTS = f"""
SELECT user_id, item_id, moment, answer_id, user_key, CAST(row_number() OVER (
    ORDER BY moment, user_id, item_id, event_id
) AS BIGINT) AS event FROM (
    SELECT *, row_number() OVER (PARTITION BY user_id, event_id ORDER BY logged, moment, item_id) AS of_id,
        row_number() OVER (PARTITION BY user_id, item_id, moment ORDER BY logged, event_id) AS of_place
    FROM (
        SELECT user_id, item_id, unix_micros(timestamp) AS moment, answer_id, coalesce(logged, 0) AS logged,
            coalesce(event_id, concat(unix_micros(timestamp), ':', item_id)) AS event_id,
            substring(sha256(concat('{{salt}}', user_id)), 1, {KEY_LENGTH}) AS user_key
        FROM arrived WHERE user_id IS NOT NULL AND item_id IS NOT NULL AND timestamp IS NOT NULL
            AND (kind IS NULL OR kind NOT IN (SELECT kind FROM noes))
    )
) WHERE of_id = 1 AND of_place = 1
"""
_ANSWERS = """
SELECT *, CAST(row_number() OVER (ORDER BY moment, answer_id) AS BIGINT) AS answer FROM (
    SELECT *, unix_micros(time) AS moment, row_number() OVER (PARTITION BY answer_id ORDER BY time, row) AS copy
    FROM exposures
) WHERE copy = 1
"""
_SHOWN = """
SELECT answer, answer_id, moment, user_key, place AS position, item_ids[place] AS item_id, scores[place] AS score,
    coalesce(propensities[place], 1.0) AS propensity
FROM (SELECT *, unnest(range(1, len(item_ids) + 1)) AS place FROM answers)
"""
_NAMED = """
SELECT events.event, shown.answer, shown.position, events.moment, 'answer' AS found_by
FROM events JOIN shown ON shown.answer_id = events.answer_id AND shown.item_id = events.item_id
    AND (shown.user_key IS NULL OR shown.user_key = events.user_key)
"""
_WITHIN = """
SELECT event, answer, position, moment, 'window' AS found_by FROM (
    SELECT events.event, shown.answer, shown.position, events.moment,
        row_number() OVER (PARTITION BY events.event ORDER BY shown.answer DESC) AS age
    FROM events JOIN shown ON shown.user_key = events.user_key AND shown.item_id = events.item_id
        AND events.moment BETWEEN shown.moment AND shown.moment + {window}
    WHERE events.answer_id IS NULL
) WHERE age = 1
"""
_MATCHED = """
SELECT answer, position, count(*) AS events, min(moment) AS first, min_by(found_by, event) AS found_by
FROM (SELECT * FROM named UNION ALL SELECT * FROM within) GROUP BY answer, position
"""
_NEXT = """
SELECT answers.answer, min(events.moment) AS moment, min_by(events.item_id, events.event) AS item_id
FROM answers JOIN events ON answers.user_key = events.user_key
    AND events.moment BETWEEN answers.moment AND answers.moment + {window}
GROUP BY answers.answer
"""
_ATTRIBUTED = """
SELECT shown.answer, shown.answer_id, answers.time, shown.user_key, CAST(shown.position AS INT) AS position,
    shown.item_id, shown.score, shown.propensity, answers.intent, answers.policy, answers.known, answers.model,
    answers.version, answers.digest, coalesce(matched.events, 0) AS events, matched.first AS event_time,
    matched.found_by, next.moment AS next_time, coalesce(next.item_id = shown.item_id, false) AS is_next, answers.arm
FROM shown JOIN answers ON answers.answer = shown.answer
LEFT JOIN matched ON matched.answer = shown.answer AND matched.position = shown.position
LEFT JOIN next ON next.answer = shown.answer
"""
_ORDERED = "SELECT * FROM attributed ORDER BY answer, position"
_COUNTS = """
SELECT (SELECT count(*) FROM exposures) AS exposures, (SELECT count(*) FROM answers) AS answers,
    (SELECT count(*) FROM arrived) AS arrived, (SELECT count(*) FROM events) AS events,
    (SELECT count(*) FROM named) AS by_answer, (SELECT count(*) FROM within) AS by_window
"""


def attribute(
    session: Session,
    exposures: Sequence[Path],
    events: Sequence[Path],
    *,
    salt: str,
    window: int,
    dislikes: Sequence[str] = (),
) -> None:
    """Create the table `attributed` in a session.

    Args:
        session: the session for the tables.
        exposures: Parquet files of EXPOSURE_SCHEMA, at least one; older ones may lack LATER_COLUMNS.
        events: Parquet files of LOG_SCHEMA, at least one.
        salt: salt of the users' keys.
        window: microseconds after an answer within which an event may follow from it.
        dislikes: kinds of events that express dislike, and so follow from no answer.
    """
    _scan_exposures(session, exposures)
    session.scan("arrived", events)
    session.enter("noes", pa.table({"kind": pa.array(dislikes, pa.string())}))
    session.table("events", _EVENTS.format(salt=salt.replace("'", "''")))
    session.table("answers", _ANSWERS)
    session.table("shown", _SHOWN)
    session.table("named", _NAMED)
    session.table("within", _WITHIN.format(window=window))
    session.table("matched", _MATCHED)
    session.table("next", _NEXT.format(window=window))
    session.table("attributed", _ATTRIBUTED)


def _scan_exposures(session: Session, files: Sequence[Path]) -> None:
    """Create one view of the files, whichever columns they have; `row` numbers the rows of all files."""
    groups: dict[tuple[str, ...], list[Path]] = {}
    for path in files:
        names = pq.read_schema(path).names
        groups.setdefault(tuple(name for name in LATER_COLUMNS if name not in names), []).append(path)
    parts, before = [], 0
    for number, (missing, paths) in enumerate(groups.items()):
        session.scan(f"exposures_{number}", paths)
        columns = ", ".join(
            f"CAST(NULL AS STRING) AS {name}" if name in missing else name for name in EXPOSURE_SCHEMA.names
        )
        parts.append(f"SELECT {columns}, row + {before} AS row FROM exposures_{number}")
        before += sum(pq.read_metadata(path).num_rows for path in paths)
    session.view("exposures", " UNION ALL ".join(parts))


def counts(session: Session) -> dict[str, int]:
    """Return the number of rows read, the number without repeats, and how events were attributed."""
    (row,) = session.fetch(_COUNTS).to_pylist()
    unattributed = row["events"] - row["by_answer"] - row["by_window"]
    return {
        "answers": row["answers"],
        "repeated_answers": row["exposures"] - row["answers"],
        "events": row["events"],
        "repeated_events": row["arrived"] - row["events"],
        "by_answer": row["by_answer"],
        "by_window": row["by_window"],
        "unattributed": unattributed,
    }


def attributed(session: Session) -> Iterator[pa.RecordBatch]:
    """Yield the rows of ATTRIBUTED_SCHEMA, by time and position."""
    for batch in session.stream(_ORDERED, ("answer", "position")):
        columns = [batch[field.name].cast(field.type) for field in ATTRIBUTED_SCHEMA]
        yield pa.record_batch(columns, schema=ATTRIBUTED_SCHEMA)


def write_events(batches: Iterator[pa.RecordBatch], path: Path) -> None:
    """Write batches of the event log, or of an export, as one file of LOG_SCHEMA; missing columns are allowed."""
    with pq.ParquetWriter(path, LOG_SCHEMA, compression="zstd") as writer:
        for batch in batches:
            known = batch.schema.names
            columns = [
                batch[field.name].cast(field.type) if field.name in known else pa.nulls(len(batch), field.type)
                for field in LOG_SCHEMA
            ]
            writer.write_batch(pa.record_batch(columns, schema=LOG_SCHEMA), row_group_size=_ROWS)
