"""The section of the page for each measurement: a sentence on the meaning of a row, and the table."""

from collections.abc import Callable, Mapping
from statistics import median
from typing import Literal

from benchmarks import serving_sections, trust_sections
from benchmarks.chart import log_lines
from benchmarks.jobs import Numbers, Result
from benchmarks.markdown import Cells, mib, percent, ratio, seconds, spread, table
from benchmarks.measurements import COMPILED, OBJECTIVES, Section
from benchmarks.runner import medians

CHART = "benchmarks-users.svg"

_PUBLISHED = "published code, for reference"
_PUBLISHED_EPOCH, _PUBLISHED_RANKING, _PUBLISHED_MIB = 118.0, 11.0, 2.5e9 / 2**20
_PUBLISHED_ICLREC, _PUBLISHED_KMEANS = 128.0, 11.0
_NAMES = {"cpu": "CPU", "wall": "Wall"}
_MEANS = {
    "ours": "our engine with the preset",
    COMPILED: "our engine with `train.compile`",
    "textbook": "the baseline",
}


def epoch_seconds(numbers: Numbers, kind: str = "cpu", *, between: bool = False) -> float:
    """Return the cost of all steps of an epoch, and with `between` also of the work between two epochs."""
    steps = numbers[f"steps_{kind}"] / numbers["steps"] * numbers["whole"]
    return steps + (numbers[f"between_{kind}"] if between else 0.0)


def own_mib(numbers: Numbers) -> float:
    """Return the peak memory of the steps minus that after the imports."""
    return numbers["steps_mib"] - numbers["imported_mib"]


def _train(section: Section) -> list[str]:
    middle = _medians(section)
    text = f"""All steps of one epoch on {section["dataset"]}: drawing batches, forward, backward, optimiser. The first
steps of a process are not counted; the ranking of the validation users that ends an epoch is not either."""
    ratios = f"ratio ({_NAMES[_clock(section)]})"
    head = ["", "what it is", "steps run", "CPU s an epoch", "wall s an epoch", "lowest to highest", ratios]
    rows = [[name, _MEANS[name], *_train_cells(name, section, middle)] for name in middle]
    if _has_reference(section):
        rows.append([_PUBLISHED, "ELCRec, on another machine", "", seconds(_PUBLISHED_EPOCH), "", "", ""])
    memory = """Peak resident memory of the same runs in MiB: at the end of the training steps, and after the ranking of
all validation users that follows. *Own data* is the first of them less what the process held after its imports."""
    return [text, table(head, rows), *_gpu(middle), "### Memory", memory, _memory(section, middle)]


def _train_cells(name: str, section: Section, middle: Mapping[str, Numbers]) -> Cells:
    one, kind = middle[name], _clock(section)
    return [
        _steps(one),
        seconds(epoch_seconds(one)),
        seconds(epoch_seconds(one, "wall")),
        spread([epoch_seconds(run, kind) for run in section["runs"][name]]),
        ratio(epoch_seconds(middle["textbook"], kind), epoch_seconds(one, kind)) if name != "textbook" else "",
    ]


def _gpu(middle: Mapping[str, Numbers]) -> list[str]:
    rows = [
        # Results of earlier runs lack the first steps.
        [name, mib(one["gpu_mib"]), percent(one["gpu_busy"]), seconds(one["first_wall"]) if "first_wall" in one else ""]
        for name, one in middle.items()
        if "gpu_busy" in one
    ]
    text = """On the GPU: peak of its allocated memory in MiB; time in kernels and copies over wall time; and what the
first five steps of a process take, in which ours is recorded and, where that is asked for, compiled."""
    return [text, table(["", "GPU peak", "GPU busy", "first steps, s"], rows)] if rows else []


