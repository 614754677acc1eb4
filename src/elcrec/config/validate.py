"""The section `validate`: what a log must satisfy, and how it is written."""

import codecs
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from elcrec.config.section import Day, Positive, PositiveFloat, Section, Share
from elcrec.layouts import LAYOUTS

MAX_ID_LENGTH = 256
"""Longest id in characters, that servers take and that a log may have by default."""


class CsvConfig(Section, frozen=True, kw_only=True):
    """How a text of rows is written; what is not set is found by its content."""

    names: tuple[str, ...] = ()
    """The columns' names in order, for a file without a header; empty: the first line has them."""
    delimiter: Annotated[str, Meta(min_length=1, max_length=8)] | None = None
    """What separates fields. `None`: comma, tab, semicolon or bar, whichever the first line has most of."""
    quote: Annotated[str, Meta(max_length=1)] = '"'
    """What encloses a field with delimiters or line ends; doubled it stands for itself. Empty: quotes are plain."""
    escape: Annotated[str, Meta(max_length=1)] = ""
    """What takes the meaning from the character after it, such as a backslash; empty for none."""
    encoding: str | None = None
    """As Python names it, such as latin-1. `None`: UTF-8, or UTF-16 or UTF-32 where the beginning shows it."""

    def __post_init__(self) -> None:
        """Check that the encoding is known, and nothing has two meanings."""
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except LookupError as error:
                raise ValueError(f"csv.encoding: {error}") from error
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"csv.names: {', '.join(self.names)} names a column twice")
        marks = [mark for mark in (self.delimiter, self.quote, self.escape) if mark]
        if len(set(marks)) < len(marks) or not "".join(marks).isascii():
            raise ValueError("csv: delimiter, quote and escape are different characters of ASCII")


class KeepConfig(Section, frozen=True, kw_only=True):
    """Which rows of a log count; the others are left out, counted, and no fault."""

    column: str | None = None
    """A column that says what kind of event a row is; `None` does not ask."""
    values: tuple[str, ...] = ()
    """The kinds that count, such as view and buy."""
    rating_column: str | None = None
    """A column of numbers; `None` does not ask. A row without one does not count."""
    least_rating: float = 0.0
    """The least of them that counts."""
    since: Day | None = None
    """The first day that counts, UTC."""
    before: Day | None = None
    """The first day after it that does not."""

    def __post_init__(self) -> None:
        """Check that a column comes with what counts of it."""
        if (self.column is None) != (not self.values):
            raise ValueError("keep.column and keep.values are set together")
        if self.least_rating and self.rating_column is None:
            raise ValueError("keep.least_rating needs keep.rating_column")
        if self.since and self.before and self.since >= self.before:
            raise ValueError(f"keep: no day lies between {self.since} and {self.before}")


class ValidateConfig(Section, frozen=True, kw_only=True):
    """What a log must satisfy, and how much of it may be faulty."""

    user_column: str = "user_id"
    """Name of the user column of a log, in JSON lines of the key; a benchmark log has none."""
    item_column: str = "item_id"
    """Name of the item column."""
    time_column: str = "timestamp"
    """Name of the time column: ISO 8601 text, a Parquet timestamp, or epoch numbers."""
    event_column: str = "event_id"
    """Name of the column with the events' own ids; a log may lack it. With ids, a live event
    is known again in the log whatever has become of its time, and one that the log holds twice counts once."""
    kind_column: str | None = None
    """Column that says what kind of event a row is, for `sequences.kinds`; events of two kinds are never copies of each
    other. `None`: all are of one kind."""
    tie_column: str | None = None
    """Column of whole numbers or times, for `sequences.ties=column`: what came first of events of the same time."""
    epoch_unit: Literal["s", "ms", "us", "ns", "day", "excel"] = "s"
    """Unit of numeric times since 1970; `excel`: days as a spreadsheet counts them. Compact dates (20240301) need
    none."""
    time_format: str | None = None
    """How times are written, in the letters of Python's strptime, such as `%d/%m/%Y %H:%M`; those without a zone are
    UTC. `None`: ISO 8601, compact dates, the words of a date (`Sun Jul 30 07:44:10 -0700 2017`), numbers."""
    earliest: Day = "1990-01-01"
    """The first day on which events are plausible: times before it, which a wrong unit or a 0 for "none" gives, are
    faulty rows."""
    null_tokens: tuple[str, ...] = ("NULL", "null", "Null", "NaN", "nan", "None", "\\N", "NA", "N/A", "<NA>", "#N/A")
    """Ids that stand for none, as exports write them; such rows lack an id."""
    csv: CsvConfig = CsvConfig()
    """How a log in CSV is written."""
    keep: KeepConfig = KeepConfig()
    """Which rows count."""
    duplicates: Literal["set_aside", "keep"] = "set_aside"
    """What becomes of a row with the user, item and time of one before it: it is faulty, or it counts, as in a log of
    whole days. A second event of the same id is faulty in any case."""
    max_duplicate_share: Share | None = None
    """Such rows may be up to this share of the log; `None`: they count among the faulty ones of
    `max_quarantine_share`."""
    time: Literal["real", "order"] = "real"
    """`order`: the time column holds whole numbers that only tell what comes after what; where `time_column` is empty,
    the order of the file does."""
    order: Literal["sort", "strict"] = "sort"
    """`sort` puts a user's events in time order; `strict` refuses a log that is out of order."""
    max_quarantine_share: Share = 0.01
    """Faulty rows go to quarantine up to this share of the log; above it validation fails."""
    min_rows: Positive = 100
    """Least number of accepted interactions."""
    min_users: Positive = 10
    """Least number of distinct users."""
    min_items: Positive = 10
    """Least number of distinct items."""
    min_interactions_per_user: PositiveFloat = 3.0
    """Least mean number of interactions a user."""
    max_id_length: Positive = MAX_ID_LENGTH
    """Longest id in characters; longer ids are faulty rows."""
    max_user_share: Share = 0.1
    """A user with more of the events, and more than five times the mean, is no plausible one, such as a bot: named in
    a warning."""
    max_item_share: Share = 0.5
    """As `max_user_share`, of an item."""
    leave_out_heavy: bool = False
    """Whether users and items above these shares are left out. The shares are those before anything is left out."""
    max_age_days: PositiveFloat | None = None
    """Freshness: the newest event may be at most this old (real times only); `None` does not ask."""
    max_drift: Share = 0.25
    """Largest population stability index (item popularity, history length) against the last accepted log."""
    max_row_change: PositiveFloat = 0.5
    """Largest relative change of the row count against the last accepted log; its period may be shorter by as much."""
    min_known_users: Share = 0.1
    """Least share of the users whom the last accepted log had; 0 where a user is never seen again, as a session."""
    min_known_items: Share = 0.1
    """As `min_known_users`, of items."""

    def for_layout(self, name: str | None) -> "ValidateConfig":
        """Return the section with what is known of a published log in place of its defaults."""
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
            raise ValueError("time_column is empty; where the order of the file is the time, set validate.time=order")
