"""The page's sections on what rules cost and on what attacks do."""

from benchmarks.markdown import table
from benchmarks.measurements import Section

_MILLISECONDS = 1000


def rules(section: Section) -> list[str]:
    """Write what rules add to an answer."""
    text = f"""CPU time from a request's scores over {section["items"]:,} items to its answer: the best scores alone,
and under rules. Random scores, vectors, categories and intents; caps are by category and by intent. Both take turns on
each request; the least of all rounds counts, which other work on the machine disturbs least, and the mean over
requests."""
    head = ["rules", "items of an answer", "without, ms", "with, ms", "rules add, ms"]
    rows = []
    for name, (one,) in section["runs"].items():
        kind, k = name.rsplit(", ", 1)
        cells = (one["plain"], one["ruled"], one["ruled"] - one["plain"])
        rows.append([kind, k, *(f"{_MILLISECONDS * value:.3f}" for value in cells)])
    return [text, table(head, rows)]


def attacks(section: Section) -> list[str]:
    """Write how a server answered under attack."""
    text = """One server process, attacked from another process over loopback, while a third party asks for its health,
or every tenth time for its metrics, each time on a connection of its own. *Late* are answers that were not 200 within a
second; *faults* are answers to the attackers of 5xx but 503; *memory* is the peak of the server's resident memory over
that before the attack."""
    head = ["attack", "seconds", "asked", "late", "slowest, ms", "memory", "faults", "answers to the attackers"]
    rows = [
        [
            name,
            f"{one['seconds']:,.0f}",
            f"{one['asked']:,}",
            f"{one['late']:,}",
            f"{_MILLISECONDS * one['slowest']:,.0f}",
            f"{one['memory']:.2f}x",
            f"{one['faults']:,}",
            ", ".join(f"{count:,} times {status}" for status, count in one["statuses"].items()) or "none",
        ]
        for name, (one,) in section["runs"].items()
    ]
    return [text, table(head, rows)]
