"""The set-up of a process, with reasons. Importing any other module has no side effects.

Every entry point calls `set_up_process` first: the commands, the components, the benchmarks and the tests. It loads no
library: the set-up of a library happens when the library is imported, so that each command pays only for what it uses.
A program that uses this package as a library may call it too; without it everything works, but slower and with more
output.
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
    # libgomp reads this when torch is first imported. Otherwise its threads spin while they wait for each other, and
    # when another process needs a core, a training step takes forty times as long.
    "OMP_WAIT_POLICY": "passive",
    # MLflow reads both when it is imported. Otherwise it sends telemetry, and draws progress bars in a log.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""Environment variables that libraries read at import; a user's own values stay, and child processes inherit them."""


@cache
def set_up_process() -> None:
    """Set up this process, before torch, MLflow and Feast are imported; only the first call has an effect."""
    _open_missing_streams()
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Requests are answered from threads, where this library's warnings cannot be silenced by redirecting streams.
    logging.getLogger("feast").setLevel(logging.ERROR)
    _mask_what_is_said()
    # The handler registered first is called last, so the output of other exit handlers is not lost.
    atexit.register(_mute_duckdb)
    sys.meta_path.insert(0, _Around())
    if "torch" in sys.modules:
        _turn_onednn_off()


def _open_missing_streams() -> None:
    """Open closed standard streams on the null device; otherwise the next opened file would get their output."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115 - stays open


def _mask_what_is_said() -> None:
    """Mask passwords and tokens in every log line of every library, and in tracebacks."""
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
    """Return a record's text; if its arguments do not match its format, return its parts."""
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        return str(record.msg)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block like an exception, so that scratch files are removed; the exit status is 143."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, _: object) -> None:
    text = "elcrec: terminated; unfinished output is removed, and the same command resumes or starts again"
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
    raise SystemExit(128 + number)


class _Around(MetaPathFinder):
    """Imports torch and the modules of Feast inside a context manager for each."""

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

        # The loader belongs to this one module; its other functions (resources, source) stay unchanged.
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
    """Turn oneDNN off for the rest of the process, once torch is imported.

    For GELU, oneDNN creates a primitive for every number of rows and keeps the last thousand. Every training step has
    another number of rows: creating the primitives takes a tenth of its time, and keeping them fragments the heap.
    """
    yield
    _turn_onednn_off()


def _turn_onednn_off() -> None:
    sys.modules["torch"].backends.mkldnn.set_flags(False)


@contextmanager
def _without_typeguard() -> Iterator[None]:
    """Import a module of Feast without typeguard, whose rewriting of classes takes longer than the rest of the import.

    This disables only the checks of Feast's own arguments. Outside these imports typeguard works as usual.
    """
    import typeguard  # noqa: PLC0415 - comes with Feast

    checked = typeguard.typechecked
    if checked is _as_it_is:  # a module of Feast imported by another one
        yield
        return
    typeguard.typechecked = _as_it_is  # type: ignore[assignment]
    try:
        yield
    finally:
        typeguard.typechecked = checked


@contextmanager
def _without_torch() -> Iterator[None]:
    """Import a module of Feast as if PyTorch were not installed, whose import takes a third of the remaining time.

    Feast needs it for tensors of features, which we do not use. A later import of PyTorch works.
    """
    sys.modules["torch"] = None  # type: ignore[assignment] # None makes an import of it fail
    try:
        yield
    finally:
        del sys.modules["torch"]


def _as_it_is(target: T) -> T:
    return target


def _mute_duckdb() -> None:
    """Silence DuckDB's binding, which lists dozens of "leaked" objects at exit if torch was loaded as well."""
    if "duckdb" in sys.modules:
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
