from elcrec.serving.shown import Shown


def test_an_answer_is_remembered_for_its_seconds_and_for_its_user_alone() -> None:
    now = [0.0]
    shown = Shown(clock=lambda: now[0])
    shown.add("ann", ["a", "b"])
    now[0] = 5
    shown.add("ann", ["c"])
    shown.add(None, ["d"])

    assert shown.to("ann", 10) == ["a", "b", "c"]
    assert shown.to("ann", 5) == ["c"]
    assert shown.to("bob", 10) == shown.to(None, 10) == []


def test_users_and_answers_are_bounded_and_those_who_asked_last_stay() -> None:
    shown = Shown(users=2, answers=2)
    for user, item in (("ann", "a"), ("bob", "b"), ("ann", "c"), ("cy", "d"), ("ann", "e")):
        shown.add(user, [item])

    assert shown.to("ann", 60) == ["c", "e"]
    assert shown.to("bob", 60) == []
