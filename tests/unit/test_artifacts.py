import os
import signal
from pathlib import Path

import msgspec
import pytest

from elcrec.artifacts import SCHEMA_VERSION, atomic_dir, atomic_file, md5_of, read_document, read_json, write_json
from elcrec.errors import UserError


def _fill(out: Path, text: str, *, fails: bool = False) -> None:
    with atomic_dir(out) as scratch:
        (scratch / "file").write_text(text)
        if fails:
            raise ZeroDivisionError


def test_a_folder_appears_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    _fill(out, "old")
    _fill(out, "new")
    assert (out / "file").read_text() == "new"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_failure_leaves_the_old_folder_and_no_scratch(tmp_path: Path) -> None:
    _fill(tmp_path / "out", "old")
    with pytest.raises(ZeroDivisionError):
        _fill(tmp_path / "out", "new", fails=True)
    assert (tmp_path / "out" / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_run_left_behind_is_cleared(tmp_path: Path) -> None:
    leftover = tmp_path / ".out.abc.partial"
    leftover.mkdir()
    _fill(tmp_path / "out", "new")
    assert not leftover.exists()


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_always_follow_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with atomic_dir(tmp_path / "out") as scratch:
            (scratch / "plain").touch()
            (scratch / "private").touch(0o600)
            (scratch / "deep").mkdir(0o700)
        with atomic_file(tmp_path / "file") as temporary:
            temporary.touch(0o600)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    folders, files = 0o777 & ~mask, 0o666 & ~mask
    assert modes == {"out": folders, "deep": folders, "plain": files, "private": files, "file": files}


def test_an_output_below_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write the output"):
        _fill(tmp_path / "file" / "out", "x")


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail_half_way() -> None:
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_values_survive_and_other_values_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"name": "Zoë", "value": 1})
    assert read_json(path) == {"name": "Zoë", "value": 1}
    for content in ("[1]", "{", ""):
        path.write_text(content)
        with pytest.raises(UserError, match=r"a\.json"):
            read_json(path)
    with pytest.raises(UserError, match="no such file"):
        read_json(tmp_path / "missing.json")


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    size: int
    schema_version: int = SCHEMA_VERSION


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"schema_version": 1, "size": 3', "not readable as JSON"),
        ("[1]", "expected a JSON object"),
        ('{"size": 3}', r"not a size \(it says no schema version\)"),
        ('{"schema_version": 2, "length": 3}', "schema version 2 of another release, this program reads 1"),
        ('{"schema_version": 1, "size": "3"}', r"not a size \(Expected `int`, got `str` - at `\$.size`\)"),
        ('{"schema_version": 1, "size": 3, "unit": "m"}', r"not a size \(Object contains unknown field `unit`\)"),
        (None, "no such file"),
    ],
)
def test_a_document_that_is_not_what_it_should_be_says_what_it_is_and_what_to_do(
    text: str | None, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "size.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=f"size.json: {said}.*; measure it again$"):
        read_document(path, Strict, name="a size", fix="measure it again")


def test_a_document_is_read_as_its_type(tmp_path: Path) -> None:
    write_json(tmp_path / "size.json", {"schema_version": SCHEMA_VERSION, "size": 3})
    assert read_document(tmp_path / "size.json", Strict, name="a size", fix="measure it again") == Strict(size=3)


def test_md5_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    assert md5_of(tmp_path / "a") == "5d41402abc4b2a76b9719d911017c592"


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_leftovers_of_a_killed_writer_are_removed_by_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "a [b].json"
    child = os.fork()
    if not child:
        try:
            with atomic_file(path) as temporary:
                temporary.write_text("half")
                Path(f"{temporary}-journal").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    left, journal = names_in(tmp_path)
    assert (left[:12], journal) == (".a [b].json.", f"{left}-journal")

    write_json(path, {"whole": True})
    assert names_in(tmp_path) == [path.name]


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_file(path) as slow:
        slow.write_text("slow")
        with atomic_file(path) as fast:
            fast.write_text("fast")
        assert path.read_text() == "fast"
    assert (path.read_text(), names_in(tmp_path)) == ("slow", ["file"])


def test_a_folder_that_a_killed_run_had_moved_away_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with atomic_dir(out) as scratch:
        (scratch / "state.json").write_text("1")
    rename, moved = Path.rename, []

    def killed_at_the_second(path: Path, target: Path) -> Path:
        moved.append(path)
        if len(moved) == 2:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed_at_the_second)
        patched.setattr("elcrec.artifacts.shutil.rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt), atomic_dir(out) as scratch:
            (scratch / "state.json").write_text("2")
    assert not out.exists()

    with atomic_dir(out) as scratch:
        assert (out / "state.json").read_text() == "1"
        (scratch / "state.json").write_text("3")

    assert (out / "state.json").read_text() == "3"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
