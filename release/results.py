"""Keep docs/RESULTS.md: `python -m release.results --run artifacts --preset paper --device "2 CPU cores"`.

The rows are in results.json beside it, one per (data set, preset, objective, seed); the page is rendered from them and
never edited by hand.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from elcrec.artifacts import MEASURED, SCHEMA_VERSION, atomic_file, read_json, write_json
from elcrec.errors import UserError
from elcrec.evaluation.metrics import CUTOFFS

METRICS = tuple(f"{name}@{k}" for name in ("hr", "ndcg") for k in CUTOFFS)
FACTS = ("effective_intents", "largest_intent_share", "kept_intent_share")
DELTA = ("delta_ndcg@20", "delta_ndcg@20_low", "delta_ndcg@20_high")
KEY = ("dataset", "preset", "objective", "seed")
Row = dict[str, Any]

_HEAD = """# Results

Test split, ranking over all items, the history excluded, ties against the target. Written by
`python -m release.results`; the rows are in results.json.

- *published*: the figures of Liu et al. (NeurIPS 2024), which names no cutoff of 10, and the best test figures in the
  log files that the authors of KERec publish with their code, the best that we found anywhere at this model size
- *of published*: NDCG@20 and HR@20 in percent of the published row: for the preset `paper` that of the same objective,
  for `best` that of KERec
- *mean*: mean ± standard deviation of the seeds; *less one deviation*: the same percentages for the mean minus one
  standard deviation
- *by intents*: NDCG@20 above the same model without intents (objective `sasrec`: neither centres nor spread), user by
  user, with its 95 % interval
- *effective*: the effective number of intents; *largest*: the share of the users in the largest one; *kept*: the share
  of the users whose last item did not change their intent

`best` adds to the products of vectors of 64 numbers what is not in vectors: the 20 strongest neighbours and followers
of each item, and its popularity. An item then has 580 bytes; its vector alone has 256. What else was tried for `best`,
and did not help, is in the records of decisions [18](adr/0018-intents-of-items.md),
[19](adr/0019-targets-count-by-their-probability.md), [20](adr/0020-neighbours-beside-vectors.md),
[21](adr/0021-counts-add-to-scores.md) and [22](adr/0022-items-share-with-similar-ones.md).
"""
_UNMASKED = tuple(f"unmasked_{name}" for name in ("hr@5", "hr@20", "ndcg@5", "ndcg@20"))
_PUBLISHED = {
    ("paper", "elcrec"): "ELCRec, published",
    ("paper", "iclrec"): "ICLRec, published",
    ("paper", "sasrec"): "SASRec (BCE), published",
    ("best", "elcrec2"): "KERec, from its logs",
}
_COLUMNS = (
    *("run", "seed", "epochs (best)", *METRICS, "of published"),
    *("by intents", "effective", "largest", "kept", "minutes", "device", "command"),
)
_COMPARED = ("run", "seed", "epochs (best)", "hr@20", "ndcg@20", "difference", "minutes", "device", "command")


def main(arguments: Sequence[str] | None = None) -> int:
    """Add one run to the results, or replace its earlier row; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        row = read_row(options.run, preset=options.preset, device=options.device, command=options.command)
        record(row | ({"against": options.against} if options.against else {}), options.docs)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def read_row(run: Path, *, preset: str, device: str, command: str) -> Row:
    """Gather a row from the folders `raw`, `model` and `evaluation` of a run.

    Raises:
        UserError: a stage has not run, or the evaluation lacks the required numbers.
    """
    source, config = read_json(run / "raw" / "source.json"), read_json(run / "model" / "config.json")
    metrics = read_json(run / "evaluation" / "metrics.json")
    measured = run / "model" / MEASURED
    try:
        return {
            "dataset": source["dataset"],
            "preset": preset,
            "objective": config["train"]["objective"],
            "seed": config["train"]["seed"],
            "epochs": config["epochs"],
            "best_epoch": config["best_epoch"],
            **{name: round(metrics[name], 6) for name in METRICS},
            **{name: round(metrics[name], 6) for name in _UNMASKED if name in metrics},
            **{name: round(metrics[name], 4) for name in FACTS if name in metrics},
            **{name: round(metrics[name], 6) for name in DELTA if name in metrics},
            "minutes": round((read_json(measured) if measured.is_file() else config)["seconds"] / 60, 1),
            "device": device,
            "command": command,
            "git_revision": config.get("git_revision"),
        }
    except KeyError as error:
        raise UserError(f"the run has no {error}", where=run, fix="run its stages again") from error


def record(row: Row, docs: Path) -> None:
    """Replace the row with the same key by `row`, or append it; render the page again.

    Args:
        row: the result of `read_row`.
        docs: the folder of RESULTS.md and results.json.
    """
    path = docs / "results.json"
    rows: list[Row] = read_json(path)["rows"] if path.is_file() else []
    kept = [old for old in rows if key_of(old) != key_of(row)]
    rows = sorted([*kept, row], key=key_of)
    write_json(path, {"schema_version": SCHEMA_VERSION, "rows": rows})
    with atomic_file(docs / "RESULTS.md") as temporary:
        temporary.write_text(render(rows), encoding="utf-8")


def key_of(row: Row) -> tuple[str, ...]:
    """Return the key of a row, the same for repetitions of a run."""
    return tuple(str(row[name]) for name in KEY)


