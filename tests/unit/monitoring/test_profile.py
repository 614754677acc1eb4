"""The training profile in a bundle, and older bundles without one."""

import json
from pathlib import Path

import numpy as np

from elcrec.data.history_lengths import history_lengths
from elcrec.data.ragged import Ragged
from elcrec.monitoring.profile import Profile, read_profile

OLD = Path(__file__).parents[1] / "serving/bundles/1-first/bundle"


def test_histories_are_grouped_by_their_published_length() -> None:
    histories = Ragged.from_rows([np.arange(length) + 1 for length in (1, 2, 3, 4, 60, 90, 7, 8)])
    assert history_lengths(histories, 50) == {"1": 1 / 8, "2": 2 / 8, "4": 2 / 8, "8": 1 / 8, "32": 2 / 8}
    assert history_lengths(histories, None)["64"] == 1 / 8


def test_a_bundle_has_its_training_profile_and_an_old_one_only_its_intents(tmp_path: Path) -> None:
    document = {"intents": [{"intent": 3, "share": 0.25}], "history_lengths": {"4": 0.5, "8": 0.5}}
    (tmp_path / "intents.json").write_text(json.dumps(document), encoding="utf-8")
    assert read_profile(tmp_path) == Profile({"3": 0.25}, {"4": 0.5, "8": 0.5})
    old = read_profile(OLD)
    assert len(old.intents) == 4
    assert old.lengths == {}
