"""The place where a stage runs, and the place of its checkpoint."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import msgspec

from elcrec.config import EngineConfig
from elcrec.data.engine import Engine

if TYPE_CHECKING:
    from elcrec.adapters.train_nodes import Owner


def stage_on(cluster: str, processes: int = 1) -> Callable[..., dict[str, Any]]:
    """Return the stage train: on the nodes that `cluster` describes, or in one or several processes here.

    Raises:
        UserError: the description violates its schema.
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
    """Yield the engine of a stage and its input folder: on the SparkApplication that `cluster` describes, or here.

    Raises:
        UserError: the description violates its schema, or the application fails.
    """
    from elcrec.adapters.engine import open_engine

    if not cluster or config.kind != "spark" or config.master is not None:
        yield open_engine(config), given
        return
    from elcrec.adapters.spark_application import on_shared_volume, spark_connect
    from elcrec.adapters.spark_cluster import parse_spark

    spark = msgspec.structs.replace(parse_spark(cluster), owner=_owner())
    # A retry of the step in the same run finds what the previous attempt left.
    key = "/".join(os.environ.get(name, "") for name in ("ELCREC_RUN_ID", "ELCREC_STEP")) + str(given)
    shared = nullcontext((given, spark.bucket)) if spark.bucket else on_shared_volume(given, spark, key)
    with shared as (copy, spill), spark_connect(key, spark) as address:
        yield open_engine(msgspec.structs.replace(config, master=address, spill=str(spill))), copy


def _owner() -> "Owner | None":
    """Return the pod of this step."""
    from elcrec.adapters.train_nodes import Owner

    pod = {name: os.environ.get(f"KFP_POD_{name.upper()}", "") for name in ("name", "uid")}
    return Owner(**pod) if all(pod.values()) else None


@contextmanager
def checkpoint_folder(workspace: str, *key: object) -> Iterator[Path]:
    """Yield the folder of a run's checkpoint: under `workspace` one per key, else one that is deleted with the pod."""
    if workspace:
        name = hashlib.sha256(json.dumps([str(part) for part in key]).encode()).hexdigest()[:16]
        yield Path(workspace, "checkpoints", name)
    else:
        with TemporaryDirectory() as scratch:
            yield Path(scratch, "checkpoint")