def _memory(section: Section, middle: Mapping[str, Numbers]) -> str:
    base = own_mib(middle["textbook"])
    rows = [
        [
            name,
            mib(one["steps_mib"]),
            mib(one["imported_mib"]),
            mib(own_mib(one)),
            ratio(base, own_mib(one)) if name != "textbook" else "",
            mib(one["total_mib"]),
        ]
        for name, one in middle.items()
    ]
    if _has_reference(section):
        rows.append([_PUBLISHED, "", "", "", "", mib(_PUBLISHED_MIB)])
    head = ["", "peak, training", "after imports", "own data", "ratio (own data)", "peak, with validation"]
    return table(head, rows)


def _rank(section: Section) -> list[str]:
    middle, kind = _medians(section), _clock(section)
    base = _all_users(middle["textbook"], kind)
    rows = [
        [
            name,
            f"{one['users']:,.0f} of {one['whole']:,.0f}",
            seconds(_all_users(one)),
            seconds(_all_users(one, "wall")),
            spread([_all_users(run, kind) for run in section["runs"][name]]),
            ratio(base, _all_users(one, kind)) if name != "textbook" else "",
        ]
        for name, one in middle.items()
    ]
    if _has_reference(section):
        rows.append([_PUBLISHED, "", seconds(_PUBLISHED_RANKING), "", "", ""])
    text = f"""Encoding the history of every test user of {section["dataset"]}, ranking the target among all items
outside it and listing the twenty best. Ours gives the exact rank of every target, the textbook only of those among the
twenty. The model is untrained: the cost does not depend on its weights."""
    head = ["", "users ranked", "CPU s", "wall s", "lowest to highest", f"ratio ({_NAMES[kind]})"]
    return [text, table(head, rows)]


def _all_users(numbers: Numbers, kind: str = "cpu") -> float:
    return numbers[kind] / numbers["users"] * numbers["whole"]


def _objectives(section: Section) -> list[str]:
    middle, kind = _medians(section), _clock(section)
    names = [f"{objective}, {engine}" for objective in OBJECTIVES for engine in ("ours", "textbook")]
    rows = [_objective_cells(name, middle, kind) for name in names if name in middle]
    if _has_reference(section):
        costs = (_PUBLISHED_ICLREC, _PUBLISHED_KMEANS, _PUBLISHED_ICLREC + _PUBLISHED_KMEANS)
        rows.append(["iclrec", _PUBLISHED, "", *(seconds(cost) for cost in costs), ""])
    text = f"""{_NAMES[kind]} seconds of an epoch on {section["dataset"]}, without validation. `elcrec` learns its
centres with the model; `iclrec` runs k-means over all users before every epoch, which is what stands *between epochs*
(ours also writes a checkpoint there, the textbook does not); `sasrec` has no intents. Ours compares views by mean
states, as the presets do; what the textbook's form of L_seq would cost is in the first table."""
    head = ["objective", "engine", "steps run", "steps", "between epochs", "epoch", "ratio"]
    return [text, table(head, rows)]


def _objective_cells(name: str, middle: Mapping[str, Numbers], kind: str) -> Cells:
    objective, engine = name.split(", ")
    one, epoch = middle[name], epoch_seconds(middle[name], kind, between=True)
    base = epoch_seconds(middle[f"{objective}, textbook"], kind, between=True)
    times = ratio(base, epoch) if engine == "ours" else ""
    return [
        objective,
        engine,
        _steps(one),
        *map(seconds, (epoch_seconds(one, kind), one[f"between_{kind}"], epoch)),
        times,
    ]


def _users(section: Section) -> list[str]:
    rows, kind = [], _clock(section)
    for name, one in _medians(section).items():
        objective, users = _name_and_size(name)
        between, once = one[f"between_{kind}"], one[f"before_{kind}"]
        costs = (epoch_seconds(one, kind), between, epoch_seconds(one, kind, between=True), once)
        rows.append([objective, f"{users:,}", _steps(one), *map(seconds, costs), mib(own_mib(one))])
    text = f"""Our engine on random logs (20,000 items by Zipf's law, mean length 9), {_NAMES[kind]} seconds. What is
done between epochs (iclrec: encoding all users, and k-means) and once before the first (elcrec: the same, to place
its centres) was run in full, the steps in part where the table says so."""
    head = ["objective", "users", "steps run", "steps", "between epochs", "epoch", "once", "own data, MiB"]
    return [text, table(head, rows), f"![Seconds of an epoch by number of users](images/{CHART})"]