def render(rows: Sequence[Row]) -> str:
    """Return the page: one table per data set, with the published rows first."""
    known = published()
    parts = [_HEAD]
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        cited = [{"run": name, **metrics} for name, metrics in known.get(dataset, {}).items()]
        own = [row for row in rows if row["dataset"] == dataset and "against" not in row]
        cells = [_cells(row, known.get(dataset, {})) for row in own]
        means = _means(own, known.get(dataset, {}))
        parts += [f"## {dataset}\n", _table([*map(_formatted, cited), *cells, *means], _COLUMNS)]
        parts += _compared([row for row in rows if row["dataset"] == dataset and "against" in row])
        parts += _left_in(own)
    return "\n".join(parts)


def published() -> dict[str, dict[str, dict[str, float]]]:
    """Return data set -> model -> metric -> the published figure."""
    document = Path(__file__).with_name("published.json").read_bytes()
    return msgspec.json.decode(document, type=dict[str, dict[str, dict[str, float]]])


def _means(rows: Sequence[Row], cited: Mapping[str, Mapping[str, float]]) -> list[dict[str, str]]:
    """Return a mean row for each preset and objective that ran with several seeds."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["preset"], row["objective"]), []).append(row)
    return [_mean(group, cited) for group in groups.values() if len(group) > 1]


def _mean(group: Sequence[Row], cited: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    values = {name: [row[name] for row in group] for name in METRICS}
    mean = group[0] | {name: statistics.mean(each) for name, each in values.items()}
    deviations = {name: statistics.stdev(each) for name, each in values.items()}
    less = group[0] | {name: mean[name] - deviations[name] for name in METRICS}
    shares = _of_published(mean, cited)
    return {
        "run": f"{mean['preset']}, {mean['objective']}, mean",
        "seed": f"{len(group)} seeds",
        "of published": shares and f"{shares}; less one deviation {_of_published(less, cited)}",
    } | {name: f"{mean[name]:.4f} ± {deviations[name]:.4f}" for name in METRICS}


def _compared(rows: Sequence[Row]) -> list[str]:
    """Return the tables of the runs that were evaluated beside the model of another preset, one for each of these."""
    parts = []
    for against in dict.fromkeys(row["against"] for row in rows):
        cells = [_cells(row, {}) | {"difference": _difference(row)} for row in rows if row["against"] == against]
        text = (
            f"Beside `{against}` of the same seed, from the same trainer. *Difference* is in NDCG@20, user by user:\n"
        )
        parts += [text, _table(cells, _COMPARED)]
    return parts


def _left_in(rows: Sequence[Row]) -> list[str]:
    """Return the table of the other protocol, if it differs: targets in the history are ranked too."""
    repeated = [row for row in rows if _UNMASKED[0] in row]
    if not repeated:
        return []
    names = [name.removeprefix("unmasked_") for name in _UNMASKED]
    cells = [
        {"run": f"{row['preset']}, {row['objective']}", "seed": str(row["seed"])}
        | {name: f"{row[f'unmasked_{name}']:.4f}" for name in names}
        for row in repeated
    ]
    text = "Some targets are repeats, which a ranking without the history can never hit. With the history left in:\n"
    return [text, _table(cells, ("run", "seed", *names))]


def _of_published(row: Row, cited: Mapping[str, Mapping[str, float]]) -> str:
    theirs = cited.get(_PUBLISHED.get((row["preset"], row["objective"]), ""))
    return "" if theirs is None else " / ".join(f"{row[name] / theirs[name]:.1%}" for name in ("ndcg@20", "hr@20"))


def _cells(row: Row, cited: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    return _formatted(row) | {
        "run": f"{row['preset']}, {row['objective']}",
        "seed": str(row["seed"]),
        "of published": _of_published(row, cited),
        "epochs (best)": f"{row['epochs']} ({row['best_epoch']})",
        "effective": f"{row['effective_intents']:.1f}" if "effective_intents" in row else "",
        "by intents": _by_intents(row),
        "largest": _percent(row.get("largest_intent_share")),
        "kept": _percent(row.get("kept_intent_share")),
        "minutes": f"{row['minutes']:.1f}",
        "command": f"`{row['command']}`" if row["command"] else "",
    }


def _by_intents(row: Row) -> str:
    return "" if row["objective"] == "sasrec" else _difference(row)


def _difference(row: Row) -> str:
    if DELTA[0] not in row:
        return ""
    mean, low, high = (f"{row[name]:+.4f}" for name in DELTA)
    return f"{mean} ({low} to {high})"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _formatted(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: f"{row[name]:.4f}" if name in METRICS else str(row[name]) for name in _COLUMNS if name in row}


def _table(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> str:
    lines = [" | ".join(name.upper() if name in METRICS else name for name in columns)]
    lines.append("|".join("-" for _ in columns))
    lines += [" | ".join(row.get(name, "") for name in columns) for row in rows]
    return "".join(f"| {line} |\n" for line in lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m release.results", description="Add a run to docs/RESULTS.md.")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="the folder of raw, model, evaluation")
    parser.add_argument("--preset", required=True, help="name of the settings, such as paper")
    parser.add_argument("--against", metavar="PRESET", help="the run's baseline, if it is a model of another preset")
    parser.add_argument("--device", default="", help="the machine, in words")
    parser.add_argument("--command", default="", help="the command that gives this row")
    parser.add_argument("--docs", type=Path, default=Path("docs"), metavar="DIR", help="(default docs)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
