"""What users were shown a moment ago, so that it is not shown to them again at once.

Each server process knows its own answers alone.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

_USERS, _ANSWERS = 100_000, 10


class Shown:
    """The newest answers to the users who asked last."""

    def __init__(
        self, *, users: int = _USERS, answers: int = _ANSWERS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Bound what is remembered.

        Args:
            users: most users; of more, those who asked last.
            answers: most answers of each.
            clock: seconds that only rise.
        """
        self._users, self._answers, self._clock = users, answers, clock
        self._of: OrderedDict[str, deque[tuple[float, Sequence[str]]]] = OrderedDict()

    def add(self, user_id: str | None, item_ids: Sequence[str]) -> None:
        """Remember an answer; of nobody in particular nothing is remembered."""
        if user_id is None:
            return
        answers = self._of.setdefault(user_id, deque(maxlen=self._answers))
        answers.append((self._clock(), item_ids))
        self._of.move_to_end(user_id)
        if len(self._of) > self._users:
            self._of.popitem(last=False)

    def to(self, user_id: str | None, seconds: float) -> list[str]:
        """Return what the user was shown within the last `seconds`."""
        since = self._clock() - seconds
        answers = self._of.get(user_id, ()) if user_id is not None else ()
        return [item_id for moment, item_ids in answers if moment > since for item_id in item_ids]
