"""How far a publication has come, so that one that was killed goes on where it was."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from elcrec.artifacts import md5_of, read_json, write_json
from elcrec.errors import UserError
from elcrec.progress import track

_CHUNK = 5_000
Write = Callable[[datetime, datetime | None], Mapping[str, Path]]


@dataclass
class Publication:
    """The offline files of a push on their way to the online store.

    Attributes:
        moment: when it began, the time of what it publishes; one that was killed keeps its own.
        abandoned: the moment of the one before, where that was broken off for good.
    """

    marker: Path
    target: str
    moment: datetime
    files: dict[str, str] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    abandoned: datetime | None = None

    @classmethod
    def begin(cls, marker: Path, target: str, write: Write, last: datetime | None = None) -> "Publication":
        """Write the offline files; go on with the unfinished publication of the same files to the same store.

        The moment is noted before a file is written: one that was killed leaves no rows of a moment that nobody knows.

        Args:
            marker: where progress is kept.
            target: identity of the online store.
            write: writes the files of a publication of a moment, without what one of another moment has left that
                was broken off for good, and names them.
            last: the moment of the publication before, if any; a new one is later, whatever the clock says.
        """
        known = _read(marker)
        moment, abandoned = _instant(known.get("moment")), _instant(known.get("abandoned"))
        if moment is not None and known["target"] == target:
            files = _md5(write(moment, abandoned))
            if files == known["files"] or not known["files"]:
                return cls(marker=marker, target=target, moment=moment, files=files, done=known["done"])
        # A moment of its own: Redis ignores rows that are not newer than those of another publication.
        begun = cls(marker=marker, target=target, moment=_next_moment(last, moment), abandoned=moment)
        begun._write()
        begun.files = _md5(write(begun.moment, moment))
        begun._write()
        return begun

    def chunks(self, view: str, rows: int) -> Iterator[slice]:
        """Yield the rows that are still to be written, with progress; a chunk counts once it was worked on."""
        starts = range(self.done.get(view, 0), rows, _CHUNK)
        for start in track(starts, total=len(starts), label=view, step=_CHUNK):
            yield slice(start, min(start + _CHUNK, rows))
            self.done[view] = min(start + _CHUNK, rows)
            self._write()

    def whole(self, rows: Mapping[str, int], write: Callable[[list[str], datetime], None]) -> None:
        """Let all rows of some views be written at once, but of those that have been; they bear its moment.

        Args:
            rows: how many there are, by view.
            write: takes the views and the moment.
        """
        left = [view for view, number in rows.items() if self.done.get(view, 0) < number]
        if left:
            write(left, self.moment)
            self.done |= {view: rows[view] for view in left}
            self._write()

    def finish(self) -> None:
        """Forget it: the next one begins at the first row."""
        self.marker.unlink(missing_ok=True)

    def _write(self) -> None:
        moments = {"moment": self.moment, "abandoned": self.abandoned}
        said = {name: moment.isoformat() for name, moment in moments.items() if moment is not None}
        write_json(self.marker, {"target": self.target, **said, "files": self.files, "done": self.done})


def _md5(files: Mapping[str, Path]) -> dict[str, str]:
    return {name: md5_of(path) for name, path in files.items()}


def _next_moment(*earlier: datetime | None) -> datetime:
    return max([datetime.now(UTC), *(moment + timedelta(microseconds=1) for moment in earlier if moment is not None)])


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _read(marker: Path) -> dict[str, Any]:
    if not marker.exists():
        return {}
    try:
        return read_json(marker)
    except UserError:
        return {}  # half a file cannot be: the disk failed, and a publication from its first row mends it
