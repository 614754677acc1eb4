import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from elcrec.adapters import publication
from elcrec.adapters.publication import Publication


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publication, "_CHUNK", 2)


class Files:
    """Offline files, as a push writes them: their bytes depend on the features and on the moment."""

    def __init__(self, folder: Path, features: str = "a") -> None:
        self.path, self.features = folder / "file", features
        self.calls: list[tuple[datetime, datetime | None]] = []

    def __call__(self, moment: datetime, abandoned: datetime | None) -> Mapping[str, Path]:
        self.calls.append((moment, abandoned))
        self.path.write_text(f"{self.features} {moment.isoformat()}")
        return {"view": self.path}


def begin(folder: Path, features: str = "a", target: str = "here") -> Publication:
    return Publication.begin(folder / "marker", target, Files(folder, features))


def stop_after_two_rows(started: Publication) -> None:
    chunks = started.chunks("view", 5)
    assert [next(chunks), next(chunks)] == [slice(0, 2), slice(2, 4)]  # killed while the second is worked on


def test_a_resumed_publication_keeps_the_time_of_the_first_attempt(tmp_path: Path) -> None:
    first = begin(tmp_path)
    stop_after_two_rows(first)

    second = begin(tmp_path)

    assert second.moment == first.moment
    assert list(second.chunks("view", 5)) == [slice(2, 4), slice(4, 5)]
    assert list(second.chunks("other", 1)) == [slice(0, 1)]


@pytest.mark.parametrize("change", [{"features": "b"}, {"target": "there"}])
def test_other_features_or_another_store_begin_again_at_a_moment_of_their_own(
    tmp_path: Path, change: dict[str, str]
) -> None:
    first = begin(tmp_path)
    stop_after_two_rows(first)

    second = begin(tmp_path, **change)

    assert second.moment > first.moment
    assert list(second.chunks("view", 5)) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert (tmp_path / "file").read_text().endswith(second.moment.isoformat())


def test_a_finished_one_is_forgotten(tmp_path: Path) -> None:
    first = begin(tmp_path)
    list(first.chunks("view", 5))
    first.finish()

    assert len(list(begin(tmp_path).chunks("view", 5))) == 3


def test_a_publication_killed_before_its_files_keeps_its_time(tmp_path: Path) -> None:
    def killed(*_: object) -> Mapping[str, Path]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Publication.begin(tmp_path / "marker", "here", killed)
    noted = json.loads((tmp_path / "marker").read_text())["moment"]

    assert begin(tmp_path).moment == datetime.fromisoformat(noted)


def test_the_files_of_another_publication_do_without_the_one_that_was_broken_off(tmp_path: Path) -> None:
    first = begin(tmp_path)
    stop_after_two_rows(first)
    files = Files(tmp_path, "b")

    begun = Publication.begin(tmp_path / "marker", "here", files)

    assert files.calls == [(first.moment, None), (begun.moment, first.moment)]


def test_a_publication_is_later_than_the_one_before_though_the_clock_went_back(tmp_path: Path) -> None:
    future = datetime(2199, 1, 1, tzinfo=UTC)
    begun = Publication.begin(tmp_path / "marker", "here", Files(tmp_path), last=future)
    assert begun.moment > future
