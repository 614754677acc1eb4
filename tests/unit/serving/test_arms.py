import pytest

from elcrec.data.user_keys import user_key
from elcrec.serving.arms import arm_of

USERS = [f"user-{number}" for number in range(20_000)]


def challenged(test: str, share: float) -> set[str]:
    return {user for user in USERS if arm_of(user, test=test, share=share) == "challenger"}


def test_the_arm_of_a_user_is_the_same_on_every_machine_and_in_every_year() -> None:
    arms = [arm_of(user, test="elcrec 2", share=0.5) for user in ("ann", "bob", "zoë", "eve", "joe", "kim")]

    assert arms == ["champion", "challenger"] * 3


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9])
def test_the_challenger_gets_its_share_of_the_users(share: float) -> None:
    error = 4 * (share * (1 - share) / len(USERS)) ** 0.5

    assert len(challenged("elcrec 2", share)) / len(USERS) == pytest.approx(share, abs=error)


def test_a_larger_share_keeps_the_users_of_a_smaller_one() -> None:
    assert challenged("elcrec 2", 0.1) < challenged("elcrec 2", 0.3)


def test_the_arm_is_independent_of_the_arm_of_another_test_and_of_the_key_of_the_user() -> None:
    of_two, of_three = challenged("elcrec 2", 0.5), challenged("elcrec 3", 0.5)
    even_keys = {user for user in USERS if int(user_key(user, "elcrec 2"), 16) % 2}

    for other in (of_three, even_keys):
        assert len(of_two & other) / len(USERS) == pytest.approx(0.25, abs=0.0125)
