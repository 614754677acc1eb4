"""Items that users were shown recently, so that they are not shown again at once.

Each server process knows only its own answers.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

_USERS, _ANSWERS = 100_000, 10


class Shown:
    """The newest answers, for the users who asked most recently."""

    def __init__(
        self, *, users: int = _USERS, answers: int = _ANSWERS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Set the limits.

        Args:
            users: largest number of users; those who asked most recently are kept.
            answers: largest number of answers per user.
            clock: monotonic seconds.
        """
        self._users, self._answers, self._clock = users, answers, clock
        self._of: OrderedDict[str, deque[tuple[float, Sequence[str]]]] = OrderedDict()

    def add(self, user_id: str | None, item_ids: Sequence[str]) -> None:
        """Remember an answer; an answer without a user is not remembered."""
        if user_id is None:
            return
        answers = self._of.setdefault(user_id, deque(maxlen=self._answers))
        answers.append((self._clock(), item_ids))
        self._of.move_to_end(user_id)
        if len(self._of) > self._users:
            self._of.popitem(last=False)

    def to(self, user_id: str | None, seconds: float) -> list[str]:
        """Return the items that the user was shown within the last `seconds`."""
        since = self._clock() - seconds
        answers = self._of.get(user_id, ()) if user_id is not None else ()
        return [item_id for moment, item_ids in answers if moment > since for item_id in item_ids]
