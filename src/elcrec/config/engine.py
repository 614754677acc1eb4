"""The section `engine`: what the stages over a whole log run on."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from elcrec.config.section import Positive, Section


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