def draw_users(section: Section) -> str:
    """Return the chart of the cost of an epoch, and of the work between epochs, by number of users."""
    series: dict[str, list[tuple[float, float]]] = {}
    kind = _clock(section)
    for name, one in _medians(section).items():
        objective, users = _name_and_size(name)
        series.setdefault(f"{objective}, epoch", []).append((users, epoch_seconds(one, kind, between=True)))
        series.setdefault(f"{objective}, between", []).append((users, max(one[f"between_{kind}"], 1e-3)))
    return log_lines(series, title="Cost of an epoch by number of users", across="users", up=f"{_NAMES[kind]} seconds")


def _name_and_size(name: str) -> tuple[str, int]:
    what, size = name.rsplit(" ", 1)[0].split(", ")
    return what, int(size)


def _catalogue(section: Section) -> list[str]:
    middle, kind = _medians(section), _clock(section)
    costs = {_name_and_size(name): one[f"steps_{kind}"] / one["steps"] for name, one in middle.items()}
    fewest = min(size for _, size in costs)
    rows = [
        [
            updates,
            f"{size:,}",
            f"{1e3 * cost:.1f}",
            f"{cost / costs[updates, fewest]:.2f}",
            mib(own_mib(middle[f"{updates}, {size} items"])),
        ]
        for (updates, size), cost in costs.items()
    ]
    text = f"""{_NAMES[kind]} time of a training step of SASRec with sampled softmax and averaged weights, by the number
of items of a random log. `dense` moves every item embedding at every step, `lazy` those that the step names
(`train.item_updates`)."""
    return [text, table(["updates", "items", "ms a step", "to the smallest", "own data, MiB"], rows)]


def _profile(section: Section) -> list[str]:
    (one,), (rates,) = section["runs"]["profile"], section["runs"]["rates"]
    text = f"""A step on {section["dataset"]} takes {one["step_cpu"] * 1e3:.0f} ms of CPU time
({one["profiled_step_cpu"] * 1e3:.0f} ms under the profiler). The shares are of the wall time of {one["steps"]} steps
under PyTorch's profiler; an operator counts with its own kind, or else with that of the operator that called it."""
    groups = [[group, percent(share)] for group, share in one["groups"].items()]
    operators = [[f"`{name}`", percent(share)] for name, share in one["operators"].items()]
    distance = f"""The step's matrix products are {one["step_flops"] / 1e9:.2f} GFLOP by PyTorch's own count. Beside
what the machine reaches in fp32: the last column is the part of that rate which the step, all its work included,
reaches."""
    return [
        text,
        table(["kind", "share"], groups),
        "The operators that take most themselves:",
        table(["operator", "share"], operators),
        distance,
        _distance(one, rates),
    ]


def _distance(one: Section, rates: Section) -> str:
    # CPU time on a CPU, wall time on a GPU.
    step = one["step_cpu" if rates["device"] == "cpu" else "step_wall"]
    achieved = one["step_flops"] / step / 1e9
    shapes = {"product of 2048 x 2048": "square_gflops", "product of [2300, 64] x [64, 256]": "step_shape_gflops"}
    rows = [[text, f"{rates[name]:,.0f}", percent(achieved / rates[name])] for text, name in shapes.items()]
    return table(["", "GFLOP/s", "step reaches"], [["our step", f"{achieved:,.0f}", ""], *rows])


