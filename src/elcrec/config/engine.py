"""The section `engine`: what the stages over a whole log run on."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from elcrec.config.section import Positive, Section


class EngineConfig(Section, frozen=True, kw_only=True):
    """The engine of the stages validate, sequences and exposures. It affects their time and memory, but no result."""

    kind: Literal["duckdb", "spark"] = "duckdb"
    """`duckdb`: one machine, spilling to disk beyond its memory. `spark`: a cluster, Spark Connect or Spark on this
    machine; it needs the extra `spark` and Java."""
    master: str | None = None
    """Spark's master (`spark://…`), or the address of Spark Connect (`sc://…`); both must see the work folder. `None`:
    Spark on this machine."""
    memory_share: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    """Share of the memory limit (the container's, else the machine's) that a stage tries to stay within; data beyond it
    spills to disk."""
    memory_mb: Annotated[int, Meta(ge=64)] | None = None
    """Megabytes that a stage tries to stay within, instead of the share."""
    threads: Positive | None = None
    """Largest number of threads; `None`: as many as this process may use. With little memory, fewer are used."""
    spill: str | None = None
    """Folder for data that does not fit in memory, up to several times the size of the log. `None`: beside the output.
    With Spark also `s3://BUCKET/FOLDER`: driver and executors exchange tables there if they share no folder."""

    def __post_init__(self) -> None:
        """Refuse a master that would be ignored, and a spill folder that is an address."""
        if self.master is not None and self.kind != "spark":
            raise ValueError("master is an option of Spark: set kind to spark")
        if self.spill is not None and "://" in self.spill:
            if not is_bucket(self.spill):
                raise ValueError("spill is a folder, or with Spark s3://BUCKET/FOLDER")
            if self.kind != "spark":
                raise ValueError("a bucket as spill is an option of Spark: name a folder, or set kind to spark")


def is_bucket(address: str) -> bool:
    """Say whether an address names a bucket of S3, or a folder in one."""
    parts = urlsplit(address, allow_fragments=False)
    sound = bool(parts.netloc) and not parts.query and "//" not in parts.path and "#" not in parts.path
    return parts.scheme == "s3" and sound
