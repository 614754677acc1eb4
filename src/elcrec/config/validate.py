"""The section `validate`: what a log must satisfy, and how it is written."""

import codecs
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from elcrec.config.section import Day, Positive, PositiveFloat, Section, Share
from elcrec.layouts import LAYOUTS

MAX_ID_LENGTH = 256
"""Longest id in characters that servers accept, and the default limit for logs."""


class CsvConfig(Section, frozen=True, kw_only=True):
    """The layout of a CSV text; values that are not set are detected from its content."""

    names: tuple[str, ...] = ()
    """Names of the columns in order, for a file without a header; empty: the first line is the header."""
    delimiter: Annotated[str, Meta(min_length=1, max_length=8)] | None = None
    """Separator of fields. `None`: comma, tab, semicolon or bar, whichever is most frequent in the first line."""
    quote: Annotated[str, Meta(max_length=1)] = '"'
    """Character that encloses a field with delimiters or line ends; doubled, it stands for itself. Empty: quotes are
    plain characters."""
    escape: Annotated[str, Meta(max_length=1)] = ""
    """Escape character, such as a backslash; empty for none."""
    encoding: str | None = None
    """Encoding by Python's name, such as latin-1. `None`: UTF-8, or UTF-16 or UTF-32 if the beginning of the file shows
    it."""

    def __post_init__(self) -> None:
        """Check that the encoding is known, and that no character has two meanings."""
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except LookupError as error:
                raise ValueError(f"csv.encoding: {error}") from error
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"csv.names: {', '.join(self.names)} names a column twice")
        marks = [mark for mark in (self.delimiter, self.quote, self.escape) if mark]
        if len(set(marks)) < len(marks) or not "".join(marks).isascii():
            raise ValueError("csv: delimiter, quote and escape must be different ASCII characters")


class KeepConfig(Section, frozen=True, kw_only=True):
    """Which rows of a log count; the others are left out and counted, but are not faulty."""

    column: str | None = None
    """Column with the kind of event; `None` for no such condition."""
    values: tuple[str, ...] = ()
    """Kinds of events that count, such as view and buy."""
    rating_column: str | None = None
    """Column of numbers, such as ratings; `None` for no such condition. A row without a number does not count."""
    least_rating: float = 0.0
    """Smallest number that counts."""
    since: Day | None = None
    """The first day that counts, UTC."""
    before: Day | None = None
    """The first day after `since` that does not count, UTC."""

    def __post_init__(self) -> None:
        """Check that each column is given together with its condition."""
        if (self.column is None) != (not self.values):
            raise ValueError("keep.column and keep.values must be set together")
        if self.least_rating and self.rating_column is None:
            raise ValueError("keep.least_rating needs keep.rating_column")
        if self.since and self.before and self.since >= self.before:
            raise ValueError(f"keep: no day lies between {self.since} and {self.before}")


