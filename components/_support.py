"""What component bodies share: their section of the configuration, and what they write down."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import msgspec

from elcrec import __version__
from elcrec.artifacts import code_revision, md5_of
from elcrec.config import Config, EngineConfig, NextItemConfig, Section, merge, parse_config, parse_part, to_dict
from elcrec.data.engine import Engine
from elcrec.errors import UserError
from elcrec.masking import mask
from elcrec.registry import OBJECTIVES
from elcrec.serving.bundle import verify_bundle
from elcrec.serving.ports import ModelRegistry

if TYPE_CHECKING:
    from elcrec.adapters.train_nodes import Owner

SECTIONS = {"baseline": "train"}
_WITHOUT_COMPONENT = {"serve", "stream", "promote"}
"""Sections of what runs beside a pipeline: the servers, and the decision about what they show."""
LINEAGE = ("data_md5", "data_location", "data_version", "dvc_repository", "dvc_revision", "dvc_path")
"""What artifacts say of the raw log that they were made from; where it came from an object or a DVC
repository, which version of it."""


def read_section(component: str, text: str) -> Any:
    """Parse the JSON of one section, such as `{"epochs": 5}` for `train`, into its checked type.

    Raises:
        UserError: a key is unknown, or a value has the wrong type or range.
    """
    name = SECTIONS.get(component, component)
    return parse_part(name, msgspec.json.decode(text), source=f"component {component}")


PARAMETERS = {
    "dataset": "fetch.dataset",
    "file_location": "fetch.file.path",
    "objective": "train.objective",
    "loss": "train.next_item.loss",
    "num_intents": "train.intents.num_intents",
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
    "learning_rate": "train.learning_rate",
    "seed": "train.seed",
    "min_ndcg": "push.gate.floors.ndcg@20",
    "max_regression": "push.gate.max_regression",
}
"""A run's own parameters, and the field that each replaces."""


def values_of(config: Config) -> dict[str, Any]:
    """Return what each of `PARAMETERS` has in a configuration; a floor that it does not have is 0."""
    values = {}
    for name, path in PARAMETERS.items():
        value: Any = to_dict(config)
        for key in path.split("."):
            value = value.get(key, 0.0)
        values[name] = value
    return values


def choices_of(config: Config) -> dict[str, list[str]]:
    """Return the values that some of `PARAMETERS` may have, where they are few."""
    return {
        "dataset": ["sample", "file", *config.fetch.sources],
        "objective": [*dict.fromkeys((*OBJECTIVES, config.train.objective))],
        "loss": [*get_args(get_type_hints(NextItemConfig)["loss"])],
    }


def apply(defaults: str, parameters: Mapping[str, object], overrides: str) -> Config:
    """Lay some of `PARAMETERS`, then a JSON object of sections, over the JSON of all sections.

    Raises:
        UserError: `overrides` is not a JSON object, or the result breaks the schema.
    """
    try:
        changes = msgspec.json.decode(overrides, type=dict[str, Any])
    except (msgspec.DecodeError, ValueError) as error:
        fix = 'write e.g. {"train": {"epochs": 5}}'
        raise UserError(f"not a JSON object ({error})", where="parameter overrides", fix=fix) from error
    document = msgspec.json.decode(defaults)
    for name, value in parameters.items():
        document = merge(document, _nested(PARAMETERS[name], value))
    return parse_config(merge(document, changes), source="pipeline parameters")


def _nested(path: str, value: object) -> dict[str, Any]:
    head, _, rest = path.partition(".")
    return {head: _nested(rest, value) if rest else value}


def write_sections(config: Config) -> dict[str, str]:
    """Return the JSON of every component's section, by component."""
    sections = {name: getattr(config, name) for name in config.__struct_fields__ if name not in _WITHOUT_COMPONENT}
    sections["baseline"] = config.train.as_baseline()
    return {name: write_section(section) for name, section in sections.items()}


def write_section(section: Section) -> str:
    """Return a section as one line of JSON."""
    return msgspec.json.encode(to_dict(section)).decode()


def describe(*artifacts: Any, config: str, file: str = "", source: Any = None, **facts: str) -> None:
    """Record on KFP artifacts which data, parameters, code and image made them.

    An artifact that is a file or folder also gets the md5 of its bytes and the parameters in full.

    Args:
        artifacts: Outputs of one component; none of them metrics, as the UI shows all that these carry in the table by
            which people compare runs.
        config: JSON of the component's parameters.
        file: The main file of those that are folders.
        source: The input whose data they were made from; what it says of the log is handed on.
        facts: What else is to be known; of an output that holds the log itself, some of `LINEAGE`.
    """
    known = {name: source.metadata[name] for name in LINEAGE if source is not None and name in source.metadata}
    common = {
        "image": os.environ.get("ELCREC_IMAGE", "unknown"),
        "git_revision": code_revision() or "unknown",
        "elcrec_version": __version__,
        "params_md5": hashlib.md5(config.encode(), usedforsecurity=False).hexdigest(),
    }
    for artifact in artifacts:
        said = common | known | facts | _bytes_of(Path(artifact.path), file, config)
        artifact.metadata.update({name: mask(text) for name, text in said.items()})


