"""The schema of params.yaml: every tunable once, typed, a section a stage.

Unknown keys, wrong types and values out of range are fatal and named by their path, such as
`train.batch_size`.
"""

import codecs
import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from elcrec.documents import parse_yaml, require_plain
from elcrec.errors import UserError
from elcrec.layouts import LAYOUTS
from elcrec.registry import MIXERS, TERMS, HeadKind, IntentKind, find_objective, require_known

Positive = Annotated[int, Meta(ge=1)]
NonNegative = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Weight = Annotated[float, Meta(ge=0)]
PositiveFloat = Annotated[float, Meta(gt=0)]
Name = Annotated[str, Meta(pattern=r"^(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=200)]
"""Text that is part of file names and addresses: without slashes, spaces or two dots in a row."""
Md5 = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
Day = Annotated[str, Meta(pattern="^(19[7-9][0-9]|20[0-9]{2})-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])$")]
LogFormat = Literal["csv", "parquet", "jsonl", "benchmark"]

LONGEST_WINDOW = 1024
"""Rows are laid out in groups of one length, up to this one."""
MAX_ID_LENGTH = 256
"""Longest id in characters, that servers take and that a log may have by default."""

_PROBES, _OVERSAMPLING = 32, 4

_DESCRIBED_IN = "src/elcrec/config.py"
_FAULTS = (1, 2, 130, 143)
"""Exit statuses that say that a command failed or was ended."""

T = TypeVar("T")


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the configuration: immutable, keyword-only, strict."""


class RemoteFile(Section, frozen=True, kw_only=True):
    """A public file: fetched from the mirror folder where there is one, else from its URL."""

    url: str
    """Where the file is published; its last path segment is its name."""
    md5: Md5
    """The checksum of its bytes; anything else is refused."""
    format: LogFormat = "benchmark"
    """How the file is laid out."""
    mirror_name: Name | None = None
    """The file's name inside the mirror folder; `None`: the data set's name with the URL's ending."""


class LocalFile(Section, frozen=True, kw_only=True):
    """Your own log: a file here or on a claim, or an object that a cluster can reach."""

    name: Name = "file"
    """What the log is called, on pages too. Only logs of one name are compared with each other."""
    path: str = "data/log.parquet"
    """The file, relative to the working directory (version it with `dvc add`), or s3://, gs:// or https://. A folder,
    such as Spark writes, or a pattern (`logs/*.csv`) stands for all its files, one after the other by name."""
    version: str = ""
    """Of an address, the version it must have: the ETag of S3 and HTTP, Google's generation; empty takes what is
    there."""
    md5: Md5 | None = None
    """The checksum it must have; `None` takes the file as it is."""
    format: LogFormat = "parquet"
    """How the file is laid out."""
    layout: str | None = None
    """A published log's name (docs/data.md): it gives the format and what the section `validate` says of columns, texts
    and times; what is set there goes first."""

    def __post_init__(self) -> None:
        """Check that the layout is known."""
        if self.layout is not None:
            known = {name: layout.files for name, layout in LAYOUTS.items()}
            require_known(self.layout, known, "file.layout")

    @property
    def laid_out(self) -> LogFormat:
        """The format, whoever says it."""
        return self.format if self.layout is None else LAYOUTS[self.layout].format


class SyntheticConfig(Section, frozen=True, kw_only=True):
    """The generator of a log with planted intents, which is the data set `sample`."""

    seed: NonNegative = 7
    """Seeds every draw: the same configuration gives the same bytes."""
    users: Positive = 2000
    """Number of users."""
    items: Positive = 600
    """Number of items, shared out evenly over the intents."""
    intents: Positive = 12
    """Number of planted intents."""
    intents_per_user: Positive = 2
    """A user holds one to this many intents."""
    mean_length: Annotated[float, Meta(ge=5)] = 12.0
    """Mean number of interactions of a user (at least 5 each)."""
    popularity_exponent: Weight = 0.8
    """Zipf exponent of item popularity inside an intent; 0 is uniform."""
    follow: Share = 0.6
    """Chance that the next item is one of the current item's few successors inside the intent."""
    switch: Share = 0.1
    """Chance to switch to another of the user's intents after an item."""
    noise: Share = 0.05
    """Chance that an item is drawn from all items, whatever the intent."""

    def __post_init__(self) -> None:
        """Check that every intent gets an item."""
        if self.intents > self.items:
            raise ValueError(f"{self.intents} intents need at least as many items, not {self.items}")


class FetchConfig(Section, frozen=True, kw_only=True):
    """Which log to bring in."""

    dataset: str = "sample"
    """`sample` (synthetic), `file` (your own log) or a name under `sources`."""
    sources: dict[Name, RemoteFile] = {}
    """Public data sets by name."""
    file: LocalFile = LocalFile()
    """Read when `dataset` is `file`."""
    synthetic: SyntheticConfig = SyntheticConfig()
    """Read when `dataset` is `sample`."""

    def __post_init__(self) -> None:
        """Check that the data set is known."""
        known = ["sample", "file", *self.sources]
        if self.dataset not in known:
            raise ValueError(f"dataset {self.dataset!r} is not one of {', '.join(known)}")


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


class KindsConfig(Section, frozen=True, kw_only=True):
    """What the kinds of events mean, which `validate.kind_column` tells."""

    weights: dict[str, Weight] = {}
    """Weight of a kind's events as targets of L_next; a kind without one weighs 1."""
    targets: tuple[str, ...] = ()
    """Kinds whose events the validation and test targets are, such as buy; empty: any."""
    dislikes: tuple[str, ...] = ()
    """Kinds that say no: such an event is no interaction, and its item is never recommended to this user."""

    @property
    def named(self) -> list[str]:
        """All kinds that something is said of."""
        return sorted({*self.weights, *self.targets, *self.dislikes})

    def __post_init__(self) -> None:
        """Check that no kind says yes and no."""
        both = sorted({*self.weights, *self.targets} & {*self.dislikes})
        if both:
            raise ValueError(f"kinds: {both[0]!r} is a dislike, so it is no target and has no weight")


class SequencesConfig(Section, frozen=True, kw_only=True):
    """How interactions become sequences and a split."""

    k_core: NonNegative = 0
    """Users and items with fewer interactions are dropped, again until none is left; 0 keeps all."""
    split: Literal["leave_one_out", "temporal"] = "leave_one_out"
    """`leave_one_out`: the last item is the test target, the one before it the validation target.
    `temporal`: two instants cut all histories; a user's first item after a cut is their target."""
    valid_share: Annotated[float, Meta(gt=0, lt=0.5)] = 0.1
    """Temporal split: share of interactions between the two cuts."""
    test_share: Annotated[float, Meta(gt=0, lt=0.5)] = 0.1
    """Temporal split: share of interactions after the second cut."""
    repeats: Literal["exclude", "allow"] = "exclude"
    """Whether an item that a user has met may be their next one. `exclude`: it is never recommended, and a target that
    was met before counts as missed. `allow`: it competes like any other. Training's validation, the evaluation, the
    gate, the server and `recommend-all` follow; the bundle carries it."""
    kinds: KindsConfig = KindsConfig()
    """What kinds of events mean."""
    consecutive: Literal["keep", "merge"] = "keep"
    """`merge`: of events of a user that follow each other with one item (and one kind) only the first counts, also in
    the histories that a server reads."""
    most_events: NonNegative = 0
    """Users with more events are left out, before `k_core` is asked; 0 keeps all."""
    session_gap: PositiveFloat | None = None
    """Minutes without an event after which a session ends; each session is a sequence of its own (real times only). A
    user's newest session keeps their id, is the one that is served, and takes their live events. `None`: all events of
    a user are one sequence. Where the log has ids of sessions, name their column in `validate.user_column` instead."""
    ties: Literal["log", "column", "drawn"] = "log"
    """Order of a user's events at the same time: as in the log, by `validate.tie_column`, or drawn. A log that somebody
    sorted by item tells the model what comes next."""
    ties_seed: NonNegative = 0
    """Seeds the draw; the same log gives the same order."""
    history: Positive = 50
    """Most recent items of a user in histories.parquet, which the feature store serves; at least the encoder's
    window. Above 50 the feature view's WINDOW (features/views.py) must grow as well."""


class EngineConfig(Section, frozen=True, kw_only=True):
    """What the stages validate, sequences and exposures run on. It changes their time and memory, no result."""

    kind: Literal["duckdb", "spark"] = "duckdb"
    """`duckdb`: one machine, beyond its memory on disk. `spark`: a cluster, Spark Connect or Spark on this machine; it
    needs the extra `spark` and Java."""
    master: str | None = None
    """Spark's master (`spark://…`), or the address of Spark Connect (`sc://…`); both must see the work folder. `None`:
    Spark on this machine."""
    memory_share: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    """Share of the memory limit (the container's, else the machine's) that a stage aims to stay within; what is more
    spills to disk."""
    memory_mb: Annotated[int, Meta(ge=64)] | None = None
    """Megabytes that it aims to stay within, instead of the share."""
    threads: Positive | None = None
    """Most threads; `None`: as many as this process may use. Little memory makes it fewer."""
    spill: str | None = None
    """Folder for what does not fit memory, up to some times the size of the log. `None`: beside the output. With Spark
    also `s3://BUCKET/FOLDER`, through which driver and executors hand each other tables where they share no folder."""

    def __post_init__(self) -> None:
        """Refuse a master that nobody would ask, and a folder that is none."""
        if self.master is not None and self.kind != "spark":
            raise ValueError("master is Spark's: set kind to spark")
        if self.spill is not None and "://" in self.spill:
            if not is_bucket(self.spill):
                raise ValueError("spill is a folder, or with Spark s3://BUCKET/FOLDER")
            if self.kind != "spark":
                raise ValueError("spill in a bucket is Spark's: name a folder, or set kind to spark")


def is_bucket(address: str) -> bool:
    """Whether an address names a bucket of S3, or a folder in one."""
    parts = urlsplit(address)
    return parts.scheme == "s3" and bool(parts.netloc)


class EncoderConfig(Section, frozen=True, kw_only=True):
    """The SASRec encoder: post-norm causal transformer blocks."""

    window: Annotated[int, Meta(gt=0, le=LONGEST_WINDOW)] = 50
    """Most recent items that the encoder sees (T)."""
    hidden_size: Positive = 64
    """Width of embeddings and states (D)."""
    num_blocks: Positive = 2
    """Number of transformer blocks (L)."""
    mixer: str = "attention"
    """What a block mixes the positions of a row with (`elcrec.registry.MIXERS`). `rotary` is attention that knows how
    far apart items are, without position embeddings: every item is read as the end of a prefix."""
    branch: str | None = None
    """A second mixer beside it, each with its own residual and LayerNorm, of whose results a block takes the mean:
    `skip` is the states as they are, `differences` adds what changed. `None` for the mixer alone, as in the paper."""
    branch_share: Share = 0.7
    """Share of the branch in that mean."""
    distances: Annotated[tuple[Positive, ...], Meta(min_length=1)] = (1, 3, 5)
    """How many items before each other one looks for what changed (the mixer `differences`)."""
    num_heads: Positive = 2
    """Attention heads; must divide `hidden_size`."""
    hidden_dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.5
    """Dropout of embeddings, the mixer's output and the feed-forward output."""
    attention_dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.5
    """Dropout of attention weights."""

    def __post_init__(self) -> None:
        """Check that the mixer is known and the heads divide the width."""
        require_known(self.mixer, MIXERS, "mixer")
        if self.branch is not None:
            require_known(self.branch, MIXERS, "branch")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide hidden_size {self.hidden_size}")
        if "rotary" in (self.mixer, self.branch) and self.hidden_size // self.num_heads % 2:
            what = f"{self.num_heads} heads of {self.hidden_size // self.num_heads}"
            raise ValueError(f"the rotary mixer turns pairs of dimensions, so {what} cannot be; use an even width")


class ModelConfig(Section, frozen=True, kw_only=True):
    """The architecture of a model: all that is needed to load its weights and to rank with them."""

    encoder: EncoderConfig = EncoderConfig()
    """The sequence encoder."""
    head: HeadKind = "dot"
    """How its states score items."""
    intents: IntentKind | None = None
    """How the intent centres came about; `None` for a model without intents."""
    num_intents: NonNegative = 0
    """Number of intent centres (K)."""


class IntentConfig(Section, frozen=True, kw_only=True):
    """Intent centres and how the contrastive losses use them (METHOD: ELCRec)."""

    num_intents: Annotated[int, Meta(ge=2)] = 256
    """Number of intent centres (K)."""
    fusion: Literal["shift", "concat", "none"] = "shift"
    """How L_seq joins a state with its nearest learned centre: added, appended, or not at all."""
    temperature: PositiveFloat = 4.0
    """Temperature of L_intent; a product of a mean state and a centre is up to the root of D."""
    mask_same_intent: bool = False
    """Whether L_intent contrasts a sequence with sequences of other intents alone, not with those of its own
    (false negative mitigation, ICLRec)."""


class NextItemConfig(Section, frozen=True, kw_only=True):
    """L_next: which other items the next item is compared with, and how."""

    loss: Literal["bce", "softmax", "sampled_softmax"] = "bce"
    """`bce`: binary cross entropy against one drawn item a position (the paper); `softmax`: cross entropy among all
    items; `sampled_softmax`: among drawn items that a step's positions share, for large catalogues."""
    samples: Positive = 1024
    """Drawn items a step (`sampled_softmax`)."""
    exponent: Share = 0.5
    """They are drawn from popularity to this power; 0 is uniform (`sampled_softmax`)."""
    dropouts: NonNegative = 0
    """How many dropouts of a predicting state, at `encoder.hidden_dropout`, are averaged to score items in training
    (multi-sample dropout, Inoue, arXiv 1905.09788); 0: the state itself."""
    prefixes: bool = False
    """Whether every prefix of a user's training items is a sequence of its own, of which the last item alone is
    predicted, always from the window's last position, as in a ranking. Else one sequence a user, and all of it."""


class ViewConfig(Section, frozen=True, kw_only=True):
    """Augmented views: one of crop, mask and reorder is drawn for each view."""

    crop: Annotated[float, Meta(gt=0, le=1)] = 0.2
    """Share of the sequence that a crop keeps."""
    mask: Annotated[float, Meta(ge=0, lt=1)] = 0.7
    """Share of the positions that a mask blanks."""
    reorder: Share = 0.2
    """Share of the sequence that is shuffled, in one run."""
    temperature: PositiveFloat = 4.0
    """Temperature of L_seq, which compares the views; a product of two mean states is up to D."""


class TrainConfig(Section, frozen=True, kw_only=True):
    """Model and optimisation."""

    objective: str = "elcrec"
    """`elcrec`: all four losses, intents learned with the model; `iclrec`: intents by k-means over all users before
    every epoch, no L_cluster and no fusion; `sasrec`: L_next alone, no intents; `elcrec2`: intents that score items
    with the state, and are kept apart by what they tell of a sequence (no views, no fusion). Further loss terms follow
    a plus sign: `sasrec+sequence` is CL4SRec (`elcrec.registry`)."""
    weights: dict[str, Weight] = {}
    """Weight of a loss term by name, where it is not the term's own (`next_item` and `cluster` 1, `sequence`,
    `intent` and `assignment` 0.1). A term of weight 0 is not computed; a term that the objective does not have is not
    asked for."""
    encoder: EncoderConfig = EncoderConfig()
    """The sequence encoder."""
    head: HeadKind = "dot"
    """How states score items. `dot`: by their product with the item's embedding (the paper); `cosine`: by the cosine
    of both over a learned temperature."""
    next_item: NextItemConfig = NextItemConfig()
    """The recommendation loss."""
    intents: IntentConfig = IntentConfig()
    """Intents (not `sasrec`)."""
    views: ViewConfig = ViewConfig()
    """Augmented views for the contrastive losses (not `sasrec`)."""
    padding: Literal["ignored", "counted", "encoded"] = "counted"
    """What training makes of the empty positions of a window. `ignored`: nothing. `counted`: L_cluster's behaviour is
    the mean over all T positions, for which one empty window a step is encoded; with the paper's large alphas nothing
    else learns. `encoded`: as the published code does it, every row is filled up to T positions, padding is encoded and
    sees the whole row, every loss counts it, and L_seq compares two views position by position. That costs many times
    as much (docs/adr/0004). A served sequence's intent is told by its own items whatever this is."""
    seed: NonNegative = 1
    """Seeds weights, batches, negatives, views and dropout."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes CUDA where there is a GPU."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the matrix products of the encoder and of L_next over items, in training. Weights, sums, the contrastive
    losses and every ranking stay in float32."""
    compile: bool = False
    """Whether torch.compile makes the losses' operations fewer, for training on one GPU: a third of a minute before
    the first epoch for 0.4 ms a step. It needs a C compiler."""
    learning_rate: PositiveFloat = 1e-3
    """Adam's learning rate."""
    averaging: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Decay of the moving average of the weights, a step; the average is what is validated and kept. 0: no average."""
    item_updates: Literal["dense", "lazy"] = "dense"
    """`dense`: Adam moves every item embedding at every step. `lazy`: those alone that a step names, as history, target
    or drawn negative (lazy Adam), so that a step costs the same whatever the size of the catalogue; for 10^5 items and
    more, with a loss that does not score all of them."""
    batch_size: Annotated[int, Meta(ge=2)] = 256
    """Sequences a step (B)."""
    epochs: Positive = 300
    """Most epochs."""
    patience: Positive = 40
    """Epochs without a better validation NDCG@20 before training stops."""
    eval_every: Positive = 1
    """Epochs between validations."""
    valid_users: Positive | None = None
    """Users that a validation ranks, chosen by the hashes of their ids; `None`: all. On large logs a ranking of all
    costs more than the epoch before it, and a sample of 20,000 tells NDCG@20 to about 0.0015."""

    def __post_init__(self) -> None:
        """Check that the names are known and a run is validated before it may stop."""
        find_objective(self.objective)
        for name in self.weights:
            require_known(name, TERMS, "loss term")
        if self.padding == "encoded" and find_objective(self.objective).intents == "assigned":
            raise ValueError(f"objective {self.objective!r} takes means of items alone: padding is counted or ignored")
        if self.item_updates == "lazy" and self.next_item.loss == "softmax":
            raise ValueError("item_updates lazy needs a loss that draws items: next_item.loss bce or sampled_softmax")
        if self.item_updates == "lazy" and self.compile:
            raise ValueError("compile needs item_updates dense")
        if self.eval_every > self.patience:
            raise ValueError(f"eval_every {self.eval_every} is more than patience {self.patience}")

    @property
    def model(self) -> ModelConfig:
        """The architecture that is trained."""
        intents = find_objective(self.objective).intents
        return ModelConfig(
            encoder=self.encoder,
            head=self.head,
            intents=intents,
            num_intents=self.intents.num_intents if intents else 0,
        )

    def as_baseline(self) -> Self:
        """Return the same configuration without intents: what the report compares the model with."""
        return msgspec.structs.replace(self, objective="sasrec")


class GroupRule(Section, frozen=True, kw_only=True):
    """What holds for the items of one category or intent."""

    cap: NonNegative | None = None
    """Most items of an answer; 0 shows none, `None` any number."""
    boost: Annotated[float, Meta(ge=-20, le=20)] = 0.0
    """Added to the score of each: 0.7 doubles its odds, -0.7 halves them."""


class RulesConfig(Section, frozen=True, kw_only=True):
    """What an answer must keep to, beside what the model finds best. A model is pushed with its rules."""

    categories: dict[str, GroupRule] = {}
    """Rules by category, as the items file names them."""
    intents: dict[str, GroupRule] = {}
    """Rules by intent, named by an item that belongs to it: indices of intents change with every training."""
    category_cap: Positive | None = None
    """Most items of each category that has no cap of its own; items without a category are not counted."""
    intent_cap: Positive | None = None
    """Most items of each intent that has no cap of its own."""
    diversity: Share = 0.0
    """Weight of unlikeness to what stands above: maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998) over
    the cosine of item vectors."""
    calibration: Share = 0.0
    """Weight of showing the intents of a history in its proportions, as calibrated recommendations do (Steck, RecSys
    2018); what counts is how many places an intent lags behind its share."""
    new_items: GroupRule = GroupRule()
    """Cap and boost of items that have a vector without having been trained (`evaluate.new_items`)."""
    exploration: Annotated[float, Meta(ge=0, le=0.5)] = 0.0
    """Chance of each place to show an item drawn evenly from the other candidates; answers name the propensity."""
    candidates: Positive = 50
    """Best items, by score and boost, among which `diversity`, `calibration` and `exploration` choose."""
    shown_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    """How long what a server has shown a user is not shown to them again; 0 does not ask. Offline nothing is shown
    before, so the report does not see it."""

    def __post_init__(self) -> None:
        """Check that relevance keeps a weight."""
        if self.diversity + self.calibration > 1:
            raise ValueError(f"diversity {self.diversity} and calibration {self.calibration} add up to more than 1")

    @property
    def needs_intents(self) -> bool:
        """Whether a rule asks for the intents of items."""
        return bool(self.intents or self.intent_cap or self.calibration)


class NewItemsConfig(Section, frozen=True, kw_only=True):
    """Vectors for items that the model was not trained on. A model is pushed with them, and nothing is trained."""

    sources: list[Literal["co_seen", "text"]] = []
    """What tells of a new item; the first source that knows it gives its vector. `co_seen`: the mean of the trained
    items beside it in the histories, weighted by how often each stands there. `text`: the mean of the trained items
    nearest in the text of the items file, weighted by their cosine. Empty: new items are not recommended."""
    window: Positive = 1
    """Places before and after a new item whose items count as seen beside it (`co_seen`)."""
    least_users: Positive = 2
    """Users who must have met an item: with one alone its vector would be a copy of what they did (`co_seen`)."""
    log: str | None = None
    """Live events since the log that was trained on, as `elcrec events export` writes them; items of it that the model
    lacks are new (`co_seen`)."""
    neighbours: Positive = 10
    """Trained items whose vectors are averaged (`text`)."""
    text_model: str | None = None
    """Folder of a `model2vec` model, which needs the extra `model2vec`; nothing is downloaded. `None`: TF-IDF of
    character n-grams (`text`)."""
    held_out: Annotated[float, Meta(gt=0, lt=0.5)] = 0.05
    """Share of the trained items, chosen by a hash of their ids, which the report treats as if they were new."""
    held_out_seen: Positive = 5
    """Interactions of such an item that the sources may read: the first ones, as if nobody had met it since."""

    def __post_init__(self) -> None:
        """Check that no source is named twice, and no option belongs to a source that is not asked."""
        if len(set(self.sources)) < len(self.sources):
            raise ValueError(f"sources {self.sources} names one twice")
        for name, source in (("log", "co_seen"), ("text_model", "text")):
            if getattr(self, name) is not None and source not in self.sources:
                raise ValueError(f"new_items.{name} is read by the source {source}, which is not among sources")


class SearchConfig(Section, frozen=True, kw_only=True):
    """How the best items of the catalogue are found."""

    kind: Literal["exact", "approximate"] = "exact"
    """`exact` scores every item. `approximate` scores the items of a few parts of the catalogue, found by an index
    (extra `index`); the report says which share of the exact answers it finds, as `search_recall@20`."""
    probes: Positive = _PROBES
    """Parts of the catalogue, of about the square root of its size, that an approximate search looks into."""
    oversampling: Positive = _OVERSAMPLING
    """Candidates of an approximate search for each item of an answer, beside those that the user has met."""

    def __post_init__(self) -> None:
        """Check that no option is set that an exact search has no use for."""
        if self.kind == "exact" and (self.probes, self.oversampling) != (_PROBES, _OVERSAMPLING):
            raise ValueError("search.probes and search.oversampling are read by search.kind=approximate alone")


class EvaluateConfig(Section, frozen=True, kw_only=True):
    """The report's knobs."""

    bootstrap: Positive = 1000
    """Bootstrap samples of users for confidence intervals."""
    confidence: Annotated[float, Meta(gt=0.5, lt=1)] = 0.95
    """Level of the confidence intervals."""
    seed: NonNegative = 1
    """Seeds the bootstrap."""
    users: Positive | None = None
    """Most test users who are asked: those whose ids have the smallest hashes, mostly the same ones in every version of
    a log. The intervals are those of so many users, and the gate compares models by them alone. `None`: all users."""
    block_users: Positive | None = None
    """Users ranked at a time; bounds memory, changes no result. `None`: what suits the device that ranks."""
    top_items: Positive = 8
    """Items listed for each intent."""
    rules: RulesConfig = RulesConfig()
    """What answers must keep to. The report shows what each rule costs; the bundle carries them to every server."""
    items_file: str | None = None
    """The catalogue, what the shop knows of its items: CSV, JSON lines or Parquet with `item_id` and any of `title`,
    `category`, `available`, `available_until` (UTC unless it names a zone) and further columns. Pages and answers name
    items by it, and the bundle keeps a copy. Items that the file lacks are counted; they are available and have no
    category."""
    new_items: NewItemsConfig = NewItemsConfig()
    """How items that the model was not trained on get a vector."""
    search: SearchConfig = SearchConfig()
    """How servers and `recommend-all` find the best items; the bundle carries it. The metrics are those of exact
    search in any case."""

    def __post_init__(self) -> None:
        """Check that new items have what they need, and rules for them have items."""
        if "text" in self.new_items.sources and self.items_file is None:
            raise ValueError("new_items.sources: text is read from evaluate.items_file, which is not set")
        if self.rules.new_items != GroupRule() and not self.new_items.sources:
            raise ValueError("rules.new_items has no item to hold for: set evaluate.new_items.sources")


class CounterfactualConfig(Section, frozen=True, kw_only=True):
    """What the challenger would have earned in the champion's place, estimated on the champion's log."""

    attributed: str | None = None
    """Folder that `elcrec exposures` wrote; `None` estimates nothing. The champion must have explored
    (`evaluate.rules.exploration`), and `sequences.split` must be temporal: answers from before its test part are left
    out, as the challenger may have learned from them."""
    condition: Literal["none", "not_worse", "better"] = "none"
    """What is asked of the doubly robust difference in clicks per shown item. `not_worse`: its interval must not lie
    below 0. `better`: it must lie above 0, so that a model without such evidence is refused."""
    confidence: Annotated[float, Meta(gt=0.5, lt=1)] = 0.95
    """Level of the intervals."""
    answers: Positive = 20_000
    """Most answers that are replayed, evenly chosen over time; each takes some milliseconds."""
    least_effective: Positive = 500
    """With a smaller effective number of shown items (Kish) nothing is concluded."""
    least_reached: Share = 0.8
    """Nor is anything concluded where the champion could have shown less than this share of what the challenger shows:
    the rest counts as never clicked, which would speak against a challenger that is only different."""

    def __post_init__(self) -> None:
        """Check that there is something to judge by."""
        if self.condition != "none" and self.attributed is None:
            raise ValueError(f"condition {self.condition!r} asks for a log: set attributed")


class GateConfig(Section, frozen=True, kw_only=True):
    """When a model may be pushed."""

    floors: dict[str, float] = {}
    """Least value of test metrics by name, as they stand in metrics.json."""
    metric: str = "ndcg@20"
    """The metric in which the challenger is compared with the champion on the same split."""
    max_regression: Share = 0.01
    """Relative loss against the champion that is still accepted."""
    counterfactual: CounterfactualConfig = CounterfactualConfig()
    """The challenger on the champion's log."""

    def __post_init__(self) -> None:
        """Refuse a floor that no model could reach, before one is trained for it."""
        for name, floor in self.floors.items():
            if re.fullmatch(r"(hr|ndcg|mrr)@\d+", name) and not floor <= 1:
                raise ValueError(f"floors: {name} is 1 at most, so no model could reach {floor}")


class PushConfig(Section, frozen=True, kw_only=True):
    """Registration and publishing."""

    model_name: Name = "elcrec"
    """Registered model's name."""
    feature_service: Name = "elcrec_v1"
    """The versioned Feast service that serves the model; the bundle names it."""
    idle_days: Annotated[int, Meta(ge=0, le=36_500)] = 0
    """A user whose newest event, live events included, is more than this many days before the newest event of the log
    is not published, and leaves the online store (real times only); 0 keeps all users."""
    gate: GateConfig = GateConfig()
    """The conditions of a push."""
    alias: Literal["champion", "challenger"] = "champion"
    """What an accepted model becomes: the version that serves, or one that is tried beside it (docs/experiments.md).
    Where no version serves yet it becomes the champion."""
    refused_status: Annotated[int, Meta(ge=0, le=255)] = 0
    """Exit status of `elcrec push` and `elcrec run` where the gate refuses the model; 0: a refusal is an answer as good
    as any. A status that says something else (1, 2, 130, 143) is not taken."""

    def __post_init__(self) -> None:
        """Check that the status is told from those of faults."""
        if self.refused_status in _FAULTS:
            raise ValueError(f"refused_status {self.refused_status} is that of a fault; take another, such as 3")


class LimitsConfig(Section, frozen=True, kw_only=True):
    """What one request may ask for; more is refused with 413 or 422."""

    body_bytes: Positive = 1_048_576
    """Largest body."""
    k: Positive = 100
    """Most items of an answer."""
    history: Positive = 1000
    """Longest history that a request brings along."""
    filter_ids: Positive = 10_000
    """Most ids of an allow-list or a deny-list."""
    events: Positive = 1000
    """Most events of one request."""
    users: Positive = 256
    """Most users of one inference request."""
    queue: Positive = 2048
    """Most requests that wait for a ranking; more are turned away with 503."""
    connections: Positive = 4096
    """Most connections at a time; for one more, the one that has waited longest for its client is closed."""
    head_bytes: Positive = 16_384
    """Largest request before its body, and largest trailers; more is refused with 431."""
    headers: Positive = 64
    """Most headers of a request; more are refused with 431."""
    url_bytes: Positive = 4096
    """Longest URL; a longer one is refused with 414."""
    held_bytes: Positive = 33_554_432
    """Largest sum of the bodies that are being read or worked on; more are turned away with 503."""
    event_requests: Positive = 64
    """Most requests with events that wait for the store; more are turned away with 503."""
    new_users: Annotated[int, Meta(ge=0)] = 100_000
    """Most users whom the store knows from events alone; events of one more are refused."""


class ExposureLogConfig(Section, frozen=True, kw_only=True):
    """What the server writes down of its answers."""

    folder: str | None = None
    """Folder of Parquet files with what was shown to whom; several servers may share it. `None`: nothing is written."""
    raw_users: bool = False
    """Whether a row has the user's own id beside the salted hash of it."""
    queue: Positive = 10_000
    """Most answers that wait to be written; of more, the newest are left out and counted."""
    rows: Positive = 100_000
    """Answers from which a file is complete."""
    seconds: PositiveFloat = 300.0
    """Age from which a file is complete, however few answers it has."""
    sink: str | None = None
    """Address (http or https) that answers are posted to as batches of CloudEvents, with or without a folder; a queue
    of its own has `queue` places. `None`: nothing is posted."""
    sink_timeout: PositiveFloat = 2.0
    """Seconds that the sink has for each step of taking a batch, and for all that is left after SIGTERM."""

    def __post_init__(self) -> None:
        """Check that the sink is an address, and holds no password that a log might show."""
        if self.sink is None:
            return
        try:
            parts = urlsplit(self.sink)
            sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            sound = False
        if not sound or "@" in parts.netloc or parts.fragment or any(letter <= " " for letter in self.sink):
            raise ValueError("sink: not an http or https address without user, password and fragment")

    @property
    def wanted(self) -> bool:
        """Whether answers go anywhere."""
        return self.folder is not None or self.sink is not None


class ChallengerConfig(Section, frozen=True, kw_only=True):
    """The challenger beside the champion."""

    mode: Literal["off", "shadow", "split"] = "off"
    """`off`: a challenger is not looked at; `shadow`: the champion answers all users, and the challenger ranks for a
    sample of the same requests, aside; `split`: the challenger answers a part of the users."""
    share: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    """Part of the users whom the challenger answers under `split`; `elcrec promote` expects it of the exposures."""
    sample: Annotated[float, Meta(gt=0, le=1)] = 0.1
    """Part of the answers that are compared under `shadow`."""
    queue: Positive = 256
    """Most answers that wait for a comparison under `shadow`; more are left out and counted."""


class ServeConfig(Section, frozen=True, kw_only=True):
    """The server."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 in a container."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """Port to listen on; 0 takes a free one and logs it."""
    threads: Positive = 1
    """Threads of a matrix product; one process with one thread keeps one core busy."""
    limits: LimitsConfig = LimitsConfig()
    """What one request may ask for."""
    hosts: list[str] = []
    """Names that clients use for this server, beside its addresses and localhost. A browser's request must have one.
    So must every request where this is set, or where the server listens on this machine alone."""
    batch_size: Positive = 64
    """Most requests that are ranked together."""
    batch_wait: Annotated[float, Meta(ge=0, le=0.1)] = 0.001
    """Seconds that a batch waits for company while requests come thick; a lone request never waits."""
    store_timeout: PositiveFloat = 0.2
    """Seconds that the online store has to answer before a request falls back."""
    store_retry: PositiveFloat = 0.5
    """Seconds between two attempts to reach a store that is down."""
    event_timeout: PositiveFloat = 2.0
    """Seconds that the store has to take events."""
    stale_after: PositiveFloat = 2_592_000.0
    """Age in seconds of its newest event from which a history is called stale: answers are marked, none is refused.
    Where the log's times are only an order, histories have no age."""
    poll: PositiveFloat = 1.0
    """Seconds between two looks at the registry's champion."""
    ready_with_problems: bool = True
    """Whether the server calls itself ready while its store or registry has a problem, which its readiness names: it
    answers all the same, and were every server of a kind not ready, nobody would answer."""
    client_timeout: PositiveFloat = 10.0
    """Seconds that a client has to send its headers, and again its body."""
    drain: Positive = 20
    """Seconds that requests in flight have to finish after SIGTERM."""
    log_requests: bool = False
    """Whether every request is logged (its route, status and time, never its content), or only failures."""
    demo: bool = True
    """Whether the demo page is served; it shows users' histories."""
    items_file: str | None = None
    """As `evaluate.items_file`, read in place of the bundle's copy, and again when it changes: availability without a
    push."""
    verify_key: str | None = None
    """File with a public key (PEM, elliptic curve): a bundle that its private key has not signed is refused. `None`:
    signatures are not asked for."""
    exposures: ExposureLogConfig = ExposureLogConfig()
    """What is written down of the answers."""
    challenger: ChallengerConfig = ChallengerConfig()
    """What is done with a challenger."""
    alias: Literal["champion", "challenger"] = "champion"
    """Which version is served: `challenger` for a server that a gateway sends a part of the requests to, beside others
    that serve the champion. While there is no challenger it serves the champion."""

    def __post_init__(self) -> None:
        """Check that a server has one challenger at most."""
        if self.alias == "challenger" and self.challenger.mode != "off":
            raise ValueError(f"alias challenger serves it alone: set challenger.mode off, not {self.challenger.mode}")


class StreamConfig(Section, frozen=True, kw_only=True):
    """Events from a broker, by `elcrec events consume`; `ELCREC_STREAM` in the environment is its address."""

    kind: Literal["redis", "kafka"] = "redis"
    """Redis Streams, or whatever speaks Kafka's protocol."""
    topic: str = "elcrec-events"
    """Topic, or the stream's key in Redis. What is no event goes to the one of this name and `.dead`."""
    group: str = "elcrec"
    """Consumers of one group share the messages."""
    batch: Positive = 500
    """Most messages that are stored together."""
    retry: PositiveFloat = 1.0
    """Seconds until what the store or the broker did not take is tried again; nothing further is read meanwhile."""
    claim_after: PositiveFloat = 60.0
    """Seconds after which a consumer takes over what another one has read and not stored (Redis)."""
    client_options: str | None = None
    """File with options of librdkafka, a `key=value` a line, such as `security.protocol=SASL_SSL` (Kafka)."""
    metrics_port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    """Port of the consumer's own /metrics; `None`: there is none."""


class ExposuresConfig(Section, frozen=True, kw_only=True):
    """Joining what servers showed with what users did next."""

    window: PositiveFloat = 86_400.0
    """Seconds after an answer within which an event that names no answer may follow from it, and within which the
    user's next event counts."""
    page: bool = True
    """Whether a page is written (with the extra `report`)."""


Check = Literal[
    "ctr", "conversion", "hit_rate", "cold", "overlap", "intent", "mix", "history", "calibration", "staleness"
]
"""What the monitor looks at (docs/monitoring.md)."""


class MonitorConfig(Section, frozen=True, kw_only=True):
    """Judging what is served, day by day, by the first days of the same bundle."""

    reference_days: Annotated[int, Meta(ge=3, le=90)] = 14
    """The first days of a bundle that others are compared with; whole weeks, where days of the week differ. Fewer days
    make every check less sensitive."""
    false_alarms: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    """Chance of any alarm in 30 days in which nothing changes, over all checks together. How far from the reference a
    day must be follows from it."""
    bad_days: Annotated[int, Meta(ge=1, le=7)] = 2
    """A check raises an alarm when so many of its last `of_days` days are bad."""
    of_days: Annotated[int, Meta(ge=1, le=7)] = 3
    """How many of its last days a check looks back on."""
    min_users: Annotated[int, Meta(ge=2)] = 100
    """A day on which fewer users were answered is not judged, and is no reference day."""
    stale_days: Positive | None = 30
    """Age of a bundle in days from which it is stale; `None`: never. It is known only where the store is given."""
    retrain_on: tuple[Check, ...] = ("ctr", "conversion", "hit_rate", "intent", "mix", "calibration", "staleness")
    """Checks whose alarm asks for retraining; that of any other is a warning."""
    cool_down_days: NonNegative = 7
    """Days after a request to retrain in which there is no other."""
    retrain_status: Annotated[int, Meta(ge=0, le=255)] = 0
    """Exit status of `elcrec monitor` where it requests retraining; 0: a request is an answer as good as any. A status
    that says something else (1, 2, 130, 143) is not taken."""
    page: bool = True
    """Whether a page is written (with the extra `report`)."""

    def __post_init__(self) -> None:
        """Check that an alarm is possible, and that the status is told from those of faults."""
        if self.bad_days > self.of_days:
            raise ValueError(f"bad_days {self.bad_days} is more than of_days {self.of_days}: no alarm is possible")
        if self.retrain_status in _FAULTS:
            raise ValueError(f"retrain_status {self.retrain_status} is that of a fault; take another, such as 3")


Rate = Literal["ctr", "conversion", "hit_rate"]
"""A rate of what users did: clicks of shown items, answers with a click, next events of shown items."""


class PromoteConfig(Section, frozen=True, kw_only=True):
    """Deciding between the challenger and the champion by what their users did."""

    metric: Rate = "ctr"
    """The rate that the challenger has to raise."""
    false_alarms: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    """Chance that a difference is ever found between two versions which are equally good, however often one looks."""
    expected_lift: Annotated[float, Meta(gt=0, le=1)] = 0.05
    """Relative lift that the test is tuned for; any other is found too, somewhat later."""
    min_days: Positive = 7
    """Whole days before anything is decided; whole weeks, where days of the week differ."""
    min_users: Positive = 1000
    """Users that each arm must have before anything is decided."""
    guards: dict[Rate, Annotated[float, Meta(gt=0, lt=1)]] = msgspec.field(default_factory=lambda: {"conversion": 0.05})
    """Rates that must not fall, and the relative fall that would be too much: a promotion needs it excluded, and a
    challenger of which it is certain is dropped."""
    since: Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None = None
    """First day that counts, such as "2026-03-01"; for a test whose share of users was changed, which starts anew with
    the day after. `None`: the first whole day on which both versions were shown."""
    page: bool = True
    """Whether a page is written (with the extra `report`)."""

    def __post_init__(self) -> None:
        """Check that the day exists."""
        if self.since is not None:
            date.fromisoformat(self.since)


class Config(Section, frozen=True, kw_only=True):
    """The whole of params.yaml."""

    fetch: FetchConfig = FetchConfig()
    """Stage fetch."""
    validate: ValidateConfig = ValidateConfig()
    """Stage validate."""
    sequences: SequencesConfig = SequencesConfig()
    """Stage sequences."""
    train: TrainConfig = TrainConfig()
    """Stage train."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Stage evaluate."""
    push: PushConfig = PushConfig()
    """Stage push."""
    serve: ServeConfig = ServeConfig()
    """The server."""
    stream: StreamConfig = StreamConfig()
    """Events from a broker."""
    exposures: ExposuresConfig = ExposuresConfig()
    """Stage exposures."""
    monitor: MonitorConfig = MonitorConfig()
    """Stage monitor."""
    promote: PromoteConfig = PromoteConfig()
    """Stage promote."""
    engine: EngineConfig = EngineConfig()
    """What validate, sequences, exposures, monitor and promote run on."""

    def __post_init__(self) -> None:
        """Check that a model is served all the history that it was evaluated on."""
        window, kept = self.train.encoder.window, self.sequences.history
        if window > kept:
            raise ValueError(
                f"train.encoder.window {window} is more than sequences.history {kept}: the model would be served "
                "shorter histories than it was evaluated on. Raise sequences.history or lower the window"
            )


def parse_part(name: str, document: Mapping[str, Any], *, source: object = "configuration") -> Any:
    """Check one section of `Config` alone, without the other sections and what holds between them.

    Raises:
        UserError: a key is unknown, or a value has the wrong type or range.
    """
    kind = next(field.type for field in msgspec.structs.fields(Config) if field.name == name)
    whole = msgspec.defstruct("Part", [(name, kind)])
    return getattr(parse_section({name: document}, whole, source=source, described_in=_DESCRIBED_IN), name)


def load_config(params: Path, *, presets: Sequence[Path] = (), overrides: Sequence[str] = ()) -> Config:
    """Read `params`, lay `presets` over it in their order, then `overrides` such as `train.epochs=5`.

    Raises:
        UserError: a file is missing or not YAML, a key is unknown, or a value has the wrong type or range.
    """
    document = read_mapping(params)
    for preset in presets:
        document = merge(document, read_mapping(preset))
    for override in overrides:
        document = merge(document, _parse_override(override))
    return parse_config(document, source=params)


def parse_config(document: Mapping[str, Any], *, source: object = "configuration") -> Config:
    """Check a nested mapping against the schema.

    Raises:
        UserError: a key is unknown, or a value has the wrong type or range.
    """
    return parse_section(document, Config, source=source, described_in=_DESCRIBED_IN)


def parse_section(document: Mapping[str, Any], kind: type[T], *, source: object, described_in: str) -> T:
    """Check a nested mapping against a section's type; `described_in` is where its fields are explained.

    Raises:
        UserError: a key is unknown, or a value has the wrong type or range, or is not plain.
    """
    require_plain(document, source=source)
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        fix = f"see the fields and their ranges in {described_in}"
        raise UserError(_explain(str(error)), where=source, fix=fix) from error


def to_dict(section: Section) -> dict[str, Any]:
    """Return a section as plain nested dicts, ready for JSON or YAML."""
    plain: dict[str, Any] = msgspec.to_builtins(section)
    return plain


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one nested mapping over another; mappings join, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _explain(message: str) -> str:
    """Turn msgspec's `… - at `$.train.epochs`` into `parameter train.epochs: …`."""
    text, _, path = message.partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    return f"parameter {path}: {text}" if path else text


def _parse_override(override: str) -> dict[str, Any]:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise UserError(f"override {override[:80]!r} is not section.key=value", fix="write e.g. train.epochs=5")
    value: Any = parse_yaml(text, source=f"override {override[:80]!r}")
    for key in reversed(path.split(".")):
        value = {key: value}
    nested: dict[str, Any] = value
    return nested


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        UserError: the file is missing, not readable, or holds something else.
    """
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"), source=path)
    except FileNotFoundError as error:
        raise UserError("no such file", where=path, fix="name the parameters with --params") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"not readable ({error})", where=path) from error
    if not isinstance(document, dict):
        raise UserError("a mapping of sections was expected", where=path)
    return document
