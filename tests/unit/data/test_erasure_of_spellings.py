from pathlib import Path

import pytest

from elcrec.data.erasure import erase_user
from elcrec.errors import UserError


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_a_user_is_erased_in_every_spelling_whatever_the_delimiter(tmp_path: Path, delimiter: str) -> None:
    rows = ["user_id,item_id", " 37,a", "37.0,b", "37,c", "38,d"]
    (tmp_path / "log.csv").write_text("".join(f"{row}\n" for row in rows).replace(",", delimiter))
    erase_user(tmp_path, "37", ("user_id",))
    assert (tmp_path / "log.csv").read_text() == f"user_id{delimiter}item_id\n38{delimiter}d\n"


def test_a_packed_log_cannot_be_erased_from_silently(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"\x1f\x8b" + b"0" * 40)
    with pytest.raises(UserError, match="packed with gzip"):
        erase_user(tmp_path, "37", ("user_id",))
