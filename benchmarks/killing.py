"""Child processes to kill: forked from a parent that has imported everything, each the leader of a process group."""

import logging
import os
import random
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.machine import cpu_of
from elcrec.adapters.quiet import quiet
from elcrec.errors import UserError

Work = Callable[[], int | None]
"""Work of a child: returns the exit status, or `None` for success."""

LATE = (
    *("torch.optim", "torch._dynamo", "great_expectations", "great_expectations.expectations.core"),
    *("elcrec.run", "elcrec.stages.events", "elcrec.serving.server"),
    *("elcrec.adapters.model_registry", "elcrec.adapters.feast_store"),
    *("mlflow.store.model_registry.sqlalchemy_store", "mlflow.store.tracking.sqlalchemy_store"),
    *("mlflow.tracking._model_registry.utils", "feast.infra.registry.sql", "feast.infra.online_stores.sqlite"),
    *("feast.infra.offline_stores.duckdb", "ibis.backends.duckdb", "redis.cluster", "uvloop", "alembic.command"),
    *("feast.infra.passthrough_provider", "feast.infra.compute_engines.local.compute", "feast.infra.utils.aws_utils"),
    *(f"feast.infra.online_stores.{name}_online_store" for name in ("milvus", "mysql", "postgres")),
    *("feast.infra.online_stores.dynamodb", "elcrec.training.terms.cluster", "rich.progress"),
    *("mlflow.store.tracking.sqlalchemy_workspace_store", "mlflow.store.model_registry.sqlalchemy_workspace_store"),
)
"""Modules that the pipeline imports late; they are imported in the parent, so that children need not wait."""
_PAUSE = 0.02
_LONGEST_LIFE = 300.0
"""Seconds after which a child counts as hanging."""
_LONGEST_LOOK = 0.02
"""Longest time between two checks of a child's CPU time; drawn at random, as the system counts in fixed steps."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "fcntl.flock"})
"""Audit events that change files, besides those that open one for writing."""


@dataclass(frozen=True, kw_only=True)
class Kill:
    """When a process group is killed.

    Attributes:
        after: CPU seconds of its leader, which are independent of other work on the machine.
        event: at the file or database event of this number, from 1.
    """

    after: float | None = None
    event: int | None = None


@dataclass(frozen=True, kw_only=True)
class End:
    """How a child ended.

    Attributes:
        killed: whether by SIGKILL.
        fault: its last output, if it failed.
        seconds: CPU seconds that it used.
        events: number of its file and database events; 0 if it was killed.
    """

    killed: bool = False
    fault: str = ""
    seconds: float = 0.0
    events: int = 0


def import_late_modules() -> None:
    """Import the modules that children need."""
    with quiet():
        for name in LATE:
            import_module(name)


class Child:
    """A running child, and the process that kills it after a time, if it is to be killed."""

    def __init__(self, work: Work, log: Path, kill: Kill | None = None) -> None:
        """Start `work` in a child whose output goes to `log`."""
        self._log, self._counted = log, log.with_suffix(".events")
        self._counted.unlink(missing_ok=True)
        self.pid = _fork(lambda: self._run(work, kill))
        self._killer = None
        if kill is not None and kill.after is not None:
            after = kill.after
            self._killer = _fork(lambda: _kill_later(self.pid, after))

    def lives(self, grace: float = 0.0) -> bool:
        """Return whether it is still running after some seconds."""
        until = time.monotonic() + grace
        while os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() >= until:
                return True
            time.sleep(_PAUSE)
        return False

    def stop(self) -> None:
        """Ask it to end."""
        os.kill(self.pid, signal.SIGTERM)

    def end(self) -> End:
        """Wait until it ends; end it if it hangs."""
        hangs = self.lives(_LONGEST_LIFE)
        if hangs:
            os.killpg(self.pid, signal.SIGKILL)
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        if self._killer is not None:  # before the process id of the dead child can be reused
            os.kill(self._killer, signal.SIGKILL)
            os.waitpid(self._killer, 0)
        _, waited, used = os.wait4(self.pid, 0)
        status, seconds = os.waitstatus_to_exitcode(waited), used.ru_utime + used.ru_stime
        if hangs:
            return End(fault=f"it hung; its last line: {self._last_line()}", seconds=seconds)
        if status == -signal.SIGKILL:
            return End(killed=True, seconds=seconds)
        if status != 0:
            return End(fault=self._last_line() or f"exit status {status}", seconds=seconds)
        return End(seconds=seconds, events=int(self._counted.read_text(encoding="ascii")))

    def _run(self, work: Work, kill: Kill | None) -> int | None:
        os.setpgid(0, 0)
        output = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        logging.basicConfig(format="%(message)s", force=True)
        with counted_events(None if kill is None else kill.event) as events:
            status = work()
        self._counted.write_text(str(events[0]), encoding="ascii")
        return status

    def _last_line(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines() if self._log.exists() else []
        return next((line for line in reversed(lines) if line.strip()), "")


@contextmanager
def counted_events(kill_at: int | None) -> Iterator[list[int]]:
    """Count this process's file and database events in the only element of the list; kill its group at a number.

    Writes by libraries outside Python, such as of Parquet files, are not counted; kills at random times cover them.
    """
    count, on = [0], [True]

    def met(*_: object) -> None:
        if on[0]:
            count[0] += 1
            if count[0] == kill_at:
                os.killpg(0, signal.SIGKILL)

    def hook(event: str, arguments: Any) -> None:
        if event in _CHANGES or (event == "open" and arguments[2] & _WRITING):
            met()

    connect = sqlite3.connect

    def watched(*arguments: Any, **named: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **named)
        connection.set_trace_callback(met)
        return connection

    sys.addaudithook(hook)
    sqlite3.connect = sqlite3.dbapi2.connect = watched  # type: ignore[assignment]
    yield count
    on[0] = False


def _kill_later(pid: int, seconds: float) -> None:
    while cpu_of(pid) < seconds:
        time.sleep(random.uniform(0, _LONGEST_LOOK))
    os.killpg(pid, signal.SIGKILL)


def _fork(work: Work) -> int:
    """Run `work` in a child that ends at once when it is done, without exit handlers of the parent's libraries."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        status = int(work() or 0)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
    except BaseException:  # noqa: BLE001 - a child must not continue the parent's code
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)
