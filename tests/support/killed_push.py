"""Run as a program: push, killed by SIGKILL at a named point in a child process, then repeated without kills.

Each store is worked on by forked children, so the slow imports are paid once.
Arguments: a JSON document with the inputs' paths, a work folder, an empty registry to copy, and the points.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from feast.infra.online_stores.sqlite import SqliteOnlineStore

from elcrec.adapters.feast_store import FeastStore
from elcrec.adapters.model_registry import MlflowClient, MlflowRegistry
from elcrec.adapters.quiet import quiet
from elcrec.config import PushConfig
from elcrec.stages.push import push

# Late imports of a push, loaded before the fork so that children need not load them.
with quiet():
    for late in (
        "feast.infra.offline_stores.duckdb",
        "feast.infra.registry.sql",
        "ibis.backends.duckdb",
        "mlflow.store.model_registry.sqlalchemy_store",
        "mlflow.store.tracking.sqlalchemy_store",
        "mlflow.tracking._model_registry.utils",
        "redis.cluster",
    ):
        import_module(late)


REPOSITORY = Path(__file__).parents[2] / "features"
POINTS: dict[str, tuple[type, str]] = {
    "between upload and version": (MlflowClient, "create_model_version"),
    "while features are loaded": (SqliteOnlineStore, "online_write_batch"),
    "before the alias moves": (MlflowClient, "set_registered_model_alias"),
}


def kill_at(point: str) -> None:
    owner, name = POINTS[point]

    def kill(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, kill)


def in_child(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return os.waitpid(child, 0)[1]


def outcome(store: Path, out: Path, users: list[str]) -> dict[str, Any]:
    registry = MlflowRegistry(store / "mlflow")
    champion = registry.champion("elcrec")
    assert champion is not None
    features = FeastStore(store, REPOSITORY).users(users, service="elcrec_v1")
    return {
        "gate": json.loads((out / "gate.json").read_text()),
        "bundle": sorted(path.name for path in (out / "bundle").iterdir()),
        "champion": champion.version,
        "versions": [v.version for v in registry._client.search_model_versions("name='elcrec'")],
        "users": [[user.item_ids, user.intent, user.bundle] if user else None for user in features],
    }


def scenario(case: dict[str, Any], point: str | None) -> None:
    root = Path(case["work"]) / (point or "undisturbed").replace(" ", "-")
    store, out = root / "store", root / "push"
    shutil.copytree(case["registry"], store / "mlflow")
    model, sequences, evaluation = (Path(path) for path in case["inputs"])

    def run() -> None:
        sides = {"registry": MlflowRegistry(store / "mlflow"), "features": FeastStore(store, REPOSITORY)}
        push(PushConfig(), model, sequences, evaluation, out, **sides)

    def run_killed() -> None:
        kill_at(str(point))
        run()

    def run_in_peace() -> None:
        run()
        (root / "outcome.json").write_text(json.dumps(outcome(store, out, case["users"])))

    if point is not None:
        status = in_child(run_killed)
        assert os.WIFSIGNALED(status), f"{point}: the push was not killed"
        assert os.WTERMSIG(status) == signal.SIGKILL
    assert in_child(run_in_peace) == 0


def main() -> None:
    case = json.loads(sys.argv[1])
    for point in case["points"]:
        scenario(case, point)


if __name__ == "__main__":
    main()
