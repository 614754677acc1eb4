from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from elcrec.config import EncoderConfig, IntentConfig
from elcrec.errors import UserError
from elcrec.model.sequence_model import SequenceModel
from elcrec.training.loop import fit
from elcrec.training.warm_start import WarmStart
from tests.unit.training.helpers import ring_data, tiny_config

ITEMS = 6
MOVED = np.array([3, 0, 1, 0, 6, 2], np.int32)
"""Where the items 1 to 6 stand in the other catalogue; it does not know the items 2 and 4."""


def _model(seed: int, **changes: object) -> SequenceModel:
    torch.manual_seed(seed)
    return SequenceModel(tiny_config(**changes).model, ITEMS)


def _start(model: SequenceModel) -> WarmStart:
    return WarmStart(model=model, items=MOVED, digest="d")


def test_known_items_take_the_vectors_of_the_other_catalogue_and_new_ones_keep_theirs() -> None:
    ours, theirs, untouched = _model(0), _model(1), _model(0)
    assert _start(theirs).lay_over(ours)
    vectors, source, fresh = (model.item_vectors() for model in (ours, theirs, untouched))
    for item, moved in enumerate(MOVED, start=1):
        assert torch.equal(vectors[item], source[moved] if moved else fresh[item])
    assert not vectors[0].any()
    for name, weight in theirs.encoder.blocks.state_dict().items():
        assert torch.equal(ours.encoder.blocks.state_dict()[name], weight), name
    assert torch.equal(ours.encoder.position_embedding.weight, theirs.encoder.position_embedding.weight)


@pytest.mark.parametrize(("changes", "copied"), [({}, True), ({"intents": IntentConfig(num_intents=5)}, False)])
def test_centres_are_copied_where_there_are_as_many(changes: dict[str, object], copied: bool) -> None:
    ours, theirs = _model(0, **changes), _model(1)
    assert _start(theirs).lay_over(ours) is copied
    assert torch.equal(ours.intents.centers_KD, theirs.intents.centers_KD) is copied


def test_an_encoder_of_another_size_is_refused() -> None:
    wide = EncoderConfig(window=8, hidden_size=16, num_blocks=1, hidden_dropout=0.2, attention_dropout=0.2)
    with pytest.raises(UserError, match=r"hidden_size 8.*train.encoder has .*hidden_size 16"):
        _start(_model(1)).lay_over(_model(0, encoder=wide))


SMALL = EncoderConfig(window=8, hidden_size=8, num_blocks=1)


@pytest.mark.parametrize(
    "changes",
    [{"num_heads": 4}, {"mixer": "rotary"}, {"branch": "skip"}, {"branch": "gated_differences", "distances": (1, 2)}],
    ids=str,
)
def test_an_encoder_whose_weights_mean_something_else_is_refused(changes: dict[str, Any]) -> None:
    theirs = _model(1, encoder=replace(SMALL, branch="gated_differences") if "distances" in changes else SMALL)
    with pytest.raises(UserError, match=rf"train.encoder has .*{list(changes)[-1]}"):
        _start(theirs).lay_over(_model(0, encoder=replace(SMALL, **changes)))


def test_dropout_and_what_is_not_used_may_differ() -> None:
    other = replace(SMALL, hidden_dropout=0.1, attention_dropout=0.1, branch_share=0.5, distances=(2,))
    assert _start(_model(1, encoder=SMALL)).lay_over(_model(0, encoder=other))


def test_centres_of_another_kind_are_not_copied() -> None:
    assert not _start(_model(1, objective="iclrec")).lay_over(_model(0, objective="elcrec"))


@pytest.mark.slow
def test_a_warm_start_is_ahead_after_one_epoch_and_has_a_checkpoint_of_its_own(tmp_path: Path) -> None:
    data = ring_data(400)
    taught = fit(data, tiny_config(epochs=30, learning_rate=0.01), tmp_path / "taught")
    same = WarmStart(model=taught.model, items=np.arange(1, data.num_items + 1, dtype=np.int32), digest="d")
    cold = fit(data, tiny_config(epochs=1), tmp_path / "one")
    warm = fit(data, tiny_config(epochs=1), tmp_path / "one", warm_start=same)
    assert warm.valid["ndcg@5"] > cold.valid["ndcg@5"] + 0.2
