import asyncio
from collections.abc import Sequence

import pytest

from elcrec.serving.batching import Batcher, QueueFull


class Work:
    """Doubles numbers; records its batches; blocks each until `open` is set."""

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        if not held:
            self.open.set()

    async def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        await self.open.wait()
        if 13 in numbers:
            raise ValueError("thirteen")
        return [2 * number for number in numbers]


async def started(batcher: Batcher[int, int], numbers: Sequence[int]) -> list["asyncio.Task[int]"]:
    tasks = [asyncio.create_task(batcher.ask(number)) for number in numbers]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


def test_questions_during_a_batch_form_the_next_ones() -> None:
    async def scene() -> None:
        work = Work(held=True)
        batcher = Batcher(work, size=3, wait=0, queue=10)
        tasks = await started(batcher, [1])
        tasks += await started(batcher, [2, 3, 4, 5])
        work.open.set()

        assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10]
        assert work.batches == [[1], [2, 3, 4], [5]]

    asyncio.run(scene())


def test_a_failed_batch_fails_its_own_questions_and_no_later_ones() -> None:
    async def scene() -> None:
        batcher = Batcher(Work(), size=3, wait=0, queue=10)

        with pytest.raises(ValueError, match="thirteen"):
            await batcher.ask(13)
        assert await batcher.ask(4) == 8

    asyncio.run(scene())


def test_too_many_questions_are_refused_at_once() -> None:
    async def scene() -> None:
        work = Work(held=True)
        batcher = Batcher(work, size=1, wait=0, queue=2)
        tasks = [*await started(batcher, [1]), *await started(batcher, [2, 3])]

        with pytest.raises(QueueFull):
            await batcher.ask(4)
        work.open.set()
        assert await asyncio.gather(*tasks) == [2, 4, 6]

    asyncio.run(scene())


def test_a_question_whose_caller_is_gone_is_not_answered() -> None:
    async def scene() -> None:
        work = Work(held=True)
        batcher = Batcher(work, size=2, wait=0, queue=10)
        first, gone, last = await started(batcher, [1, 2, 3])
        gone.cancel()
        await asyncio.sleep(0)
        work.open.set()

        assert await asyncio.gather(first, last) == [2, 6]
        assert 2 not in [number for batch in work.batches[1:] for number in batch]

    asyncio.run(scene())
