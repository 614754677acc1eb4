from pathlib import Path

import pytest

from elcrec import memory
from elcrec.adapters.duckdb_engine import DuckDBEngine
from elcrec.config import EngineConfig
from elcrec.errors import UserError


def settings(config: EngineConfig, out: Path) -> dict[str, str]:
    with DuckDBEngine(config).session(out) as session:
        names = ("memory_limit", "threads", "temp_directory")
        row = session.fetch("SELECT " + ", ".join(f"current_setting('{name}') AS {name}" for name in names))
        return {name: str(value) for name, value in row.to_pylist()[0].items()}


def test_memory_is_a_share_of_the_limit_unless_megabytes_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "memory_limit", lambda: 8_000_000_000)
    share = settings(EngineConfig(memory_share=0.25, threads=1), tmp_path / "out")
    fixed = settings(EngineConfig(memory_mb=2000, threads=1), tmp_path / "out")
    assert share["memory_limit"] == fixed["memory_limit"] == "1.3 GiB"


def test_threads_are_bounded_by_the_parameter_and_by_what_memory_allows(tmp_path: Path) -> None:
    assert settings(EngineConfig(threads=2, memory_mb=1000), tmp_path / "out")["threads"] == "2"
    assert settings(EngineConfig(threads=2, memory_mb=200), tmp_path / "out")["threads"] == "1"


def test_the_spill_folder_is_the_one_that_is_named_and_is_gone_at_the_end(tmp_path: Path) -> None:
    found = settings(EngineConfig(spill=str(tmp_path / "fast"), threads=1), tmp_path / "out")
    assert Path(found["temp_directory"]).is_relative_to(tmp_path / "fast")
    assert list((tmp_path / "fast").iterdir()) == []
    assert Path(settings(EngineConfig(threads=1), tmp_path / "out")["temp_directory"]).parent.parent == tmp_path


def test_what_a_killed_run_left_for_this_output_is_gone_when_the_next_begins(tmp_path: Path) -> None:
    engine = DuckDBEngine(EngineConfig(spill=str(tmp_path / "fast"), threads=1))
    with engine.session(tmp_path / "other") as other, engine.session(tmp_path / "out") as session:
        left, theirs = session.folder / "left", other.folder / "theirs"
        left.touch()
        theirs.touch()
        with engine.session(tmp_path / "out") as again:
            assert again.folder == session.folder
            assert not left.exists()
            assert theirs.exists()


def test_a_spill_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    engine = DuckDBEngine(EngineConfig(spill=str(tmp_path / "file")))
    with pytest.raises(UserError, match=r"cannot be written.*set engine\.spill"), engine.session(tmp_path / "out"):
        pass
