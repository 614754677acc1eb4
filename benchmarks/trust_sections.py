"""The page's sections on reliability: kills, full disks, checksums, the monitor, estimates, tests, rollbacks."""

from collections import Counter
from collections.abc import Sequence
from statistics import median

from benchmarks.jobs import Result
from benchmarks.markdown import mib, percent, seconds, table
from benchmarks.measurements import Section

_KINDS = {
    "random": "one, at a random time",
    "twice": "two, at random times",
    "event": "one, at a file or database event",
}


def kills(section: Section) -> list[str]:
    """Write the outcomes of work that was killed and repeated."""
    text = """SIGKILL ends the process group that does the work; then the same command runs again without a kill.
*Equal* counts the points after which everything is as if nobody had killed the work. Weights, metrics, ranks and every
other file are compared bit by bit, except pages, times and durations. Versions, runs and artifact folders of the
registry are compared too, and the rows of the online store and of the event log. One thing is left out: Feast's list of
earlier versions of its views, which nothing reads and of which a kill may lose one. A file or folder that is left over
counts as a fault. The client of the server sends a batch of events again until it is acknowledged, and never after
that."""
    head = ["what is killed", "kills", "points", "equal", "other or failed"]
    tried: list[Result] = [one for one in section["tried"] if one["killed"]]
    rows = [
        [scenario, _KINDS[kind], *_counts([one for one in tried if _of(one) == (scenario, kind)])]
        for scenario, kind in sorted({_of(one) for one in tried}, key=lambda of: (of[0], list(_KINDS).index(of[1])))
    ]
    faults = Counter(fault for one in tried for fault in one["faults"])
    return [
        text,
        table(head, [*rows, ["all", "", *_counts(tried)]]),
        *(f"- {text}, {n}x" for text, n in faults.items()),
    ]


def full_disk(section: Section) -> list[str]:
    """Write the results of stages on disks that were too small."""
    text = """Each stage runs as a command on a disk that is too small for what it writes; then the same command runs on
the same disk with enough room. *Refused* counts the runs that ended with one line and left nothing half-written.
*Equal* counts those after which everything is as on a disk that always had room."""
    head = ["stage", "disks, KiB", "tried", "refused", "equal afterwards", "other, failed or half-written"]
    of: dict[str, list[Result]] = {}
    for one in section["tried"]:
        of.setdefault(one["stage"], []).append(one)
    rows = []
    for stage, tried in of.items():
        sizes, wrong = [one["kib"] for one in tried], sum(bool(one["faults"]) for one in tried)
        counts = (len(tried), sum(one["refused"] for one in tried), len(tried) - wrong, wrong)
        rows.append([stage, f"{min(sizes):,} to {max(sizes):,}", *map(str, counts)])
    return [text, table(head, rows)]


def custody(section: Section) -> list[str]:
    """Write the cost of comparing a stage's inputs with recorded checksums."""
    text = f"""Comparing the files that a stage reads with the checksums of the stage that wrote them, beside the whole
stage as a command, on a log of {section["events"]:,} events of {section["users"]:,} users; processor seconds of one run
each, training one epoch."""
    head = ["stage", "stage, CPU s", "comparing, CPU s", "share", "MiB compared"]
    rows = [
        [name, seconds(one["stage"]), f"{one['verify']:.3f}", percent(one["verify"] / one["stage"]), mib(one["mib"])]
        for name, one in section["stages"].items()
    ]
    return [text, table(head, rows)]


def monitor(section: Section) -> list[str]:
    """Write the monitor's rate of false alarms, and its time to find drifts."""
    days, seeds = section["days"], section["seeds"]
    text = f"""Simulated worlds of {section["users"]:,} users, some {section["answers"]:,.0f} answers of ten items a day
and twelve intents. Users have lasting tastes, come again, leave and are replaced; weekends and days differ in traffic,
tastes and click rates. After {days["reference"]} reference days come {days["judged"]} days in which nothing changes, or
a few such days and then {days["within"]} days of a drift. An alarm is any verdict except *fine*. The monitor is
configured to raise a false alarm in at most {percent(section["stated"])} of the months without a drift."""
    head = ["what happens", "worlds", "alarm", "share", "wanted"]
    rows = [["nothing", section["false"], f"at most {percent(section['stated'])}"]]
    rows += [[f"{name}, found within {days['within']} days", n, "at least 95%"] for name, n in section["found"].items()]
    table_of = table(head, [[what, f"{seeds:,}", f"{n:,}", percent(n / seeds), wanted] for what, n, wanted in rows])
    false = ", ".join(f"{name} ({n})" for name, n in sorted(section["by_check"].items()))
    return [text, table_of, *([f"False alarms by check: {false}."] if false else [])]


