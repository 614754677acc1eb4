from pathlib import Path

import pytest

from elcrec.artifacts import write_json
from elcrec.data.dataset import require_served_window
from elcrec.errors import UserError


def test_a_window_that_is_served_in_part_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "split.json", {"history": 20})

    require_served_window(20, tmp_path, where="model")
    with pytest.raises(UserError, match=r"^model: a window of 21 items, .*keeps 20.*sequences\.history=21"):
        require_served_window(21, tmp_path, where="model")


def test_sequences_that_record_no_window_are_accepted(tmp_path: Path) -> None:
    write_json(tmp_path / "split.json", {"split": "leave_one_out"})

    require_served_window(1000, tmp_path, where="model")
