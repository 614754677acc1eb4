import json

import pytest

from tests.golden.losses import CONFIGS, FILE, trajectory

TOLERANCE = {"rel": 1e-4, "abs": 1e-6}
"""CPUs round these losses apart by up to 3e-6 (SSE to AVX-512); a learning rate 1 % off moves them by 1e-3."""


@pytest.mark.parametrize("name", CONFIGS)
def test_the_first_ten_steps_have_the_reviewed_losses(name: str) -> None:
    reviewed = json.loads(FILE.read_text(encoding="utf-8"))[name]
    steps = trajectory(CONFIGS[name])
    assert len(steps) == len(reviewed) == 10
    for index, (ours, theirs) in enumerate(zip(steps, reviewed, strict=True)):
        message = f"step {index + 1}; review the difference after: make golden"
        assert ours == pytest.approx(theirs, **TOLERANCE), message
