"""The section `fetch`: which log to bring in."""

from typing import Annotated, Literal

from msgspec import Meta

from elcrec.config.section import Md5, Name, NonNegative, Positive, Section, Share, Weight
from elcrec.layouts import LAYOUTS
from elcrec.registry import require_known

LogFormat = Literal["csv", "parquet", "jsonl", "benchmark"]


class RemoteFile(Section, frozen=True, kw_only=True):
    """A public file, fetched from the mirror folder if there is one, else from its URL."""

    url: str
    """Where the file is published; its last path segment is its name."""
    md5: Md5
    """md5 of the file; a file with another checksum is refused."""
    format: LogFormat = "benchmark"
    """Format of the file."""
    mirror_name: Name | None = None
    """The file's name inside the mirror folder; `None`: the data set's name with the suffix of the URL."""


class LocalFile(Section, frozen=True, kw_only=True):
    """Your own log: a file on this machine or on a claim, or an object that a cluster can reach."""

    name: Name = "file"
    """Name of the log, also on pages. Only logs with the same name are compared with each other."""
    path: str = "data/log.parquet"
    """The file, relative to the working directory (version it with `dvc add`), or s3://, gs:// or https://. A folder,
    such as Spark writes, or a pattern (`logs/*.csv`) stands for all its files, one after another by name."""
    version: str = ""
    """Required version of a file at an address: the ETag of S3 and HTTP, or Google's generation; empty accepts any."""
    md5: Md5 | None = None
    """Required md5; `None` accepts any."""
    format: LogFormat = "parquet"
    """Format of the file."""
    layout: str | None = None
    """Name of a known layout (docs/data.md), which sets the format, and the columns, texts and times of the section
    `validate`. Values that you set there take precedence."""

    def __post_init__(self) -> None:
        """Check that the layout is known."""
        if self.layout is not None:
            known = {name: layout.files for name, layout in LAYOUTS.items()}
            require_known(self.layout, known, "file.layout")

    @property
    def laid_out(self) -> LogFormat:
        """The format, from the layout or from `format`."""
        return self.format if self.layout is None else LAYOUTS[self.layout].format


class SyntheticConfig(Section, frozen=True, kw_only=True):
    """The generator of the data set `sample`, a log with planted intents."""

    seed: NonNegative = 7
    """Seed of all draws; the same configuration gives the same bytes."""
    users: Positive = 2000
    """Number of users."""
    items: Positive = 600
    """Number of items, divided evenly among the intents."""
    intents: Positive = 12
    """Number of planted intents."""
    intents_per_user: Positive = 2
    """Largest number of intents of a user; each has at least one."""
    mean_length: Annotated[float, Meta(ge=5)] = 12.0
    """Mean number of interactions of a user (at least 5 each)."""
    popularity_exponent: Weight = 0.8
    """Zipf exponent of item popularity inside an intent; 0 is uniform."""
    follow: Share = 0.6
    """Probability that the next item is one of the current item's few successors inside the intent."""
    switch: Share = 0.1
    """Probability of switching to another of the user's intents after an item."""
    noise: Share = 0.05
    """Probability that an item is drawn from all items, independent of the intent."""

    def __post_init__(self) -> None:
        """Check that every intent gets an item."""
        if self.intents > self.items:
            raise ValueError(f"{self.intents} intents need at least as many items, but there are {self.items}")


class FetchConfig(Section, frozen=True, kw_only=True):
    """Which log to fetch."""

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
