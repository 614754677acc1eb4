"""The section `fetch`: which log to bring in."""

from typing import Annotated, Literal

from msgspec import Meta

from elcrec.config.section import Md5, Name, NonNegative, Positive, Section, Share, Weight
from elcrec.layouts import LAYOUTS
from elcrec.registry import require_known

LogFormat = Literal["csv", "parquet", "jsonl", "benchmark"]


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
