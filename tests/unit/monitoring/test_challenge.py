"""The champion's answers are replayed exactly; those that cannot be are left out and counted."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elcrec.artifacts import SCHEMA_VERSION, read_json, write_json
from elcrec.config import CounterfactualConfig, RulesConfig, to_dict
from elcrec.data.user_keys import user_key
from elcrec.errors import UserError
from elcrec.monitoring.attribution import ATTRIBUTED_SCHEMA
from elcrec.monitoring.challenge import challenge
from elcrec.ranking.files import RULES
from elcrec.serving.counterfactual import OnTheLog
from elcrec.serving.ports import RegisteredModel
from elcrec.serving.recommender import Query, Recommender
from tests.support.push_inputs import Inputs, add_model, bundle_of, make_inputs

SALT, SHOWN = "salt", 4
CUT = "1970-01-01T00:00:02.000000Z"
EXPLORES = RulesConfig(exploration=0.4, candidates=8)
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """A champion, a challenger, and the champion's answers."""

    folder: Path
    inputs: Inputs
    champion: Path
    challenger: Path
    rows: Rows

    def judge(self, rows: Rows | None = None, champion: Path | None = None, **config: Any) -> OnTheLog:
        folder = self.folder / "attributed"
        folder.mkdir(exist_ok=True)
        pq.write_table(
            pa.Table.from_pylist(self.rows if rows is None else rows, ATTRIBUTED_SCHEMA), folder / "attributed.parquet"
        )
        section = CounterfactualConfig(
            **({"attributed": str(folder), "least_effective": 1, "least_reached": 0.0} | config)
        )
        registered = RegisteredModel(name="m", version="7", bundle=champion or self.champion)
        return challenge(section, registered, self.challenger, self.inputs.sequences, salt=SALT)


def with_rules(inputs: Inputs, rules: RulesConfig, folder: Path) -> Path:
    document = {"schema_version": SCHEMA_VERSION, "rules": to_dict(rules)}
    write_json(inputs.evaluation / RULES, document)
    return bundle_of(inputs, folder)


def answers(bundle: Path, sequences: Path) -> Rows:
    """Answer every user after each of their events, and click what has an even number."""
    recommender = Recommender.load(bundle, seed=3)
    table = pq.read_table(sequences / "histories.parquet").to_pylist()
    rows: Rows = []
    for user in table:
        for place, moment in enumerate(user["event_times"]):
            history = user["item_ids"][: place + 1]
            (found,) = recommender.recommend([Query(history=history, k=SHOWN)])
            assert found.propensities is not None
            for number, (item, propensity) in enumerate(zip(found.item_ids, found.propensities, strict=True)):
                rows.append(
                    {
                        "answer_id": f"{user['user_id']}-{place}",
                        "time": moment + timedelta(milliseconds=1),
                        "user_key": user_key(user["user_id"], SALT),
                        "position": number + 1,
                        "item_id": item,
                        "propensity": propensity,
                        "digest": recommender.manifest.digest,
                        "events": 1 - int(item.split("-")[1]) % 2,
                    }
                )
    return sorted(rows, key=lambda row: (row["time"], row["answer_id"], row["position"]))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp("case")
    inputs = make_inputs(root, time="real", split={"test_cut": CUT})
    other = add_model(root, inputs.sequences, model_seed=5)
    champion = with_rules(inputs, EXPLORES, root / "champion")
    challenger = with_rules(other, EXPLORES, root / "challenger")
    return Case(root, inputs, champion, challenger, answers(champion, inputs.sequences))


def ids(rows: Rows) -> set[str]:
    return {row["answer_id"] for row in rows}


def test_every_answer_after_the_cut_is_replayed(case: Case) -> None:
    found = case.judge()

    late = [row for row in case.rows if row["time"] > datetime.fromisoformat(CUT)]
    assert found.problem is None
    assert (found.answers, found.shown) == (len(ids(late)), len(late))
    assert found.left_out["from before the end of the training log"] == len(ids(case.rows)) - len(ids(late))
    assert "not as the champion would answer from the log" not in found.left_out
    assert found.estimates is not None
    assert found.estimates.logged.mean == pytest.approx(np.mean([row["events"] for row in late]))


def test_a_champion_that_challenges_itself_would_have_earned_the_same(case: Case) -> None:
    estimates = Case(case.folder, case.inputs, case.champion, case.champion, case.rows).judge().estimates

    assert estimates is not None
    assert estimates.ips == estimates.logged
    assert estimates.reached == pytest.approx(1)


def test_what_cannot_be_replayed_is_left_out_and_counted(case: Case) -> None:
    whole = case.judge()
    late = sorted(ids([row for row in case.rows if row["time"] > datetime.fromisoformat(CUT)]))
    changes = {
        late[0]: {"propensity": 0.123},
        late[1]: {"user_key": user_key("nobody", SALT)},
        late[2]: {"digest": "another"},
        late[3]: {"user_key": None},
    }

    found = case.judge([row | changes.get(row["answer_id"], {}) for row in case.rows])

    assert found.left_out["not as the champion would answer from the log"] == 1
    assert found.left_out["of users that the log does not know"] == 2
    assert found.left_out["of another bundle"] == 1
    assert found.answers == whole.answers - 4


def test_at_most_the_configured_number_of_answers_is_replayed(case: Case) -> None:
    found = case.judge(answers=10)

    assert found.answers == 10
    assert found.left_out["more than are replayed"] == case.judge().answers - 10


def test_without_exploration_by_the_champion_no_estimate_is_made(case: Case, tmp_path: Path) -> None:
    found = case.judge(champion=with_rules(case.inputs, RulesConfig(), tmp_path / "bundle"))

    assert found.estimates is None
    assert found.problem is not None
    assert "no propensities" in found.problem


def test_a_log_with_too_little_information_is_reported_with_its_effective_number(case: Case) -> None:
    found = case.judge(least_effective=10_000)

    assert found.problem is not None
    assert "least_effective (10,000); log for a longer time, or explore more" in found.problem


def test_a_challenger_that_is_only_different_is_not_called_worse(case: Case) -> None:
    found = case.judge(least_reached=1.0)

    assert found.estimates is not None
    assert found.estimates.reached < 1
    assert found.problem is not None
    assert "least_reached (100.0%); explore among more candidates" in found.problem


def test_a_log_without_answers_of_the_champion_is_reported(case: Case) -> None:
    found = case.judge([row | {"digest": "another"} for row in case.rows])

    assert found.problem == "no answer of the champion can be replayed"
    assert found.left_out["of another bundle"] == len(ids(case.rows))


def test_a_challenger_that_may_have_learned_from_the_log_is_not_judged_by_it(case: Case, tmp_path: Path) -> None:
    split = case.inputs.sequences / "split.json"
    known = read_json(split)
    write_json(split, {name: value for name, value in known.items() if name != "test_cut"})
    try:
        with pytest.raises(UserError, match=r"set sequences\.split=temporal"):
            case.judge()
    finally:
        write_json(split, known)


def test_a_file_that_is_no_table_of_exposures_is_one_clear_error(case: Case) -> None:
    case.judge()
    (case.folder / "attributed" / "attributed.parquet").write_bytes(b"nothing")
    section = CounterfactualConfig(attributed=str(case.folder / "attributed"))

    with pytest.raises(UserError, match="run `elcrec exposures` again"):
        challenge(
            section,
            RegisteredModel(name="m", version="7", bundle=case.champion),
            case.challenger,
            case.inputs.sequences,
            salt=SALT,
        )
