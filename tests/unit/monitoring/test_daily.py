"""The measurements of a day, compared with a naive computation user by user."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from elcrec.data.engine import Session
from elcrec.monitoring.daily import Measured, Ratio, bundles, days, measure, score_edges
from tests.support.engines import ENGINE
from tests.support.shown_days import DIGEST, FIRST, World

Row = Mapping[str, Any]
TABLE = pa.concat_tables(World(seed=4, users=120, intents=3).days(3))


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with ENGINE.session(tmp_path_factory.mktemp("daily") / "out") as session:
        session.enter("attributed", TABLE)
        yield session


@pytest.fixture(scope="module")
def measured(session: Session) -> dict[tuple[str, int], Measured]:
    edges = score_edges(session, {DIGEST: FIRST})
    periods = [(DIGEST, day, day) for day in (FIRST, FIRST + 1)] + [(DIGEST, day, -1) for day in (FIRST, FIRST + 2)]
    return measure(session, periods, edges)


def rows_of(*wanted: int) -> list[Row]:
    rows: list[Row] = TABLE.to_pylist()
    return [row for row in rows if row["time"].timestamp() // 86400 in wanted]


def answers_of(rows: list[Row]) -> list[list[Row]]:
    found = defaultdict(list)
    for row in rows:
        found[row["answer_id"]].append(row)
    return list(found.values())


def who(row: Row) -> str:
    return row["user_key"] or row["answer_id"]


def clustered(parts: list[tuple[str, float, float]], users: set[str] | None = None) -> tuple[float, float]:
    """The ratio of sums and its variance, from a user, y and x each."""
    sums: dict[str, list[float]] = {name: [0.0, 0.0] for name in users or ()}
    for name, y, x in parts:
        total = sums.setdefault(name, [0.0, 0.0])
        total[0], total[1] = total[0] + y, total[1] + x
    y, x = np.array([total for total in sums.values() if total[1]]).T
    ratio = y.sum() / x.sum()
    return ratio, len(y) / (len(y) - 1) * ((y - ratio * x) ** 2).sum() / x.sum() ** 2


def same(ratio: Ratio, expected: tuple[float, float]) -> bool:
    return (ratio.value, ratio.variance) == pytest.approx(expected, rel=1e-9, abs=1e-15)


COUNTED: dict[str, Callable[[list[Row]], tuple[float, float]]] = {
    "ctr": lambda answer: (sum(row["events"] > 0 for row in answer), len(answer)),
    "conversion": lambda answer: (any(row["events"] for row in answer), 1),
    "hit_rate": lambda answer: (sum(row["is_next"] for row in answer), answer[0]["next_time"] is not None),
    "cold": lambda answer: (answer[0]["known"] == 0, 1),
}


@pytest.mark.parametrize("wanted", [(FIRST,), (FIRST + 1,), (FIRST, FIRST + 2)])
@pytest.mark.parametrize("name", COUNTED)
def test_ratios_and_their_variances_are_those_of_users(
    name: str, wanted: tuple[int, ...], measured: dict[tuple[str, int], Measured]
) -> None:
    of = measured[DIGEST, wanted[0] if len(wanted) == 1 else -1]
    parts = [(who(answer[0]), *map(float, COUNTED[name](answer))) for answer in answers_of(rows_of(*wanted))]
    assert same(of.ratios[name], clustered(parts))
    assert (of.answers, of.users) == (len(parts), len({user for user, _, _ in parts}))


def test_shares_of_intents_are_of_the_answers_that_have_one(measured: dict[tuple[str, int], Measured]) -> None:
    answers = [answer[0] for answer in answers_of(rows_of(FIRST)) if answer[0]["intent"] is not None]
    found = measured[DIGEST, FIRST].intents
    assert sum(ratio.value for ratio in found.values()) == pytest.approx(1)
    for name, ratio in found.items():
        assert same(ratio, clustered([(who(row), float(str(row["intent"]) == name), 1.0) for row in answers]))


def test_shares_of_history_lengths_are_of_the_answers_to_a_known_history(
    measured: dict[tuple[str, int], Measured],
) -> None:
    answers = [answer[0] for answer in answers_of(rows_of(FIRST)) if answer[0]["known"] > 0]
    found = measured[DIGEST, FIRST].lengths
    groups = [1 << row["known"].bit_length() - 1 for row in answers]
    assert list(found) == [str(group) for group in sorted(set(groups))]
    for name, ratio in found.items():
        pairs = zip(answers, groups, strict=True)
        assert same(ratio, clustered([(who(row), float(str(group) == name), 1.0) for row, group in pairs]))


def test_deciles_of_scores_are_those_of_the_first_day(
    measured: dict[tuple[str, int], Measured], session: Session
) -> None:
    edges = score_edges(session, {DIGEST: FIRST})[DIGEST]
    rows = [row for row in rows_of(FIRST + 1) if row["policy"] == "model"]
    found = measured[DIGEST, FIRST + 1].deciles
    assert list(found) == [str(decile) for decile in range(1, 11)]
    for name, ratio in found.items():
        inside = [row for row in rows if str(1 + sum(row["score"] >= edge for edge in edges)) == name]
        assert same(ratio, clustered([(who(row), float(row["events"] > 0), 1.0) for row in inside]))
    shares = [ratio.trials for ratio in measured[DIGEST, FIRST].deciles.values()]
    assert max(shares) - min(shares) <= 1


def test_overlap_is_the_share_of_equal_pairs_of_two_users_items(
    measured: dict[tuple[str, int], Measured],
) -> None:
    by_user = defaultdict(list)
    for row in rows_of(FIRST):
        by_user[who(row)].append(row["item_id"])
    pairs = [one == other for a, b in combinations(by_user.values(), 2) for one, other in product(a, b)]
    found = measured[DIGEST, FIRST].ratios["overlap"]
    assert found.value == pytest.approx(sum(pairs) / len(pairs))
    assert measured[DIGEST, FIRST].items == len({item for items in by_user.values() for item in items})


def test_the_error_of_overlap_matches_its_spread_over_many_worlds(tmp_path: Path) -> None:
    tables = [next(World(seed=seed, users=150, intents=3).days(1)) for seed in range(40)]
    for number, table in enumerate(tables):
        digests = pa.array([f"{number:02d}"] * len(table))
        tables[number] = table.set_column(table.schema.get_field_index("digest"), "digest", digests)
    with ENGINE.session(tmp_path / "out") as session:
        session.enter("attributed", pa.concat_tables(tables))
        found = measure(session, [(f"{number:02d}", FIRST, FIRST) for number in range(40)], {})
    overlaps = [each.ratios["overlap"] for each in found.values()]
    observed = np.std([ratio.value for ratio in overlaps], ddof=1)
    assert observed == pytest.approx(np.sqrt(np.mean([ratio.variance for ratio in overlaps])), rel=0.4)
    assert all(each.deciles == {} for each in found.values())


def test_bundles_and_days_of_a_table_are_listed(session: Session) -> None:
    assert [(row["digest"], row["model"], row["first"]) for row in bundles(session)] == [(DIGEST, "elcrec", FIRST)]
    assert [(digest, day) for digest, day, _ in days(session)] == [(DIGEST, FIRST + place) for place in range(3)]
    assert measure(session, [], {}) == {}
