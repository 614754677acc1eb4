import gzip
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

import pytest

from elcrec.artifacts import read_json, write_json
from elcrec.config import CsvConfig, FetchConfig, LocalFile, ValidateConfig
from elcrec.data.erasure import erase_user
from elcrec.data.forgotten import Forgotten
from elcrec.errors import UserError
from elcrec.stages.fetch import fetch
from elcrec.stages.validate import validate
from tests.support.engines import ENGINE

SALT = "00" * 16
GONE = datetime(2026, 10, 1, tzinfo=UTC)


def list_of_an_earlier_version(*spellings: str) -> Forgotten:
    """Ids were hashed as they stood."""
    names = [blake2b(each.encode(), key=bytes.fromhex(SALT), digest_size=16).hexdigest() for each in spellings]
    return Forgotten(salt=SALT, until=dict.fromkeys(names, GONE))


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_a_user_is_erased_in_every_spelling_whatever_the_delimiter(tmp_path: Path, delimiter: str) -> None:
    rows = ["user_id,item_id", " 37,a", "37.0,b", "37,c", "38,d"]
    (tmp_path / "log.csv").write_text("".join(f"{row}\n" for row in rows).replace(",", delimiter))
    erase_user(tmp_path, "37", ("user_id",))
    assert (tmp_path / "log.csv").read_text() == f"user_id{delimiter}item_id\n38{delimiter}d\n"


def test_a_log_without_a_header_is_erased_from_by_the_names_that_are_given(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("37::a::1\n38::b::1\n", encoding="utf-16")
    write_json(tmp_path / "source.json", {"file": "data.csv", "format": "csv", "md5": ""})
    text = CsvConfig(names=("who", "what", "stars"), delimiter="::", encoding="utf-16")
    erase_user(tmp_path, "37.0", ("who",), text)
    assert (tmp_path / "data.csv").read_text(encoding="utf-16") == "38::b::1\n"


def test_a_packed_log_cannot_be_erased_from_silently(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(gzip.compress(b"user_id,item_id\n37,a\n"))
    with pytest.raises(UserError, match="packed with gzip"):
        erase_user(tmp_path, "37", ("user_id",))


def test_a_list_of_an_earlier_version_matches_its_own_spelling() -> None:
    gone = list_of_an_earlier_version(" 37", "4")
    assert gone.among([" 37", "37", "4.0", "4", "5"]) == dict.fromkeys([" 37", "4.0", "4"], GONE)
    assert Forgotten().adding("37.0", GONE).holds("37", GONE)


@pytest.mark.parametrize("layout", ["csv", "benchmark"])
def test_a_user_forgotten_in_any_spelling_is_left_out_of_a_log(tmp_path: Path, layout: str) -> None:
    if layout == "csv":
        rows = ["user_id,item_id,timestamp", *(f" 37,i{day},2026-01-0{day}" for day in range(1, 6)), "37,i9,2026-01-09"]
        rows += [f"38,i{day},2026-01-0{day}" for day in range(1, 6)]
    else:
        rows = ["37.0 1 2 3 4 5 6", "38 1 2 3 4 5"]
    (tmp_path / "log").write_text("\n".join([*rows, ""]))
    fetch(FetchConfig(dataset="file", file=LocalFile(path=str(tmp_path / "log"), format=layout)), tmp_path / "raw")
    list_of_an_earlier_version(" 37", "37.0").write(tmp_path / "forgotten.json")
    few = ValidateConfig(min_rows=1, min_users=1, min_items=1, min_interactions_per_user=0.1)
    validate(few, tmp_path / "raw", tmp_path / "out", engine=ENGINE, forgotten=tmp_path / "forgotten.json")
    counts = read_json(tmp_path / "out" / "validation.json")["counts"]
    assert (counts["forgotten"], counts["users"], counts["accepted"]) == (6, 1, 5)
