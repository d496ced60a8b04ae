"""Bounded pools of threads.

Eight reports that nobody waited for any more stopped all others, the snapshots and every reload: one pool of
threads served all kinds, and no work ended with its client. Now each kind has a pool, and its work can be ended.
"""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from app.serving.work import WorkQueue
from model.cancellation import CancelCheck
from model.errors import DeadlineError, QueueFullError


class Held:
    """Work that goes on until `check_cancelled` ends it."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.ended = threading.Semaphore(0)

    def __call__(self, check_cancelled: CancelCheck) -> None:
        self.begun.release()
        try:
            while True:
                check_cancelled()
        finally:
            self.ended.release()


@pytest.fixture
def queue() -> Iterator[WorkQueue]:
    queue = WorkQueue("report", threads=1, capacity=2, seconds=60)
    yield queue
    queue.close()


async def test_work_ends_soon_after_its_caller(queue: WorkQueue) -> None:
    held = Held()
    task = asyncio.create_task(queue.run(held))
    assert await asyncio.to_thread(held.begun.acquire, timeout=30)
    assert not queue.idle
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(held.ended.acquire, timeout=30)
    assert queue.idle
    assert await queue.run(lambda check_cancelled: "the thread is free") == "the thread is free"


async def test_work_that_waits_for_a_thread_is_never_begun_for_nobody(queue: WorkQueue) -> None:
    held = Held()
    begun: list[str] = []
    first = asyncio.create_task(queue.run(held))
    assert await asyncio.to_thread(held.begun.acquire, timeout=30)
    second = asyncio.create_task(queue.run(lambda check_cancelled: begun.append("begun")))
    await asyncio.sleep(0)
    for task in (second, first):
        task.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    await queue.run(lambda check_cancelled: None)
    assert begun == []


async def test_one_kind_does_not_wait_for_another(queue: WorkQueue) -> None:
    other = WorkQueue("snapshot", threads=1, capacity=1, seconds=60)
    held = Held()
    tasks = [asyncio.create_task(queue.run(held)) for _ in range(20)]
    assert await asyncio.to_thread(held.begun.acquire, timeout=30)
    assert await other.run(lambda check_cancelled: 1) == 1
    for task in tasks:
        task.cancel()
    other.close()


async def test_work_that_takes_too_long_is_ended() -> None:
    queue = WorkQueue("report", threads=1, capacity=1, seconds=0.01)
    held = Held()
    with pytest.raises(
        DeadlineError, match=r"the report was not ready within 0\.01 seconds; try again later"
    ) as info:
        await queue.run(held)
    assert info.value.retry_after > 0
    await asyncio.to_thread(queue.close)
    assert queue.idle


async def test_an_error_of_the_work_is_its_own(queue: WorkQueue) -> None:
    def fail(check_cancelled: CancelCheck) -> None:
        raise TimeoutError("of the work")

    with pytest.raises(TimeoutError, match="of the work"):
        await queue.run(fail)


def test_admission_is_bounded_and_released(queue: WorkQueue) -> None:
    with queue.admit():
        with (
            queue.admit(),
            pytest.raises(QueueFullError, match="all 2 places for a report are taken"),
            queue.admit(),
        ):
            pass
        with queue.admit():
            assert queue.admitted == 2
    assert queue.idle


async def test_closing_ends_all_work(queue: WorkQueue) -> None:
    held = Held()
    task = asyncio.create_task(queue.run(held))
    assert await asyncio.to_thread(held.begun.acquire, timeout=30)
    await asyncio.to_thread(queue.close)
    assert held.ended.acquire(timeout=30)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
