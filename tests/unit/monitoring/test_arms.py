"""Sums over the users of both arms, compared with a loop over all rows in Python."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from elcrec.data.engine import Session
from elcrec.monitoring.arms import ARMS, began, daily_sums
from elcrec.monitoring.daily import RATIOS
from tests.support.engines import ENGINE
from tests.support.shown_days import DAY, FIRST, two_arms

DIGESTS = {"champion": "a" * 64, "challenger": "b" * 64}
METRICS = ("ctr", "conversion", "hit_rate")
DAYS = 4


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return pa.concat_tables(two_arms(DAYS, DIGESTS, users=60, lift=0.5))


@contextmanager
def opened(table: pa.Table, folder: Path) -> Iterator[Session]:
    with ENGINE.session(folder / "out") as session:
        session.enter("attributed", table)
        yield session


def answers_of(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return what each answer counts for."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        one = found.setdefault(row["answer_id"], defaultdict(float, answers=1.0))
        one["impressions"] += 1
        one["clicks"] += row["events"] > 0
        one["converted"] = float(one["converted"] or row["events"] > 0)
        one["followed"] = float(row["next_time"] is not None)
        one["hits"] += row["is_next"]
    return found


def expected(rows: list[dict[str, Any]], last: int) -> dict[str, dict[str, tuple[float, float, int]]]:
    """Return value, variance and users of each rate of each arm over all days until `last`."""
    users: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["arm"] is not None and row["time"].timestamp() < (last + 1) * 86_400:
            users[row["arm"], row["user_key"]].append(row)
    found: dict[str, dict[str, tuple[float, float, int]]] = defaultdict(dict)
    for arm in ARMS:
        sums = [answers_of(of).values() for (own, _), of in users.items() if own == arm]
        for name in METRICS:
            y, x = (np.array([sum(each[part] for each in one) for one in sums]) for part in RATIOS[name])
            y, x = y[x > 0], x[x > 0]
            ratio, n = y.sum() / x.sum(), len(x)
            found[name][arm] = ratio, n / (n - 1) * ((y - ratio * x) ** 2).sum() / x.sum() ** 2, len(sums)
    return found


def test_rates_variances_and_users_of_every_day_are_those_of_all_rows_until_then(
    table: pa.Table, tmp_path: Path
) -> None:
    with opened(table, tmp_path) as session:
        assert began(session, DIGESTS) == FIRST  # type: ignore[arg-type]
        days, crossed = daily_sums(session, FIRST, FIRST + DAYS - 1, METRICS)

    assert crossed == 0
    assert [day.day for day in days] == list(range(FIRST, FIRST + DAYS))
    for day in days:
        wanted = expected(table.to_pylist(), day.day)
        for name in METRICS:
            for arm in ARMS:
                ratio, (value, variance, users) = day.rates[name][arm], wanted[name][arm]
                assert (ratio.value, ratio.variance) == pytest.approx((value, variance))
                assert day.users[arm] == users


def test_days_without_answers_do_not_change_the_verdict(table: pa.Table, tmp_path: Path) -> None:
    with opened(table, tmp_path) as session:
        began(session, DIGESTS)  # type: ignore[arg-type]
        days, _ = daily_sums(session, FIRST + 2, FIRST + DAYS + 1, METRICS)

    moments = [row for row in table.to_pylist() if row["time"].timestamp() >= (FIRST + 2) * 86_400]
    value, variance, users = expected(moments, FIRST + DAYS)["ctr"]["challenger"]
    last = days[-1]
    assert (last.rates["ctr"]["challenger"].value, last.users["challenger"]) == (pytest.approx(value), users)
    assert last.rates["ctr"]["challenger"].variance == pytest.approx(variance)
    assert (days[-1].rates, days[-1].users) == (days[-3].rates, days[-3].users)


def changed(table: pa.Table, name: str, values: Mapping[int, Any]) -> pa.Table:
    column = table[name].to_pylist()
    for place, value in values.items():
        column[place] = value
    return table.set_column(
        table.schema.get_field_index(name), table.schema.field(name), pa.array(column, table.schema.field(name).type)
    )


def test_a_user_in_both_arms_is_counted_as_that_and_in_neither(table: pa.Table, tmp_path: Path) -> None:
    rows = table.to_pylist()
    place = next(n for n, row in enumerate(rows) if row["arm"] == "champion")
    user, other = rows[place]["user_key"], next(row["user_key"] for row in rows if row["arm"] == "challenger")
    own = {n: other for n, row in enumerate(rows) if row["user_key"] == user}

    with opened(changed(table, "user_key", own), tmp_path) as session:
        began(session, DIGESTS)  # type: ignore[arg-type]
        days, crossed = daily_sums(session, FIRST, FIRST + DAYS - 1, METRICS)

    left = [row for row in rows if row["user_key"] not in {user, other}]
    assert crossed == 1
    for arm in ARMS:
        value, variance, users = expected(left, FIRST + DAYS)["ctr"][arm]
        ratio = days[-1].rates["ctr"][arm]
        assert (ratio.value, ratio.variance) == pytest.approx((value, variance))
        assert days[-1].users[arm] == users


def test_a_test_begins_once_both_versions_were_shown_in_their_own_arms(table: pa.Table, tmp_path: Path) -> None:
    rows = table.to_pylist()
    early = [row["time"].timestamp() * 1e6 < (FIRST + 1) * DAY for row in rows]
    stood_in = {n: DIGESTS["champion"] for n, row in enumerate(rows) if early[n] and row["arm"] == "challenger"}
    alone = {n: DIGESTS["champion"] for n, row in enumerate(rows) if row["arm"] == "challenger"}

    with opened(changed(table, "digest", stood_in), tmp_path) as session:
        assert began(session, DIGESTS) == FIRST + 1  # type: ignore[arg-type]
    with opened(changed(table, "digest", alone), tmp_path) as session:
        assert began(session, DIGESTS) is None  # type: ignore[arg-type]


def test_users_answered_by_the_champion_in_place_of_the_challenger_stay_in_its_arm(
    table: pa.Table, tmp_path: Path
) -> None:
    rows = table.to_pylist()
    some = {n: DIGESTS["champion"] for n, row in enumerate(rows) if row["arm"] == "challenger" and n % 3 == 0}

    with opened(changed(table, "digest", some), tmp_path) as session:
        began(session, DIGESTS)  # type: ignore[arg-type]
        days, crossed = daily_sums(session, FIRST, FIRST + DAYS - 1, METRICS)

    value, _, users = expected(rows, FIRST + DAYS)["ctr"]["challenger"]
    assert (days[-1].rates["ctr"]["challenger"].value, days[-1].users["challenger"]) == (pytest.approx(value), users)
    assert crossed == 0
