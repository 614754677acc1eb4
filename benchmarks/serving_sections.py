"""The page's sections on search, on the cost of rules and on attacks."""

import math
from collections.abc import Mapping

from benchmarks.jobs import Numbers
from benchmarks.markdown import table
from benchmarks.measurements import Section

_MILLISECONDS = 1000


def search(section: Section) -> list[str]:
    """Write the cost of both searches, the recall of the approximate one, and the size from which it is faster."""
    text = """Encoding, scores, history masked, the ten best; in the server's own code, one thread. *Exact* scores all
items; *near* is `evaluate.search.kind: approximate` with its defaults. *One* is a request alone, *64* a request of a
batch of 64. Random weights, but the items lie in 256 groups as trained ones do, and so do the users. *Recall* is the
share of the exact ten that the approximate ten hold; that of your model is in its report. *Build* is what loading a
model takes longer with the index; the first imports Faiss as well."""
    by_size = {int(name.replace(",", "")): one for name, (one,) in section["runs"].items()}
    head = ["items", "one exact, ms", "one near, ms", "64 exact, ms", "64 near, ms", "recall@10", "build, s"]
    columns = (("one", 1), ("near_one", 1), ("batch", 64), ("near_batch", 64))
    rows = [
        [
            f"{size:,}",
            *(f"{_MILLISECONDS * one[name] / users:.2f}" for name, users in columns),
            f"{one['recall']:.3f}",
            f"{one['build']:.2f}",
        ]
        for size, one in by_size.items()
    ]
    alone, batch = crossover(by_size, "one"), crossover(by_size, "batch")
    said = f"Near search is faster {_from(alone)} for a request alone, and {_from(batch)} in a batch of 64."
    return [text, table(head, rows), said]


def crossover(by_size: Mapping[int, Numbers], name: str) -> float | None:
    """Return the number of items from which approximate search is faster; `None` if it is not at the largest size.

    Between two sizes, both costs are interpolated as powers of the number of items.
    """
    sizes = sorted(by_size)
    gains = [math.log(by_size[size][name] / by_size[size][f"near_{name}"]) for size in sizes]
    if gains[-1] <= 0:
        return None
    slower = [place for place, gain in enumerate(gains) if gain <= 0]
    if not slower:
        return float(sizes[0])
    last = slower[-1]
    part = -gains[last] / (gains[last + 1] - gains[last])
    return float(sizes[last] * (sizes[last + 1] / sizes[last]) ** part)


def _from(items: float | None) -> str:
    return "at none of these sizes" if items is None else f"from about {float(f'{items:.1g}'):,.0f} items on"


def rules(section: Section) -> list[str]:
    """Write the cost of rules for an answer."""
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
    """Write the results of attacks on a server."""
    text = """One process attacks one server process over loopback. Meanwhile a third process asks for the server's
health, and every tenth time for its metrics, on a new connection each time. *Late* counts answers that were not 200
within a second. *Faults* counts answers 5xx to the attackers, except 503. *Memory* is the server's peak of resident
memory divided by its memory before the attack."""
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
