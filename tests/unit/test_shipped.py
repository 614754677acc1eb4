"""What the package brings along is found from any folder."""

from pathlib import Path

import pytest

from elcrec.shipped import own_or_shipped

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["params.yaml", "presets/beauty.yaml", "features"])
def test_an_empty_folder_takes_what_came_with_the_package(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert own_or_shipped(Path(name)) == ROOT / name


def test_a_folder_that_has_the_file_keeps_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("{}")
    assert own_or_shipped(Path("params.yaml")) == Path("params.yaml")


def test_an_unknown_name_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert own_or_shipped(Path("other.yaml")) == Path("other.yaml")
