import resource
from pathlib import Path

import pytest

from elcrec.adapters.duckdb_engine import DuckDBEngine
from elcrec.config import EngineConfig
from elcrec.errors import UserError
from elcrec.memory import address_space_left, memory_limit

GIB = 1 << 30


def limit(root: Path, own: str, **limits: str) -> int:
    """What a process in these control groups may use; the names' double underscores are slashes."""
    for name, text in limits.items():
        path = root / name.replace("__", "/").replace("_max", ".max")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "own").write_text(own)
    return memory_limit(root, root / "own")


@pytest.mark.parametrize(("inner", "outer", "least"), [("1", "2", 1), ("2", "1", 1), ("max", "2", 2)])
def test_the_least_limit_of_the_control_groups_counts(tmp_path: Path, inner: str, outer: str, least: int) -> None:
    sizes = {text: text if text == "max" else str(int(text) * GIB) for text in (inner, outer)}
    groups = {"pod__box__memory_max": sizes[inner], "pod__memory_max": sizes[outer]}
    assert limit(tmp_path, "0::/pod/box\n", **groups) == least * GIB


def test_the_first_version_of_control_groups_is_read_too(tmp_path: Path) -> None:
    folder = tmp_path / "memory" / "box"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(f"{GIB}\n")
    (folder.parent / "memory.limit_in_bytes").write_text(f"{(1 << 63) - 4096}\n")
    assert limit(tmp_path, "3:cpu:/box\n4:memory:/box\n") == GIB


def test_without_a_limit_the_machine_s_memory_counts(tmp_path: Path) -> None:
    assert limit(tmp_path, "0::/\n") > GIB


@pytest.mark.parametrize(("room", "enough"), [(48 << 20, False), (2 * GIB, True)])
def test_an_engine_without_room_for_its_threads_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, room: int, *, enough: bool
) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (used + room, resource.RLIM_INFINITY))
    assert address_space_left() is not None
    if enough:
        DuckDBEngine(EngineConfig())
    else:
        with pytest.raises(UserError, match="out of memory: the engine needs 512 MiB of address space"):
            DuckDBEngine(EngineConfig())


def test_without_a_limit_of_the_address_space_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert address_space_left() is None
