"""What kinds of events mean, sessions, repeats in a row, users with too much: each option seen in the files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from elcrec.artifacts import write_json
from elcrec.config import KindsConfig, SequencesConfig
from elcrec.data.dataset import SequenceData, load_sequences
from elcrec.data.erasure import erase_user
from elcrec.data.interactions import interaction_schema
from elcrec.data.split_points import DISLIKED, ServedHistories
from elcrec.errors import UserError
from elcrec.serving.publishing import log_tables
from elcrec.stages.sequences import build_sequences
from tests.support.engines import ENGINE
from tests.support.logs import SMALL, checked, written

MINUTE = 60_000_000
WATCHED = [("view", "abc"), ("buy", "d"), ("view", "e"), ("buy", "f"), ("view", "g"), ("view", "h")]


def events(kinds_and_items: list[tuple[str, str]], users: str = "uvw") -> list[tuple[str, str, int, str]]:
    """The same events for each of some users, one a minute."""
    single = [(kind, item) for kind, items in kinds_and_items for item in items]
    return [(user, item, place * MINUTE, kind) for user in users for place, (kind, item) in enumerate(single)]


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., SequenceData]:
    """Build sequences of events: user, item, microseconds, kind."""

    def built(log: list[tuple[str, str, int, str]], places: list[int] | None = None, **options: Any) -> SequenceData:
        users, items, micros, kinds = (list(column) for column in zip(*log, strict=True))
        schema = interaction_schema(["kind", *(["tie"] if places else [])])
        times = pa.array(micros, pa.int64()).cast(schema.field("timestamp").type)
        columns = [pa.array(users), pa.array(items), times, pa.array(kinds), *([pa.array(places)] if places else [])]
        (tmp_path / "in").mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), tmp_path / "in" / "interactions.parquet")
        write_json(tmp_path / "in" / "validation.json", {"time": "real"})
        build_sequences(SequencesConfig(**options), tmp_path / "in", tmp_path / "out", engine=ENGINE)
        return load_sequences(tmp_path / "out")

    return built


def rows_of(folder: Path) -> list[str]:
    """Users and their items, as letters."""
    names = pq.read_table(folder / "out" / "items.parquet")["item_id"].to_pylist()
    table = pq.read_table(folder / "out" / "sequences.parquet")
    return [
        f"{user}:{''.join(names[item - 1] for item in items)}"
        for user, items in zip(table["user_id"].to_pylist(), table["items"].to_pylist(), strict=True)
    ]


def test_targets_are_of_the_configured_kinds(build: Callable[..., SequenceData]) -> None:
    data = build(events(WATCHED), kinds=KindsConfig(targets=("buy",)))
    assert data.targets["test"].tolist() == [5, 5, 5]
    assert data.targets["valid"].tolist() == data.train_end.tolist() == [3, 3, 3]
    assert build(events(WATCHED)).targets["test"].tolist() == [7, 7, 7]


def test_temporal_targets_are_the_first_of_the_kinds_after_a_cut(build: Callable[..., SequenceData]) -> None:
    shares = {"split": "temporal", "valid_share": 0.25, "test_share": 0.25}
    data = build(events([("view", "abcde"), ("buy", "f"), ("view", "g"), ("buy", "h")]), **shares)
    bought = build(
        events([("view", "abcde"), ("buy", "f"), ("view", "g"), ("buy", "h")]),
        kinds=KindsConfig(targets=("buy",)),
        **shares,
    )
    assert (data.targets["valid"].tolist(), data.targets["test"].tolist()) == ([4] * 3, [6] * 3)
    assert (bought.targets["valid"].tolist(), bought.targets["test"].tolist()) == ([5] * 3, [7] * 3)
    assert bought.train_end.tolist() == data.train_end.tolist() == [4] * 3


def test_a_user_without_two_events_of_these_kinds_is_for_training_alone(build: Callable[..., SequenceData]) -> None:
    log = [*events(WATCHED), *events([("view", "abcdefg"), ("buy", "h")], "x")]
    data = build(log, kinds=KindsConfig(targets=("buy",)))
    assert (data.train_end[3], data.targets["valid"][3], data.targets["test"][3]) == (8, -1, -1)


def test_weights_are_stored_beside_the_items(build: Callable[..., SequenceData]) -> None:
    data = build(events(WATCHED, "uvwx"), kinds=KindsConfig(weights={"view": 0.25}))
    assert data.weights is not None
    assert data.weights.tolist() == [0.25, 0.25, 0.25, 1, 0.25, 1, 0.25, 0.25] * 4
    assert build(events(WATCHED)).weights is None


@pytest.mark.parametrize("repeats", ["exclude", "allow"])
def test_dislikes_are_no_interactions_and_are_excluded_in_evaluation_and_serving(
    build: Callable[..., SequenceData], tmp_path: Path, repeats: str
) -> None:
    log = [("view", "abc"), ("no", "de"), ("view", "fg"), ("no", "a"), ("view", "h")]
    others = events([("view", "hedcba")], "z")
    data = build([*events(log, "uv"), *others], kinds=KindsConfig(dislikes=("no",)), repeats=repeats)
    assert rows_of(tmp_path)[0] == "u:abcfgh"
    names = pq.read_table(tmp_path / "out" / "items.parquet")["item_id"].to_pylist()
    excluded = {
        split: {names[item - 1] for item in data.evaluation(split).excluded.row(0)} for split in ("valid", "test")
    }
    met = {"valid": set("abcf"), "test": set("abcfg")} if repeats == "exclude" else {"valid": set(), "test": set()}
    assert excluded == {"valid": met["valid"] | set("de"), "test": met["test"] | set("dea")}
    served = pa.concat_tables(ServedHistories(folder=tmp_path / "out", most_seen=1000))
    seen = served["seen_items"].to_pylist()
    mark = DISLIKED if repeats == "allow" else ""
    assert seen == [[f"{mark}{item}" for item in "dea"]] * 2 + [[]]


def test_what_repeats_the_event_before_it_is_merged_unless_its_kind_differs(
    build: Callable[..., SequenceData], tmp_path: Path
) -> None:
    log = [("view", "aabbb"), ("buy", "bb"), ("view", "aca")]
    build(events(log), consecutive="merge", kinds=KindsConfig(weights={"buy": 2.0}))
    assert rows_of(tmp_path)[0] == "u:abbaca"
    build(events(log), consecutive="merge")
    assert rows_of(tmp_path)[0] == "u:abaca"
    totals = pq.read_table(tmp_path / "out" / "items.parquet")
    assert dict(zip(totals["item_id"].to_pylist(), totals["total"].to_pylist(), strict=True)) == {
        "a": 9,
        "b": 3,
        "c": 3,
    }


def test_users_with_more_events_are_left_out_before_rare_ones_are(
    build: Callable[..., SequenceData], tmp_path: Path
) -> None:
    log = [*events([("view", "abc")], "uv"), *events([("view", "abcd" * 3)], "x")]
    build(log, most_events=5, k_core=2)
    assert rows_of(tmp_path) == ["u:abc", "v:abc"]
    build(log)
    assert len(rows_of(tmp_path)) == 3


def test_a_gap_ends_a_session_and_the_newest_one_alone_is_served_under_the_users_id(
    build: Callable[..., SequenceData], tmp_path: Path
) -> None:
    log = [(u, i, at * MINUTE, "") for u, i, at in [("u", "a", 0), ("u", "b", 30), ("u", "c", 61), ("u", "d", 200)]]
    build([*log, *events([("", "abcd")], "v")], session_gap=30.0)
    assert rows_of(tmp_path) == ["u␟1:ab", "u␟2:c", "u:d", "v:abcd"]
    served = log_tables(tmp_path / "out")
    assert pa.concat_tables(served.histories)["user_id"].to_pylist() == ["u", "v"]
    assert set(pc.unique(pa.concat_tables(served.earlier)["user_id"]).to_pylist()) <= {"u", "v"}
    erase_user(tmp_path / "out", "u", ("user_id",))
    assert rows_of(tmp_path) == ["v:abcd"]


def test_events_of_one_time_follow_a_column(build: Callable[..., SequenceData], tmp_path: Path) -> None:
    log = [("u", item, 0, "") for item in "abcd"] + events([("", "abcd")], "v")
    build(log, [3, 1, 4, 1, 0, 0, 0, 0], ties="column")
    assert rows_of(tmp_path)[0] == "u:bdac"


@pytest.mark.parametrize(
    ("options", "option"), [({"ties": "column"}, "tie_column"), ({"kinds": KindsConfig(targets=("x",))}, "kind_column")]
)
def test_a_log_without_the_needed_column_names_the_option_to_set(
    tmp_path: Path, options: dict[str, Any], option: str
) -> None:
    pq.write_table(interaction_schema().empty_table(), tmp_path / "interactions.parquet")
    write_json(tmp_path / "validation.json", {"time": "real"})
    with pytest.raises(UserError, match=f"set validate.{option} and run the validate stage again"):
        build_sequences(SequencesConfig(**options), tmp_path, tmp_path / "out", engine=ENGINE)


def test_validate_carries_kind_and_tie_order_and_kinds_make_events_different(tmp_path: Path) -> None:
    rows = ["u,i,2024-03-01,view,2", "u,i,2024-03-01,buy,1", "u,i,2024-03-01,buy,7", "u,j,2024-03-02,view,"]
    log = written(tmp_path, rows, header="user_id,item_id,timestamp,event,seq")
    columns = {"kind_column": "event", "tie_column": "seq", "max_quarantine_share": 0.5}
    assert checked(log, tmp_path, **columns, **SMALL)["quarantined"] == 1
    table = pq.read_table(tmp_path / "out" / "interactions.parquet")
    assert table["kind"].to_pylist() == ["view", "buy", "view"]
    assert table["tie"].to_pylist() == [2, 1, 0]
