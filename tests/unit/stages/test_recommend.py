from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elcrec.data.parts import Part
from elcrec.errors import UserError
from elcrec.model.io import load_model
from elcrec.serving.ports import UserHistory
from elcrec.serving.recommender import Query, Recommender
from elcrec.stages import recommend_all as recommend_all_module
from elcrec.stages.recommend import first_users, read_users, recommend
from elcrec.stages.recommend_all import recommend_all
from tests.support.push_inputs import Inputs, bundle_of, make_inputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"), users=300)


@pytest.fixture(scope="module")
def bundle(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_of(inputs, tmp_path_factory.mktemp("bundle") / "bundle")


def write_histories(path: Path, rows: dict[str, list[str]]) -> Path:
    table = {"user_id": list(rows), "item_ids": pa.array(rows.values(), pa.list_(pa.string()))}
    pq.write_table(pa.table(table), path)
    return path


def test_each_user_gets_the_same_answer_as_alone(inputs: Inputs, bundle: Path, tmp_path: Path) -> None:
    known = pq.read_table(inputs.sequences / "histories.parquet").to_pydict()
    rows = {"cold": [], "lost": ["gone"], **dict(zip(known["user_id"], known["item_ids"], strict=True))}
    rows["full"] = [f"item-{index}" for index in range(1, 13)]

    counts = recommend_all(bundle, write_histories(tmp_path / "h.parquet", rows), tmp_path / "recs.parquet", 8)

    found = pq.read_table(tmp_path / "recs.parquet").to_pydict()
    assert found["user_id"] == list(rows)
    expected = Recommender.load(bundle).recommend([Query(history=history, k=8) for history in rows.values()])
    assert found["item_ids"] == [answer.item_ids for answer in expected]
    for scores, answer in zip(found["scores"], expected, strict=True):
        np.testing.assert_allclose(scores, answer.scores, rtol=1e-5)
    assert found["intent"] == [-1 if answer.intent is None else answer.intent for answer in expected]
    assert found["source"] == ["popular" if answer.fallback else "model" for answer in expected]
    assert len(found["item_ids"][-1]) == 3
    assert (counts["users"], counts["cold_users"]) == (303, 2)


def test_seen_items_are_not_recommended_either(bundle: Path, tmp_path: Path) -> None:
    seen = [f"item-{index}" for index in range(3, 9)]
    rows = {"ann": (["item-1"], seen), "cold": (["gone"], seen), "bob": (["item-2"], [])}
    columns = [pa.array(column, pa.list_(pa.string())) for column in zip(*rows.values(), strict=True)]
    table = pa.table([pa.array(rows), *columns], names=["user_id", "item_ids", "seen_items"])
    pq.write_table(table, tmp_path / "h.parquet")

    for wanted in (None, ["ann", "cold", "bob"]):
        recommend_all(bundle, tmp_path / "h.parquet", tmp_path / "recs.parquet", 8, wanted)
        found = pq.read_table(tmp_path / "recs.parquet")["item_ids"].to_pylist()
        queries = [Query(history=history, k=8, seen=met) for history, met in rows.values()]
        assert found == [answer.item_ids for answer in Recommender.load(bundle).recommend(queries)]
        assert not set(found[0]) & set(seen)
        assert not set(found[1]) & set(seen)


def test_of_a_user_with_earlier_histories_the_newest_counts(bundle: Path, tmp_path: Path) -> None:
    table = {
        "user_id": ["ann", "bob", "ann", "ann"],
        "item_ids": [["item-1"], ["item-2"], ["item-1", "item-3"], ["item-1", "item-4"]],
        "event_timestamp": pa.array([1, 1, 2, 2], pa.timestamp("us", tz="UTC")),
        "created": pa.array([4, 4, 5, 3], pa.timestamp("us", tz="UTC")),
    }
    pq.write_table(pa.table(table), tmp_path / "h.parquet")

    for wanted in (None, ["bob", "ann"]):
        recommend_all(bundle, tmp_path / "h.parquet", tmp_path / "recs.parquet", 15, wanted)

        found = pq.read_table(tmp_path / "recs.parquet").to_pydict()
        assert found["user_id"] == ["bob", "ann"]
        assert [set(row) & {f"item-{index}" for index in range(1, 5)} for row in found["item_ids"]] == [
            {"item-1", "item-3", "item-4"},
            {"item-2", "item-4"},
        ]


@pytest.mark.parametrize("wanted", [None, ["u7", "u3", "nobody", "u150", "u3"]], ids=["all", "named"])
def test_the_parts_together_are_the_whole(
    inputs: Inputs, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: list[str] | None
) -> None:
    histories = inputs.sequences / "histories.parquet"
    recommend_all(bundle, histories, tmp_path / "whole.parquet", 8, wanted)
    monkeypatch.setattr(recommend_all_module, "_ROWS_AT_ONCE", 17)
    rows: list[dict[str, object]] = []
    for index in (1, 2, 3):
        recommend_all(bundle, histories, tmp_path / "part.parquet", 8, wanted, Part(index, 3))
        part = pq.read_table(tmp_path / "part.parquet").to_pylist()
        assert len(part) < len(wanted or range(300))
        rows += part
    whole = pq.read_table(tmp_path / "whole.parquet").to_pylist()
    assert len(whole) == len(wanted or range(300))

    def exact(rows: list[dict[str, object]]) -> list[tuple[object, ...]]:
        return sorted((row["user_id"], tuple(row["item_ids"]), row["intent"], row["source"]) for row in rows)

    assert exact(rows) == exact(whole)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_a_part_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="write the part's number and the number of parts, such as 1/4"):
        Part.parse(text)