def _scale(section: Section) -> list[str]:
    one, counts = medians(section["runs"]["ours"]), section["counts"]
    text = f"""One epoch of our training over {counts["num_users"]:,} users, {counts["num_interactions"]:,} interactions
and {counts["num_items"]:,} items (random, as above) in one process. *Once* is what comes before the first step: the
index of the batches, and the first centres by k-means over all users. Validation is left out."""
    costs = (epoch_seconds(one), epoch_seconds(one, "wall"), one["before_cpu"])
    cells = [_steps(one), *map(seconds, costs), mib(one["total_mib"]), mib(one["total_mib"] - one["imported_mib"])]
    head = ["steps run", "CPU s an epoch", "wall s an epoch", "once, CPU s", "peak, MiB", "own data, MiB"]
    return [text, table(head, [cells])]


def _serving(section: Section) -> list[str]:
    middle = _medians(section)
    text = f"""One server process on one core, the {section["dataset"]} bundle, k = 10, over loopback; the load comes
from another process, whose CPU time is not the server's. At a fixed rate latency counts from the time a request was
due; *as fast as it goes* is 32 connections that ask again at once. *Plain* is `benchmarks/plain_server.py`: a
synchronous Feast call, one padded forward and a full sort for each request. *CPU ms* is the server's time for a
request, which other work on the machine disturbs least; the ratios are of that and of requests a second."""
    head = ["store, server", "requests", "failed", "requests/s", "p50 ms", "p99 ms", "CPU ms", "ratio", "ratio (CPU)"]
    rows = [_serving_cells(name, middle) for name in middle]
    return [text, table(head, rows), *_batch(section["batch"])]


def _serving_cells(name: str, middle: Mapping[str, Numbers]) -> Cells:
    one, base = middle[name], middle.get(name.replace("ours,", "plain,"))
    numbers = (one["p50_ms"], one["p99_ms"], one["server_cpu_ms"])
    ratios = ["", ""]
    if base is not None and base is not one:
        ratios = [ratio(one["per_second"], base["per_second"]), ratio(base["server_cpu_ms"], one["server_cpu_ms"])]
    counts = [f"{one['requests']:,.0f}", f"{one['failed']:,.0f}", f"{one['per_second']:,.0f}"]
    return [name, *counts, *(f"{number:.2f}" for number in numbers), *ratios]


def _batch(runs: list[Result]) -> list[str]:
    one = medians(runs)
    text = """`elcrec recommend-all`, the 20 best items of all users: the seconds that it reports (bundle verified,
histories read, encoded, ranked, written), and those of the whole command."""
    own, whole = ([run[name] for run in runs] for name in ("seconds", "command_seconds"))
    head = ["users", "seconds", "lowest to highest", "whole command"]
    cells = [f"{one['users']:,.0f}", seconds(one["seconds"]), spread(own), seconds(median(whole))]
    return ["### All users at once", text, table(head, [cells])]


def _features(section: Section) -> list[str]:
    users, middle = section["counts"]["users"], _medians(section)
    text = f"""Histories (a dozen items each), intents and vectors of {users:,} users and the statistics of
{section["counts"]["items"]:,} items, published by one process through Feast: offline files, online rows in chunks,
and a check of what is then served. *Own memory* is the process's peak less what it held before, the tables among it."""
    head = ["online store", "seconds", "users/s", "own memory, MiB", "held before, MiB"]
    rows = [
        [
            name,
            seconds(one["seconds"]),
            f"{users / one['seconds']:,.0f}",
            mib(one["peak_mib"] - one["before_mib"]),
            mib(one["before_mib"]),
        ]
        for name, one in middle.items()
    ]
    return [text, table(head, rows)]


