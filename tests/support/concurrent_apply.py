"""Run as a program: forked children apply Feast repositories to one registry at the same moment.

Arguments: a JSON document with the store, the repositories and the registry's URL (or null).
"""

import json
import os
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path

from elcrec.adapters.feast_config import Servers
from elcrec.adapters.feast_store import FeastStore
from elcrec.adapters.quiet import quiet

with quiet():
    for late in ("feast.infra.registry.sql", "feast.infra.offline_stores.duckdb"):
        import_module(late)


def apply(store: Path, repository: Path, url: str | None, start: float) -> None:
    feature_store = FeastStore(store, repository, Servers(registry=url))
    time.sleep(max(0.0, start - time.monotonic()))
    feature_store._apply(feature_store._open())


def main() -> None:
    case = json.loads(sys.argv[1])
    start, children = time.monotonic() + 0.5, []
    for repository in case["repositories"]:
        child = os.fork()
        if child == 0:
            try:
                apply(Path(case["store"]), Path(repository), case["registry"], start)
                os._exit(0)
            finally:
                traceback.print_exc()
                os._exit(1)  # a child must never continue the parent's code
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    sys.exit(any(statuses))


if __name__ == "__main__":
    main()
