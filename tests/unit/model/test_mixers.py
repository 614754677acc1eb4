import pytest

from elcrec.config import EncoderConfig
from elcrec.model.mixer import Mixer
from elcrec.registry import MIXERS, load
from tests.support.mixers import require_sound


@pytest.mark.parametrize("name", MIXERS)
def test_layouts_last_items_and_rows_alone_agree(name: str) -> None:
    require_sound(load(MIXERS[name]))


def test_a_mixer_whose_rows_alone_differ_is_found() -> None:
    class Wrong(load(MIXERS["attention"])):
        def alone(self, states_LD: object) -> object:
            return super().alone(states_LD) + 1

    with pytest.raises(AssertionError):
        require_sound(Wrong)


def test_a_mixer_is_a_class_with_one_method() -> None:
    class Nothing(Mixer):
        def forward(self, states_ND: object, rows: object, masks: object) -> object:
            return states_ND

    require_sound(Nothing)
    with pytest.raises(NotImplementedError):
        Mixer(EncoderConfig())(None, None, None)
