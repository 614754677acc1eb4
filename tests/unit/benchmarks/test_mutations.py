"""Changes between two stages are noticed: the short form of `python -m benchmarks.mutations`."""

from pathlib import Path

import pytest

from benchmarks.mutations import KINDS, READS, run


@pytest.mark.slow
def test_an_altered_artifact_is_refused_in_a_line_or_changes_nothing(tmp_path: Path) -> None:
    tries = list(run(tmp_path, count=48, seed=2))

    assert {each.stage for each in tries} >= {*READS} - {"validate"}, "which takes seconds and is rarely drawn"
    assert {each.kind for each in tries} == {*KINDS}
    assert [each for each in tries if each.outcome not in {"refused in a line", "the same result"}] == []
    assert sum(each.outcome == "refused in a line" for each in tries) > len(tries) / 2
    assert all(len(each.said) < 500 for each in tries)
