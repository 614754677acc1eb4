import os
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from elcrec.adapters.feast_publishing import merge_of, read_back
from elcrec.adapters.feast_store import FeastStore, _history_rows
from elcrec.adapters.offline_files import HISTORY, OUTPUT, stored_rows, survey, write_offline
from elcrec.adapters.quiet import quiet
from elcrec.data.forgotten import Forgotten
from elcrec.errors import UserError
from elcrec.serving.ports import Event, PushOutcome, UserHistory
from tests.support.feature_tables import tables

REPOSITORY = Path(__file__).parents[3] / "features"
SERVICE = "elcrec_v1"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    counts = FeastStore(folder, REPOSITORY).publish(tables({"ann": ["i1", "i2"], "Zoë 7": ["i2"]}), service=SERVICE)
    assert counts == {"user_history": 2, "user_model_output": 2, "item_statistics": 2}
    return folder


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "store"))


def test_what_was_published_is_served_although_its_times_are_of_1970(published: Path) -> None:
    ann, zoe = FeastStore(published, REPOSITORY).users(["ann", "Zoë 7"], service=SERVICE)

    assert ann is not None
    assert zoe is not None
    assert ann.item_ids == ["i1", "i2"]
    assert ann.event_times == [datetime(1970, 1, 1, 0, 0, second, tzinfo=UTC) for second in (1, 2)]
    assert (ann.intent, zoe.intent) == (None, 0)
    assert zoe.vector == [0.5, 1.0]
    assert zoe.bundle == "b1"


def test_a_model_output_that_outlived_its_ttl_is_left_out(tmp_path: Path) -> None:
    repository = Path(shutil.copytree(REPOSITORY, tmp_path / "features"))
    views = repository / "views.py"
    text = views.read_text(encoding="utf-8")
    views.write_text(text.replace("timedelta(days=15)", "timedelta(seconds=1)"), encoding="utf-8")
    store = FeastStore(tmp_path / "store", repository)
    store.publish(tables({"ann": ["i1", "i2"], "bob": ["i2"]}), service=SERVICE)
    time.sleep(2.1)

    (bob,) = store.users(["bob"], service=SERVICE)

    assert bob is not None
    assert (bob.item_ids, bob.intent, bob.vector, bob.bundle) == (["i2"], None, [], None)


def test_an_unknown_user_has_no_features(published: Path) -> None:
    assert FeastStore(published, REPOSITORY).users(["nobody"], service=SERVICE) == [None]


def test_a_second_publication_replaces_values_of_the_same_event_time(folder: Path) -> None:
    store = FeastStore(folder, REPOSITORY)

    store.publish(tables({"ann": ["i2", "i1"], "bob": ["i1"]}, bundle="b2"), service=SERVICE)

    ann, bob = store.users(["ann", "bob"], service=SERVICE)
    assert ann is not None
    assert bob is not None
    assert (ann.item_ids, ann.bundle) == (["i2", "i1"], "b2")
    assert bob.item_ids == ["i1"]


def test_item_statistics_are_served_by_their_own_service(published: Path) -> None:
    feast = FeastStore(published, REPOSITORY)._feast

    with quiet():
        service = feast.get_feature_service("elcrec_items_v1")
        served = feast.get_online_features(features=service, entity_rows=[{"item_id": "i1"}]).to_dict()

    assert (served["count"], served["total"]) == ([0], [1])


def test_a_pushed_event_is_served_at_once(folder: Path) -> None:
    store = FeastStore(folder, REPOSITORY)
    now = datetime.now(UTC)

    outcome = store.push_events([Event(user_id="ann", item_id="i9", timestamp=now)])

    (ann,) = store.users(["ann"], service=SERVICE)
    assert ann is not None
    assert outcome == PushOutcome(accepted=1, duplicates=0, late=0, refused=0, users=1)
    assert ann.item_ids == ["i1", "i2", "i9"]
    assert ann.event_times[-1] == now
    assert store.histories(["ann", "nobody"], service=SERVICE) == [
        UserHistory(item_ids=["i1", "i2", "i9"], updated=now, seen=[]),
        None,
    ]


def test_an_undefined_service_is_refused_on_both_sides(published: Path, folder: Path) -> None:
    with pytest.raises(UserError, match="'elcrec_v9' is unknown"):
        FeastStore(published, REPOSITORY).users(["ann"], service="elcrec_v9")
    with pytest.raises(UserError, match="'elcrec_v9' is unknown"):
        FeastStore(folder, REPOSITORY).publish(tables({"ann": ["i1"]}), service="elcrec_v9")


def test_reading_back_finds_a_value_that_was_not_published(published: Path, tmp_path: Path) -> None:
    store, other = FeastStore(published, REPOSITORY), tables({"ann": ["i2"]}, bundle="b9")
    rows, window = _history_rows(store._feast)
    moment, found = datetime.now(UTC), survey(other, Forgotten())
    write_offline(other, moment, tmp_path / "data", Forgotten(), found.gone)
    stored, merge = stored_rows(other, tmp_path / "data", moment), merge_of(other, found, window)

    def everybody(table: pa.Table) -> npt.NDArray[np.bool_]:
        return np.ones(len(table), bool)

    with pytest.raises(UserError, match="user_history serves other values of item_ids"):
        read_back(store._feast, {HISTORY: stored[HISTORY]}, rows, merge, everybody)
    with pytest.raises(UserError, match="user_model_output serves other values of bundle"):
        read_back(store._feast, {OUTPUT: stored[OUTPUT]}, rows, merge, everybody)


def test_a_missing_repository_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no Feast repository; .*ELCREC_FEATURES"):
        FeastStore(tmp_path / "store", tmp_path).users(["ann"], service=SERVICE)


def test_publishing_leaves_modules_path_and_environment_as_they_were(folder: Path) -> None:
    before = (Path.cwd(), list(sys.path), os.environ.get("ELCREC_STORE"))

    FeastStore(folder, REPOSITORY).publish(tables({"ann": ["i1"]}), service=SERVICE)

    assert (Path.cwd(), list(sys.path), os.environ.get("ELCREC_STORE")) == before
    assert "views" not in sys.modules


def test_the_console_stays_clean(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    FeastStore(folder, REPOSITORY).publish(tables({"ann": ["i1"]}), service=SERVICE)

    assert capfd.readouterr() == ("", "")


def test_a_push_into_a_copied_store_leaves_the_original_alone(published: Path, folder: Path) -> None:
    before = FeastStore(published, REPOSITORY).users(["ann"], service=SERVICE)

    FeastStore(folder, REPOSITORY).publish(tables({"ann": ["i9"]}), service=SERVICE)

    assert FeastStore(published, REPOSITORY).users(["ann"], service=SERVICE) == before