_ESTIMATES = {
    "logged": "champion, as logged",
    "ips": "challenger, IPS",
    "snips": "challenger, SNIPS",
    "doubly_robust": "challenger, doubly robust",
    "difference": "challenger minus champion, doubly robust",
}


def counterfactual(section: Section) -> list[str]:
    """Write how often the interval of an estimate covers the truth."""
    seeds, level = section["seeds"], percent(section["confidence"])
    text = f"""Simulated worlds with planted intents. The champion answers {section["users"]:,} users some
{section["answers"]:,.0f} times and fills some places at random. The estimators use its exposures alone, with the real
rules and propensities, to estimate how many clicks another policy would get. The true number is known: on average
{percent(section["worth"])} clicks per shown item. The effective sample has {section["effective"]:,.0f} items; the
champion could have shown {percent(section["reached"])} of the challenger's items. Intervals are of {level}, by user;
they should cover the truth in at least 90% of the worlds."""
    head = ["estimate", "worlds", "covers", "share", "mean error", "mean width of the interval"]
    rows = [
        [
            name,
            f"{seeds:,}",
            f"{one['covered']:,}",
            percent(one["covered"] / seeds),
            *_points(one["bias"], one["width"]),
        ]
        for key, name in _ESTIMATES.items()
        for one in [section["estimates"][key]]
    ]
    return [text, table(head, rows)]


def _points(*values: float) -> list[str]:
    return [f"{100 * value:.2f} points" for value in values]


def promotion(section: Section) -> list[str]:
    """Write how often a difference of equal versions is found, and how often and how soon a real lift."""
    text = f"""Simulated tests of two versions. Each version answers half of the users, and a decision is tried
after every day for {section["days"]} days. Users have lasting click rates and habits and come again, and half of them
come first on some later day; so the answers to one user are far from independent. The test is configured to see a
difference between two equal versions, in either direction, in at most {percent(section["stated"])} of the tests, over
any number of looks. *Refused* counts the tests in which, on the last day, chance does not explain how uneven the split
of users is (one in a thousand is expected for each day alone)."""
    head = ["lift of the challenger", "users", "tests", "promoted", "dropped", "refused", "median day of the decision"]
    rows = []
    for one in section["played"]:
        counts, day = one["outcomes"], one["median_day"]
        shown = [f"{counts.get(name, 0):,} ({percent(counts.get(name, 0) / one['tests'])})" for name in _DECIDED]
        cells = [f"{one['lift']:+.0%}", f"{one['users']:,}", f"{one['tests']:,}", *shown]
        rows.append([*cells, "" if day is None else f"{day:g}"])
    return [text, table(head, rows)]


def rollback(section: Section) -> list[str]:
    """Write the duration of a rollback under load, and the number of failed requests."""
    rounds: list[Result] = section["rounds"]
    text = f"""`elcrec rollback` beside a server under load: {section["connections"]} connections, a store of
{section["users"]:,} users and {section["items"]:,} items, `serve.poll` as it is by default, server and load on one core
each. Seconds from the start of the command. *Failed* are requests without the status 200."""
    figures = {"the command has ended": "command", "the version answers first": "first", "the other one last": "last"}
    rows = [
        [name, *(f"{of([one[key] for one in rounds]):.2f}" for of in (median, min, max))]
        for name, key in figures.items()
    ]
    asked, failed = sum(one["requests"] for one in rounds), sum(one["failed"] for one in rounds)
    said = f"{len(rounds)} rollbacks, {asked:,} requests, {failed:,} failed."
    return [text, table(["until", "median", "least", "most"], rows), said]


_DECIDED = ("promote", "drop", "refused")


def _of(one: Result) -> tuple[str, str]:
    return one["point"]["scenario"], one["point"]["kind"]


def _counts(tried: Sequence[Result]) -> list[str]:
    wrong = sum(bool(one["faults"]) for one in tried)
    return [f"{len(tried):,}", f"{len(tried) - wrong:,}", f"{wrong:,}"]
