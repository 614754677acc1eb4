import numpy as np
import pytest
import torch

from elcrec.config import EncoderConfig, ModelConfig
from elcrec.data.ragged import Ragged
from elcrec.model.sequence_model import SequenceModel
from elcrec.registry import HeadKind, IntentKind

ROWS = [[3], [5, 1, 4], [2, 2], [9, 8, 7, 6, 5, 4, 3], [1, 2, 3, 4, 5, 6, 7, 8, 9]]


def _model(kind: IntentKind | None, head: HeadKind = "dot") -> SequenceModel:
    torch.manual_seed(0)
    branch = {"branch": "gated_differences", "branch_share": None, "distances": (1, 2)}
    encoder = EncoderConfig(window=8, hidden_size=8, num_blocks=2, mixer="rotary", **branch)
    model = SequenceModel(
        ModelConfig(encoder=encoder, head=head, intents=kind, num_intents=3 if kind else 0), num_items=9
    )
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            torch.nn.init.normal_(tensor, std=0.5)
    return model.eval()


@pytest.mark.parametrize("head", ["dot", "cosine"])
@pytest.mark.parametrize("kind", [None, "learned", "clustered", "assigned", "items"])
@torch.inference_mode()
def test_a_request_alone_is_encoded_as_in_company(kind: IntentKind | None, head: HeadKind) -> None:
    model = _model(kind, head)
    together = model.encode(Ragged.from_rows(ROWS))
    prepared = model.prepared()

    for place, row in enumerate(ROWS):
        alone = model.encode_alone(torch.tensor(row[-8:]), prepared)
        torch.testing.assert_close(alone.vectors[0], together.vectors[place], rtol=1e-4, atol=1e-5)
        assert alone.intents.item() == together.intents[place]


def test_only_intents_that_score_items_need_more_than_the_last_state() -> None:
    rows = Ragged.from_rows(ROWS)
    for kind in ("learned", "assigned", "items"):
        model = _model(kind)
        asked, unasked = (model.encode(rows, intents=intents) for intents in (True, False))
        np.testing.assert_allclose(unasked.vectors, asked.vectors, rtol=1e-4, atol=1e-5)
        assert (unasked.intents == -1).all() == (kind != "assigned")