def _bytes_of(path: Path, file: str, config: str) -> dict[str, str]:
    if path.is_dir():
        return {"md5": md5_of(path / file), "file": file, "params": config}
    return {"md5": md5_of(path), "params": config} if path.is_file() else {}


def run_facts(name: str = "") -> dict[str, str]:
    """Return what is known of the run that this step belongs to: id, name, namespace, and link where there is a UI."""
    run, ui = os.environ.get("ELCREC_RUN_ID", ""), os.environ.get("ELCREC_UI", "")
    link = f"{ui}/#/runs/details/{run}" if run and ui else ""
    facts = {"id": run, "name": name, "namespace": os.environ.get("ELCREC_NAMESPACE", ""), "link": link}
    return {key: value for key, value in facts.items() if value}


def log(metrics: Any, values: Mapping[str, object]) -> None:
    """Log the finite numbers among `values` as KFP metrics; the rest, a yes or no too, has no place there."""
    for name, value in values.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            metrics.log_metric(name, float(value))


def publish(source: Path, artifact: Any) -> None:
    """Copy one file to the place of a KFP artifact that is a single page."""
    shutil.copyfile(source, artifact.path)


def publish_page(source: Path, artifact: Any) -> None:
    """Copy a page that the configuration may leave out; then the artifact says so."""
    if source.is_file():
        publish(source, artifact)
    else:
        Path(artifact.path).write_text("<p>No page was asked for, or there was nothing to show.</p>", encoding="utf-8")


def read_users(text: str) -> list[str] | None:
    """Read a JSON list of raw ids; `None`, which is all, of nothing.

    Raises:
        UserError: it is something else.
    """
    try:
        return msgspec.json.decode(text, type=list[str]) if text else None
    except (msgspec.DecodeError, ValueError) as error:
        fix = 'write e.g. ["u1", "u2"], or nothing for all'
        raise UserError(f"not a JSON list of ids ({error})", where="parameter users", fix=fix) from error


def read_count(k: int) -> int:
    """Return how many items to recommend; only the model knows whether it has as many.

    Raises:
        UserError: it is not positive.
    """
    if k < 1:
        raise UserError(f"{k} is not positive", where="parameter k", fix="ask for at least one item")
    return k


def name_champion(registry: ModelRegistry, name: str) -> str:
    """Return `NAME@DIGEST` of the champion, or nothing where there is none."""
    found = registry.champion(name)
    return f"{name}@{verify_bundle(found.bundle).digest}" if found else ""


def find_champion(registry: ModelRegistry, reference: str) -> Path:
    """Return the bundle that `name_champion` named.

    Raises:
        UserError: another model is the champion by now.
    """
    name, _, digest = reference.rpartition("@")
    found = registry.champion(name)
    if found is None or verify_bundle(found.bundle).digest != digest:
        raise UserError(f"the champion of {name!r} has changed", where="warm start", fix="start the run again")
    return found.bundle


def stage_on(cluster: str, processes: int = 1) -> Callable[..., dict[str, Any]]:
    """Return the stage train: on the nodes that `cluster` describes, or here in one process or several.

    Raises:
        UserError: the description breaks its schema.
    """
    if cluster:
        from elcrec.adapters.train_nodes import parse_nodes
        from elcrec.adapters.trainer import train_on_nodes

        return partial(train_on_nodes, nodes=msgspec.structs.replace(parse_nodes(cluster), owner=_owner()))
    if processes > 1:
        from elcrec.adapters.trainer import train_in_processes

        return partial(train_in_processes, processes=processes)
    from elcrec.stages.train import train

    return train


@contextmanager
def engine_on(cluster: str, config: EngineConfig, given: Path) -> Iterator[tuple[Engine, Path]]:
    """Yield the engine of a stage and the folder it reads: on the SparkApplication that `cluster` describes, or here.

    Raises:
        UserError: the description breaks its schema, or the application fails.
    """
    from elcrec.adapters.engine import open_engine

    if not cluster or config.kind != "spark" or config.master is not None:
        yield open_engine(config), given
        return
    from elcrec.adapters.spark_application import on_shared_volume, spark_connect
    from elcrec.adapters.spark_cluster import parse_spark

    spark = msgspec.structs.replace(parse_spark(cluster), owner=_owner())
    # A step that is tried again in the same run finds what the attempt before has left.
    key = "/".join(os.environ.get(name, "") for name in ("ELCREC_RUN_ID", "ELCREC_STEP")) + str(given)
    with on_shared_volume(given, spark, key) as (copy, work), spark_connect(key, spark) as address:
        yield open_engine(msgspec.structs.replace(config, master=address, spill=str(work))), copy


def _owner() -> "Owner | None":
    """Return the pod of this step."""
    from elcrec.adapters.train_nodes import Owner

    pod = {name: os.environ.get(f"KFP_POD_{name.upper()}", "") for name in ("name", "uid")}
    return Owner(**pod) if all(pod.values()) else None


@contextmanager
def checkpoint_folder(workspace: str, *key: object) -> Iterator[Path]:
    """Yield the folder of a run's checkpoint: under `workspace` one for each key, else one that goes with the pod."""
    if workspace:
        name = hashlib.sha256(json.dumps([str(part) for part in key]).encode()).hexdigest()[:16]
        yield Path(workspace, "checkpoints", name)
    else:
        with TemporaryDirectory() as scratch:
            yield Path(scratch, "checkpoint")
