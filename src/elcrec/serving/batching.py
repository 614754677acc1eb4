"""Questions that come at the same time are answered together."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class QueueFull(Exception):  # noqa: N818 - a state, not a mistake
    """More questions wait than may wait."""


class Batcher(Generic[Q, A]):
    """Hands questions to `work` in batches, one batch at a time, while the next batch gathers."""

    def __init__(
        self, work: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], *, size: int, wait: float, queue: int
    ) -> None:
        """Take the function that answers a batch, and the limits.

        Args:
            work: answers in the order of the questions.
            size: largest number of questions in a batch.
            wait: seconds that a batch waits for more questions, if the previous batch held several.
            queue: largest number of questions that may wait.
        """
        self._work, self._size, self._wait, self._most = work, size, wait, queue
        self._waiting: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def ask(self, question: Q) -> A:
        """Return the answer to one question.

        Raises:
            QueueFull: too many questions wait.
        """
        if len(self._waiting) >= self._most:
            raise QueueFull
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        """Answer batch after batch until no question comes within a wait."""
        try:
            while self._waiting:
                company = await self._answer(self._take())
                if company and len(self._waiting) < self._size:
                    await asyncio.sleep(self._wait)
        finally:
            self._runner = None

    def _take(self) -> list[tuple[Q, "asyncio.Future[A]"]]:
        """Remove a batch from the queue, and drop questions whose caller has gone."""
        batch: list[tuple[Q, asyncio.Future[A]]] = []
        while self._waiting and len(batch) < self._size:
            question, future = self._waiting.popleft()
            if not future.done():
                batch.append((question, future))
        return batch

    async def _answer(self, batch: list[tuple[Q, "asyncio.Future[A]"]]) -> bool:
        """Answer a batch; return whether it held several questions."""
        if not batch:
            return False
        try:
            answers: Sequence[A] = await self._work([question for question, _ in batch])
        except Exception as error:  # noqa: BLE001 - it belongs to those who asked
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
        return len(batch) > 1
