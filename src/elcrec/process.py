"""What a process of ours is set up with, and why. Importing any other module changes nothing outside it.

Every entry point calls `set_up_process` first: the commands, the components, the benchmarks and the tests. It loads no
library. What concerns one is done when that library is imported, so that a command pays for what it uses. A program
that uses this package as a library may call it too; without it everything works, but slower and with more output.
"""

import atexit
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType, TracebackType
from typing import Any, TypeVar

from elcrec.masking import mask

T = TypeVar("T")

_ENVIRONMENT = {
    # libgomp reads this when torch is first imported. Its threads otherwise spin while they wait for each other, and
    # as soon as another process wants a core a step of training takes forty times as long.
    "OMP_WAIT_POLICY": "passive",
    # MLflow reads both when it is imported. It would report to its makers, and draw bars in a log.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""Variables that a library reads before we could tell it otherwise; what a user has set stays, children inherit it."""


@cache
def set_up_process() -> None:
    """Set this process up; only the first call counts. It comes before torch, MLflow and Feast are imported."""
    _open_missing_streams()
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Requests are answered from threads, where its warnings cannot be swallowed with the streams of the process.
    logging.getLogger("feast").setLevel(logging.ERROR)
    _mask_what_is_said()
    # First registered is last called: whatever other exit handlers have to say is still heard.
    atexit.register(_mute_duckdb)
    sys.meta_path.insert(0, _Around())
    if "torch" in sys.modules:
        _turn_onednn_off()


def _open_missing_streams() -> None:
    """Point standard streams that were closed to nowhere: the next file would take their number, and be written to."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115 - for good


def _mask_what_is_said() -> None:
    """Mask passwords and tokens in every line of a log, whoever writes it, and in a traceback."""
    make, show = logging.getLogRecordFactory(), sys.excepthook

    def masked(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = make(*arguments, **named)
        if isinstance(record.msg, str) and (text := mask(said := _text_of(record))) != said:
            record.msg, record.args = text, None
        return record

    def show_masked(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        text = "".join(traceback.format_exception(kind, error, trace))
        if mask(text) == text:
            show(kind, error, trace)
        else:
            sys.stderr.write(mask(text))

    logging.setLogRecordFactory(masked)
    sys.excepthook = show_masked


def _text_of(record: logging.LogRecord) -> str:
    """Return a record's text; of one whose arguments do not fit, what it is made of."""
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        return str(record.msg)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as an exception does, so that scratch is cleared away; the exit status is 143."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, _: object) -> None:
    text = "elcrec: terminated; what is unfinished is cleared away, the same command resumes or starts again"
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
    raise SystemExit(128 + number)


class _Around(MetaPathFinder):
    """Imports torch and the modules of Feast inside a context of theirs."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        context = _context_of(fullname)
        spec = PathFinder.find_spec(fullname, path, target) if context else None
        if context is None or spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_inside(module: ModuleType) -> None:
            with context():
                load(module)

        # The loader belongs to this one module, and what else it can do (resources, source) stays as it is.
        spec.loader.exec_module = load_inside  # type: ignore[method-assign]
        return spec


def _context_of(module: str) -> Callable[[], AbstractContextManager[None]] | None:
    if module == "torch":
        return _without_onednn
    if module == "feast.torch_wrapper" and "torch" not in sys.modules:
        return _without_torch
    return _without_typeguard if module.partition(".")[0] == "feast" else None


@contextmanager
def _without_onednn() -> Iterator[None]:
    """Turn oneDNN off for good, once torch is there.

    It would make a primitive for every number of rows that GELU meets and keep the last thousand. Every step of
    training has another number: making them is a tenth of its time, and those that are kept cut the heap into ever
    smaller pieces.
    """
    yield
    _turn_onednn_off()


def _turn_onednn_off() -> None:
    sys.modules["torch"].backends.mkldnn.set_flags(False)


@contextmanager
def _without_typeguard() -> Iterator[None]:
    """Import a module of Feast without typeguard, which takes longer to rewrite its classes than all the rest takes.

    The check of Feast's own arguments is what is lost. Outside of these imports typeguard works as ever.
    """
    import typeguard  # noqa: PLC0415 - comes with Feast

    checked = typeguard.typechecked
    if checked is _as_it_is:  # a module of Feast that another one imports
        yield
        return
    typeguard.typechecked = _as_it_is  # type: ignore[assignment]
    try:
        yield
    finally:
        typeguard.typechecked = checked


@contextmanager
def _without_torch() -> Iterator[None]:
    """Import a module of Feast as if PyTorch were not installed, which takes a third of what is left to import.

    Feast wants it for tensors of features, which nothing here asks it for. Whoever imports PyTorch later gets it.
    """
    sys.modules["torch"] = None  # type: ignore[assignment] # as the language says: an import of it fails
    try:
        yield
    finally:
        del sys.modules["torch"]


def _as_it_is(target: T) -> T:
    return target


def _mute_duckdb() -> None:
    """DuckDB's binding lists dozens of "leaked" objects when a process ends that has loaded torch as well."""
    if "duckdb" in sys.modules:
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
