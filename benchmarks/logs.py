"""The logs of the benchmarks: a named data set through the pipeline's stages, or a random log of any size."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.runner import ROOT, elcrec, say
from elcrec.artifacts import write_json

_SECOND = 1_000_000
_FEWEST = 5
_ZIPF_EXPONENT = 0.8


def presets_of(dataset: str) -> tuple[str, ...]:
    """Return the presets of a data set, the paper's first; the sample has none."""
    paper, preset = (ROOT / "presets" / f"{name}.yaml" for name in ("paper", dataset))
    return (str(paper), str(preset)) if preset.is_file() else ()


def prepare(dataset: str, params: str, folder: Path, mirror: Path | None) -> Path:
    """Fetch, validate and build the sequences of a named set; return the sequences folder."""
    say(f"preparing {dataset} …")
    options = ["--params", params, "--set", f"fetch.dataset={dataset}"]
    raw, validated, out = (str(folder / name) for name in ("raw", "validated", "sequences"))
    elcrec("fetch", *options, "--out", raw, environment={} if mirror is None else {"ELCREC_MIRROR": str(mirror)})
    elcrec("validate", *options, "--raw", raw, "--out", validated, "--accepted", str(folder / "accepted"))
    elcrec("sequences", *options, "--interactions", validated, "--out", out)
    return Path(out)


def synthesise(folder: Path, *, users: int, items: int, mean_length: float = 9.0, seed: int = 1) -> Path:
    """Write a random log as the validate stage would, and build its sequences; return the sequences folder.

    Lengths are 4 plus a geometric number, items follow Zipf's law with exponent 0.8.
    """
    say(f"making a log of {users:,} users …")
    generator = np.random.default_rng(seed)
    lengths = _FEWEST - 1 + generator.geometric(1 / (mean_length - _FEWEST + 1), users)
    popularity = np.cumsum(np.arange(1, items + 1) ** -_ZIPF_EXPONENT)
    drawn = np.searchsorted(popularity, generator.random(lengths.sum()) * popularity[-1])
    position = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
    table = pa.table(
        {
            "user_id": pa.array(np.repeat(np.arange(users), lengths)).cast(pa.string()),
            "item_id": pa.array(drawn).cast(pa.string()),
            "timestamp": pa.array((position + 1) * _SECOND).cast(pa.timestamp("us", tz="UTC")),
        }
    )
    validated, out = folder / "validated", folder / "sequences"
    validated.mkdir(parents=True)
    pq.write_table(table, validated / "interactions.parquet")
    write_json(validated / "validation.json", {"time": "order"})
    elcrec("sequences", "--interactions", str(validated), "--out", str(out))
    return out