def _faults(section: Section) -> list[str]:
    bodies, events, clicks, swap = (section[name] for name in ("bodies", "events", "clicks", "swap"))
    text = f"""One server over Redis, the {section["dataset"]} bundle. Bodies are what schemathesis makes of the
server's OpenAPI page to break it; events come shuffled, and three in ten of them twice; a click is an event and, at
once, the next recommendation; the swap is a push of another model while eight connections ask without a pause."""
    statuses = ", ".join(f"{count:,} times {status}" for status, count in bodies["statuses"].items())
    present = f"{events['present']:,} present in their places, {events['duplicates']:,} known as duplicates"
    versions = f"version {swap['before']} to {swap['after']}"
    rows = [
        ["malformed bodies", f"{bodies['sent']:,}", statuses, f"{bodies['failed']:,}"],
        ["events", f"{events['sent']:,}", present, f"{events['events'] - events['present']:,}"],
        ["clicks", f"{clicks['clicks']:,}", f"p50 {clicks['p50_ms']:.1f} ms", f"{clicks['clicks'] - clicks['seen']:,}"],
        ["requests during a swap", f"{swap['requests']:,}", versions, f"{swap['failed']:,}"],
    ]
    alive = "The server ran to the end." if section["alive"] else "The server died."
    return [text, table(["what", "sent", "came back", "failed or missing"], rows), alive]


def _components(section: Section) -> list[str]:
    middle = _medians(section)
    text = """The training pipeline on the sample log through kfp.local's SubprocessRunner; its stages as commands, a
process for each as for a component; and called one after another in one process (`elcrec run`), where nothing is
imported twice. *Over* is what a component adds to either: kfp's start, artifacts, pages and metadata."""
    head = ["component", "seconds", "as a command", "over it", "called", "over it"]
    rows = [[name, *_component_cells(one)] for name, one in middle.items()]
    compiled = seconds(median(run["seconds"] for run in section["compile"]))
    return [text, table(head, rows), f"`elcrec-pipeline compile`, the whole command: {compiled} s."]


def _component_cells(one: Numbers) -> Cells:
    others = ((one[name], one["component"] - one[name]) for name in ("command", "call"))
    return [seconds(one["component"]), *(seconds(value) for pair in others for value in pair)]


WRITERS: Mapping[str, tuple[str, Callable[[Section], list[str]]]] = {
    "train": ("Training epoch", _train),
    "rank": ("Full ranking", _rank),
    "objectives": ("Objectives", _objectives),
    "users": ("Cost by number of users", _users),
    "catalogue": ("A step by number of items", _catalogue),
    "profile": ("Where our step's time goes", _profile),
    "scale": ("A million users", _scale),
    "serving": ("Serving", _serving),
    "search": ("Exact and approximate search by number of items", serving_sections.search),
    "rules": ("Rules", serving_sections.rules),
    "faults": ("Fault injection", _faults),
    "attacks": ("Attacks", serving_sections.attacks),
    "features": ("Publishing features", _features),
    "components": ("Components of the pipeline", _components),
    "kills": ("Kills", trust_sections.kills),
    "full_disk": ("Full disks", trust_sections.full_disk),
    "custody": ("Checksums", trust_sections.custody),
    "monitor": ("The monitor", trust_sections.monitor),
    "counterfactual": ("Estimates on the log of another policy", trust_sections.counterfactual),
    "promotion": ("Tests of two versions", trust_sections.promotion),
    "rollback": ("Rollback", trust_sections.rollback),
}
"""Title and text of each section, in the order of the page."""


def _medians(section: Section) -> dict[str, Numbers]:
    return {name: medians(runs) for name, runs in section["runs"].items()}


def _steps(numbers: Numbers) -> str:
    part = f"{numbers['steps']:,.0f} of {numbers['whole']:,.0f}"
    return part if numbers["steps"] == numbers["whole"] else f"{part}, scaled"


def _clock(section: Section) -> Literal["cpu", "wall"]:
    """Return the seconds to compare: CPU seconds, or wall seconds on a GPU."""
    on_gpu = any("gpu_mib" in run for runs in section["runs"].values() for run in runs)
    return "wall" if on_gpu else "cpu"


def _has_reference(section: Section) -> bool:
    """Return whether the published code was measured on the same data, on a CPU."""
    return section["dataset"] == "beauty" and _clock(section) == "cpu"
