"""Progress: what a person who waits without a terminal reads."""

import time

import pytest

from elcrec.progress import watch


def _watched(capsys: pytest.CaptureFixture[str], share: float | None, *, quiet: bool = False) -> list[str]:
    with watch("sorting", lambda: share, every=0.01, quiet=quiet):
        time.sleep(0.1)
    return capsys.readouterr().err.splitlines()


def test_a_watch_tells_time_and_what_it_knows_of_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(_watched(capsys, 0.25)) == {"sorting: 25% done, 0 s"}
    assert set(_watched(capsys, None)) == {"sorting: 0 s"}


def test_a_quiet_watch_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert not _watched(capsys, 0.25, quiet=True)
