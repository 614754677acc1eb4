"""The page's sections on what kills and verification do."""

from collections import Counter
from collections.abc import Sequence

from benchmarks.jobs import Result
from benchmarks.markdown import table
from benchmarks.measurements import Section

_KINDS = {"random": "one, at a random time", "twice": "two, at random times", "event": "one, at a file or database event"}


def kills(section: Section) -> list[str]:
    """Write what came of work that was killed and done again."""
    text = """A process group that does the work is ended by SIGKILL; then the same command runs again, in peace. *Equal*
are points after which everything is as after work that nobody killed: weights, metrics, ranks and every other file bit
by bit, the registry's versions, runs and artifact folders, and the rows of the online store and of the log of events.
A file or folder that is left over counts as a fault. A client of the server sends a batch of events again until it is
acknowledged, and never after."""
    head = ["what is killed", "kills", "points", "equal", "other or failed"]
    tried: list[Result] = [one for one in section["tried"] if one["killed"]]
    rows = [
        [scenario, _KINDS[kind], *_counts([one for one in tried if _of(one) == (scenario, kind)])]
        for scenario, kind in sorted({_of(one) for one in tried}, key=lambda of: (of[0], list(_KINDS).index(of[1])))
    ]
    faults = Counter(fault for one in tried for fault in one["faults"])
    return [text, table(head, [*rows, ["all", "", *_counts(tried)]]), *(f"- {text}, {n}x" for text, n in faults.items())]


def _of(one: Result) -> tuple[str, str]:
    return one["point"]["scenario"], one["point"]["kind"]


def _counts(tried: Sequence[Result]) -> list[str]:
    wrong = sum(bool(one["faults"]) for one in tried)
    return [f"{len(tried):,}", f"{len(tried) - wrong:,}", f"{wrong:,}"]
