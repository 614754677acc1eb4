"""`python -m benchmarks.mutations`: alter the artifacts between the stages, and count which changes are noticed.

Each trial alters one file of one folder (a bit, a byte, the end, a field, a whole file) and runs the stage that reads
it. Expected is an error of one line, or the same result as that of the undisturbed run; another result or a traceback
is a fault.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elcrec.adapters.engine import open_engine
from elcrec.artifacts import sha256_of
from elcrec.config import (
    Config,
    EncoderConfig,
    EngineConfig,
    EvaluateConfig,
    FetchConfig,
    IntentConfig,
    SequencesConfig,
    SyntheticConfig,
    TrainConfig,
    ValidateConfig,
)
from elcrec.custody import CHECKSUMS
from elcrec.errors import UserError
from elcrec.process import set_up_process
from elcrec.serving.ports import FeatureStore, ModelRegistry
from elcrec.stages.evaluate import evaluate
from elcrec.stages.fetch import fetch
from elcrec.stages.push import decide
from elcrec.stages.sequences import build_sequences
from elcrec.stages.train import train
from elcrec.stages.validate import validate

CONFIG = Config(
    fetch=FetchConfig(dataset="sample", synthetic=SyntheticConfig(users=120, items=60, intents=4)),
    validate=ValidateConfig(min_rows=10),
    sequences=SequencesConfig(),
    train=TrainConfig(
        encoder=EncoderConfig(window=8, hidden_size=8, num_blocks=1),
        intents=IntentConfig(num_intents=3),
        epochs=1,
        device="cpu",
    ),
    evaluate=EvaluateConfig(bootstrap=10),
)
READS: Mapping[str, Sequence[str]] = {
    "validate": ("raw/source.json", "raw/data.csv"),
    "sequences": ("validated/validation.json", "validated/interactions.parquet"),
    "train": ("sequences/split.json", "sequences/sequences.parquet", "sequences/items.parquet"),
    "evaluate": (
        *("model/config.json", "model/model.safetensors", "model/history.csv"),
        *("sequences/split.json", "sequences/sequences.parquet", "sequences/items.parquet"),
        *("raw/source.json", "raw/truth_items.parquet", "raw/truth_users.parquet"),
    ),
    "push": (
        *("model/config.json", "model/model.safetensors"),
        *("sequences/split.json", "sequences/sequences.parquet", "sequences/items.parquet"),
        *("sequences/histories.parquet", "evaluation/metrics.json", "evaluation/ranks.parquet"),
        *("evaluation/intents.json", "evaluation/model_card.md", "evaluation/rules.json"),
    ),
}
"""What each stage reads."""
_REFUSED, _SAME, _OTHER, _TRACEBACK = "refused in a line", "the same result", "another result", "traceback"
_WRONG = (_OTHER, _TRACEBACK)
_SLOW = {"validate": 0.1, "sequences": 0.6}
"""Share of the trials of slow stages, which do much work before they can notice a change; 1 by default."""


@dataclass(frozen=True, kw_only=True)
class Try:
    """An alteration and its result."""

    stage: str
    file: str
    kind: str
    outcome: str
    said: str


class _Nothing:
    """An empty registry and feature store."""

    def champion(self, _: str) -> None:
        """There is none."""

    def versions(self, _: str) -> list[str]:
        """There are none."""
        return []

    def rejected(self, *_: str) -> None:
        """Nothing was rejected."""

    def schema(self, _: str) -> str:
        """Return one for every service."""
        return "schema"


def main(arguments: Sequence[str] | None = None) -> int:
    """Try a number of alterations and print the results; return 1 if one was not noticed."""
    parser = argparse.ArgumentParser(prog="benchmarks.mutations", description="Alter artifacts between the stages.")
    parser.add_argument("--tries", type=int, default=2000, metavar="N", help="(default 2000)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="(default 1)")
    options = parser.parse_args(arguments)
    set_up_process()
    with tempfile.TemporaryDirectory() as folder:
        tries = list(run(Path(folder), options.tries, options.seed))
    sys.stdout.write("\n".join(_report(tries)) + "\n")
    return int(any(each.outcome in _WRONG for each in tries))


def run(folder: Path, count: int, seed: int) -> Iterator[Try]:
    """Create the artifacts once in `folder`, then alter them one at a time and yield the results."""
    whole, draws = folder / "whole", random.Random(seed)
    for stage in READS:
        _run_before(stage, whole)
    expected = {stage: _result(stage, whole, folder / "out") for stage in READS}
    weights = [_SLOW.get(stage, 1.0) * len(READS[stage]) for stage in READS]
    for number in range(count):
        (stage,) = draws.choices(list(READS), weights)
        file, kind = _draw(draws, stage, number)
        yield _try(stage, file, kind, whole, expected[stage], draws)
        shutil.rmtree(folder / "whole.altered")


def _draw(draws: random.Random, stage: str, number: int) -> tuple[str, str]:
    folders = sorted({file.split("/")[0] for file in READS[stage]})
    file = draws.choice([*READS[stage], *(f"{folder}/{CHECKSUMS}" for folder in folders)])
    fitting = [name for name in KINDS if name != "field" or file.endswith(".json")]
    return file, fitting[number % len(fitting)]


def _try(stage: str, file: str, kind: str, whole: Path, expected: object, draws: random.Random) -> Try:
    altered = whole.with_name("whole.altered")
    shutil.copytree(whole, altered, copy_function=os.link)
    path = altered / file
    content = KINDS[kind](path.read_bytes(), draws)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    outcome, said = _SAME, ""
    try:
        if _result(stage, altered, altered / "out") != expected:
            outcome = _OTHER
    except UserError as error:
        outcome, said = _REFUSED, str(error)
    except Exception as error:  # noqa: BLE001 - any exception is counted
        outcome, said = _TRACEBACK, repr(error)
    return Try(stage=stage, file=file, kind=kind, outcome=outcome, said=said)


def _run_before(stage: str, work: Path) -> None:
    """Create the inputs of a stage that no earlier stage has made."""
    if stage == "validate":
        fetch(CONFIG.fetch, work / "raw")
    else:
        _run({"sequences": "validate", "train": "sequences", "evaluate": "train", "push": "evaluate"}[stage], work)


_OUTPUTS = {"validate": "validated", "sequences": "sequences", "train": "model", "evaluate": "evaluation"}


def _run(stage: str, work: Path, out: Path | None = None) -> None:
    out = out or work / _OUTPUTS[stage]
    engine = open_engine(EngineConfig(memory_mb=256))
    if stage == "validate":
        validate(CONFIG.validate, work / "raw", out, engine=engine)
    elif stage == "sequences":
        build_sequences(CONFIG.sequences, work / "validated", out, engine=engine)
    elif stage == "train":
        train(CONFIG.train, work / "sequences", out, checkpoint=out.with_name("checkpoint"))
    else:
        evaluate(CONFIG.evaluate, work / "model", work / "sequences", out, truth=work / "raw")


def _result(stage: str, work: Path, out: Path) -> object:
    """Run a stage; return the part of its result that must not change."""
    if stage == "push":
        nothing: Any = _Nothing()
        registry: ModelRegistry = nothing
        features: FeatureStore = nothing
        inputs = (work / "model", work / "sequences", work / "evaluation")
        return decide(CONFIG.push, *inputs, registry=registry, features=features).document()
    _run(stage, work, out)
    return sha256_of(out / CHECKSUMS)


def _bit(content: bytes, draws: random.Random) -> bytes:
    place = draws.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << draws.randrange(8)]) + content[place + 1 :]


def _zeros(content: bytes, draws: random.Random) -> bytes:
    place, length = draws.randrange(len(content)), draws.randrange(1, 512)
    return content[:place] + bytes(len(content[place : place + length])) + content[place + length :]


def _cut(content: bytes, draws: random.Random) -> bytes:
    return content[: draws.randrange(len(content))]


def _longer(content: bytes, draws: random.Random) -> bytes:
    return content + draws.randbytes(draws.randrange(1, 64))


def _swapped(content: bytes, draws: random.Random) -> bytes:
    place = draws.randrange(len(content))
    return content[place:] + content[:place]


def _gone(_: bytes, __: random.Random) -> None:
    return None


def _field(content: bytes, draws: random.Random) -> bytes:
    """Edit a JSON document as by hand: another number, another type, or one field less."""
    document = json.loads(content)
    holder = document
    while nested := [value for value in holder.values() if isinstance(value, dict) and value]:
        if draws.random() < 1 / 2:
            break
        holder = draws.choice(nested)
    name = draws.choice(list(holder))
    edited: list[object] = [0.9, -1, None, "text", [], {}, True, 1e308]
    holder[name] = draws.choice(edited)
    if draws.random() < 1 / 4:
        del holder[name]
    return json.dumps(document, indent=2).encode()


KINDS: Mapping[str, Callable[[bytes, random.Random], bytes | None]] = {
    "bit": _bit,
    "field": _field,
    "zeros": _zeros,
    "cut": _cut,
    "longer": _longer,
    "swapped": _swapped,
    "gone": _gone,
}


def _report(tries: Sequence[Try]) -> Iterator[str]:
    of = Counter((each.stage, each.outcome) for each in tries)
    outcomes = (_REFUSED, _SAME, *_WRONG)
    yield f"{'stage':<12}" + "".join(f"{name:>20}" for name in outcomes)
    for stage in READS:
        yield f"{stage:<12}" + "".join(f"{of[stage, name]:>20}" for name in outcomes)
    total = Counter(each.outcome for each in tries)
    yield f"{'all':<12}" + "".join(f"{total[name]:>20}" for name in outcomes)
    for each in tries:
        if each.outcome in _WRONG:
            yield f"{each.outcome}: {each.stage} took {each.file} ({each.kind}) {each.said}"


if __name__ == "__main__":
    sys.exit(main())
