"""The properties that every mixer must have."""

import numpy as np
import torch
from torch import Tensor

from elcrec.config import EncoderConfig
from elcrec.data.ragged import Ragged
from elcrec.model.grouping import group_rows
from elcrec.model.mixer import Mixer
from elcrec.model.packing import pack

WINDOW, WIDTH = 12, 8
ROWS = [[3], [5, 1, 4], [2, 2], [9, 8, 7, 6, 5, 4, 3], [1] * 12, *([[6, 5, 4, 3]] * 9)]
SIZE = sum(map(len, ROWS))


def require_sound(kind: type[Mixer]) -> None:
    """Check that both layouts, the last items and rows alone agree, and that no position sees a later one."""
    torch.manual_seed(0)
    config = EncoderConfig(window=WINDOW, hidden_size=WIDTH, num_heads=2)
    mixer, states_MD = kind(config).double().eval(), torch.randn(SIZE, WIDTH, dtype=torch.float64)
    for weight in mixer.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    mixed_MD = _mixed(mixer, states_MD)
    rows = torch.split(states_MD, [len(row) for row in ROWS])
    torch.testing.assert_close(torch.cat([mixer.alone(row) for row in rows]), mixed_MD)
    for row in rows:
        torch.testing.assert_close(mixer.last_alone(row), mixer.alone(row)[-1:])
    _require_no_look_ahead(mixer, states_MD, mixed_MD)


def _mixed(mixer: Mixer, states_MD: Tensor) -> Tensor:
    """What it makes of every item, by either layout, the last items on their own as well."""
    found = []
    ends = torch.from_numpy(np.cumsum([len(row) for row in ROWS]) - 1)
    grouped, packed = group_rows(Ragged.from_rows(ROWS)), pack(Ragged.from_rows(ROWS), WINDOW, torch.device("cpu"))
    for layout, places in ((grouped, grouped.positions_M), (packed, torch.arange(SIZE))):
        # Padding may hold anything.
        states_ND = torch.full((len(layout.items_N), WIDTH), 7.0, dtype=torch.float64).index_copy(0, places, states_MD)
        masks = layout.masks(torch.float64)
        found.append(layout.of_items(mixer(states_ND, layout, masks))[:SIZE])
        torch.testing.assert_close(mixer.last(states_ND, layout, masks), found[-1][ends])
    torch.testing.assert_close(*found)
    return found[0].detach()


def _require_no_look_ahead(mixer: Mixer, states_MD: Tensor, mixed_MD: Tensor) -> None:
    ends = np.cumsum([len(row) for row in ROWS]) - 1
    changed_MD = states_MD.clone()
    changed_MD[ends] += 1
    earlier = torch.ones(SIZE, dtype=torch.bool)
    earlier[ends] = False
    torch.testing.assert_close(_mixed(mixer, changed_MD)[earlier], mixed_MD[earlier])