def test_a_name_that_is_not_parquet_s_is_refused(bundle: Path, tmp_path: Path) -> None:
    histories = write_histories(tmp_path / "h.parquet", {})
    with pytest.raises(UserError, match=r"recs\.csv: the output is Parquet; name it recs\.parquet"):
        recommend_all(bundle, histories, tmp_path / "recs.csv", 8)
    assert not (tmp_path / "recs.csv").exists()


def test_no_user_gives_an_empty_file(bundle: Path, tmp_path: Path) -> None:
    recommend_all(bundle, write_histories(tmp_path / "h.parquet", {}), tmp_path / "recs.parquet", 8)

    assert len(pq.read_table(tmp_path / "recs.parquet")) == 0


def test_more_items_than_there_are_are_all_that_there_are(bundle: Path, tmp_path: Path) -> None:
    recommend_all(bundle, write_histories(tmp_path / "h.parquet", {"ann": ["item-1"]}), tmp_path / "recs.parquet", 99)
    assert len(pq.read_table(tmp_path / "recs.parquet")["item_ids"][0].as_py()) == 14


class KnowsOne:
    """A store and a registry in one, with a user who has met so many items."""

    def __init__(self, bundle: Path, items: int) -> None:
        self.bundle, self.version, self.items = bundle, "1", [f"item-{index}" for index in range(1, items + 1)]

    def champion(self, _: str) -> "KnowsOne":
        return self

    def histories(self, users: list[str], *, service: str) -> list[UserHistory | None]:
        seen = {"item_ids": self.items[-2:], "seen": self.items[:-2], "updated": datetime(2026, 1, 1, tzinfo=UTC)}
        return [UserHistory(**seen) if user == "ann" else None for user in users]


def test_a_user_who_has_met_all_items_gets_a_message(bundle: Path) -> None:
    everything = KnowsOne(bundle, 15)
    said = list(recommend("elcrec", " ann", 3, registry=everything, features=everything))
    assert said[-1] == "nothing is left to recommend: this user has seen every item"


@given(met=st.sets(st.integers(1, 15), min_size=1), window=st.integers(1, 15), k=st.integers(1, 20))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_item_that_was_met_is_recommended_unless_repeats_are_allowed(
    loaded: tuple[Recommender, Recommender], met: set[int], window: int, k: int
) -> None:
    items = [f"item-{index}" for index in sorted(met)]
    query = Query(history=items[-window:], seen=items[:-window], k=k)
    excluding, allowing = loaded
    (strict,), (free,) = excluding.recommend([query]), allowing.recommend([query])
    assert not set(strict.item_ids) & set(items)
    assert len(strict.item_ids) == min(k, 15 - len(met))
    assert len(free.item_ids) == min(k, 15)


@pytest.fixture(scope="module")
def loaded(bundle: Path) -> tuple[Recommender, Recommender]:
    """Recommenders of one bundle without repeats and with them."""
    excluding = Recommender.load(bundle)
    split = excluding.manifest.split | {"repeats": "allow"}
    manifest = msgspec.structs.replace(excluding.manifest, split=split)
    return excluding, Recommender(load_model(bundle), excluding.catalogue, manifest, {})


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_refused_and_nothing_written(bundle: Path, tmp_path: Path, k: int) -> None:
    histories = write_histories(tmp_path / "h.parquet", {"ann": ["item-1"]})

    with pytest.raises(UserError, match="ask for 1 item or more"):
        recommend_all(bundle, histories, tmp_path / "recs.parquet", k)

    assert [path.name for path in tmp_path.iterdir()] == ["h.parquet"]


def test_histories_that_cannot_be_read_are_named(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"h\.parquet: not readable"):
        recommend_all(bundle, tmp_path / "h.parquet", tmp_path / "recs.parquet", 8)


def test_the_first_users_of_a_file_and_none_without_it(tmp_path: Path) -> None:
    path = write_histories(tmp_path / "h.parquet", {f"u{row}": ["i"] for row in range(5)})

    assert first_users(path, 3) == ["u0", "u1", "u2"]
    assert first_users(tmp_path / "absent.parquet") == []


def test_a_file_of_users_has_an_id_a_line_with_whatever_blanks(tmp_path: Path) -> None:
    (tmp_path / "users.txt").write_text("\ufeffAnna 0 Maria\r\n\n 37.0\n", encoding="utf-8")
    assert read_users(tmp_path / "users.txt") == ["Anna 0 Maria", "37"]