class ValidateConfig(Section, frozen=True, kw_only=True):
    """Requirements for a log, and how much of it may be faulty."""

    user_column: str = "user_id"
    """Name of the user column of a log, or of the key in JSON lines; a benchmark log has none."""
    item_column: str = "item_id"
    """Name of the item column."""
    time_column: str = "timestamp"
    """Name of the time column: ISO 8601 text, a Parquet timestamp, or epoch numbers."""
    event_column: str = "event_id"
    """Name of the optional column with ids of events. With ids, a live event is recognised in the log even if its time
    has changed, and an event that is in the log twice counts once."""
    kind_column: str | None = None
    """Column with the kind of event, for `sequences.kinds`; events of two kinds are never copies of each other. `None`:
    all events are of one kind."""
    tie_column: str | None = None
    """Column of whole numbers or times that orders events of the same time, for `sequences.ties=column`."""
    epoch_unit: Literal["s", "ms", "us", "ns", "day", "excel"] = "s"
    """Unit of numeric times since 1970; `excel`: days as in a spreadsheet. Compact dates (20240301) need none."""
    time_format: str | None = None
    """Form of times, in the notation of Python's strptime, such as `%d/%m/%Y %H:%M`; times without a zone are UTC.
    `None`: ISO 8601, compact dates, dates in words (`Sun Jul 30 07:44:10 -0700 2017`), or numbers."""
    earliest: Day = "1990-01-01"
    """First plausible day of events: rows with earlier times, such as from a wrong unit or a 0 for "none", are
    faulty."""
    null_tokens: tuple[str, ...] = ("NULL", "null", "Null", "NaN", "nan", "None", "\\N", "NA", "N/A", "<NA>", "#N/A")
    """Texts that stand for a missing id in exports; such rows lack an id."""
    csv: CsvConfig = CsvConfig()
    """The layout of a log in CSV."""
    keep: KeepConfig = KeepConfig()
    """Which rows count."""
    duplicates: Literal["set_aside", "keep"] = "set_aside"
    """Whether a row with the same user, item and time as an earlier row is faulty, or counts, as in a log of whole
    days. A second event with the same id is always faulty."""
    max_duplicate_share: Share | None = None
    """Largest share of such rows in the log; `None`: they count as faulty rows for `max_quarantine_share`."""
    time: Literal["real", "order"] = "real"
    """`order`: the time column holds whole numbers that only give an order; if `time_column` is empty, the order of the
    file is used."""
    order: Literal["sort", "strict"] = "sort"
    """`sort` puts a user's events in time order; `strict` refuses a log that is out of order."""
    max_quarantine_share: Share = 0.01
    """Largest share of faulty rows, which go to quarantine; above it, validation fails."""
    min_rows: Positive = 100
    """Smallest number of accepted interactions."""
    min_users: Positive = 10
    """Smallest number of distinct users."""
    min_items: Positive = 10
    """Smallest number of distinct items."""
    min_interactions_per_user: PositiveFloat = 3.0
    """Smallest mean number of interactions per user."""
    max_id_length: Positive = MAX_ID_LENGTH
    """Longest id in characters; rows with longer ids are faulty."""
    max_user_share: Share = 0.1
    """A user with a larger share of the events, and more than five times the mean, is implausible (perhaps a bot) and
    named in a warning."""
    max_item_share: Share = 0.5
    """As `max_user_share`, for items."""
    leave_out_heavy: bool = False
    """Whether to leave out users and items above these shares, computed before anything is left out."""
    max_age_days: PositiveFloat | None = None
    """Freshness: largest age of the newest event in days (real times only); `None` for no limit."""
    max_drift: Share = 0.25
    """Largest population stability index (item popularity, history length) against the last accepted log."""
    max_row_change: PositiveFloat = 0.5
    """Largest relative change of the row count against the last accepted log; the period may be shorter by the same
    share."""
    min_known_users: Share = 0.1
    """Smallest share of users who were in the last accepted log; set 0 if users do not return, such as when a user is a
    session."""
    min_known_items: Share = 0.1
    """As `min_known_users`, for items."""

    def for_layout(self, name: str | None) -> "ValidateConfig":
        """Return the section with the values of a known layout in place of its defaults."""
        if name is None:
            return self
        known, plain = LAYOUTS[name], ValidateConfig()
        values = {
            "user_column": known.user,
            "item_column": known.item,
            "time_column": known.time,
            "epoch_unit": known.unit,
            "time": known.kind,
            "csv": CsvConfig(names=known.names, delimiter=known.delimiter, quote=known.quote),
        }
        unset = {field: value for field, value in values.items() if getattr(self, field) == getattr(plain, field)}
        return msgspec.structs.replace(self, **unset)

    def __post_init__(self) -> None:
        """Check that real times have a column."""
        if self.time == "real" and not self.time_column:
            raise ValueError("time_column is empty; if the order of the file is the time, set validate.time=order")
