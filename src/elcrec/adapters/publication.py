"""The progress of a publication, so that a killed one resumes where it stopped."""

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
        moment: when it began, which is the time of its rows; a resumed publication keeps its own.
        abandoned: the moment of the previous publication, if that was interrupted and is not resumed.
    """

    marker: Path
    target: str
    moment: datetime
    files: dict[str, str] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    abandoned: datetime | None = None

    @classmethod
    def begin(cls, marker: Path, target: str, write: Write, last: datetime | None = None) -> "Publication":
        """Write the offline files; resume an unfinished publication of the same files to the same store.

        The moment is noted before a file is written, so that a killed publication leaves no rows of an unknown moment.

        Args:
            marker: the file of the progress.
            target: identity of the online store.
            write: writes the files of a publication, given its moment and that of an abandoned one, whose rows it
                drops; returns the files.
            last: the moment of the previous publication, if any; a new one is always later, even if the clock is wrong.
        """
        known = _read(marker)
        moment, abandoned = _instant(known.get("moment")), _instant(known.get("abandoned"))
        if moment is not None and known["target"] == target:
            files = _md5(write(moment, abandoned))
            if files == known["files"] or not known["files"]:
                return cls(marker=marker, target=target, moment=moment, files=files, done=known["done"])
        # The moment must be new: Redis ignores rows that are not newer than those of another publication.
        begun = cls(marker=marker, target=target, moment=_next_moment(last, moment), abandoned=moment)
        begun._write()
        begun.files = _md5(write(begun.moment, moment))
        begun._write()
        return begun

    def chunks(self, view: str, rows: int) -> Iterator[slice]:
        """Yield chunks of the rows still to be written; a chunk counts as done after the consumer has handled it."""
        starts = range(self.done.get(view, 0), rows, _CHUNK)
        for start in track(starts, total=len(starts), label=view, step=_CHUNK):
            yield slice(start, min(start + _CHUNK, rows))
            self.done[view] = min(start + _CHUNK, rows)
            self._write()

    def whole(self, rows: Mapping[str, int], write: Callable[[list[str], datetime], None]) -> None:
        """Let all rows of some views be written at once, except views that are done; the rows have its moment.

        Args:
            rows: numbers of rows by view.
            write: writes the given views with the given moment.
        """
        left = [view for view, number in rows.items() if self.done.get(view, 0) < number]
        if left:
            write(left, self.moment)
            self.done |= {view: rows[view] for view in left}
            self._write()

    def finish(self) -> None:
        """Delete the progress: the next publication begins at the first row."""
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
        return {}  # The file is written atomically, so the disk must have failed; starting again repairs it.
