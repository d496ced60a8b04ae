"""Bounded thread pools for work other than generation, one for each kind, so that no kind waits for another.

The engine has a queue of its own (`app.serving.engine`). Knows nothing of HTTP or of what the work is.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from model.cancellation import CancelCheck
from model.errors import DeadlineError, QueueFullError

WORK_RETRY_SECONDS = 5  # until another request has probably been answered

WorkResult = TypeVar("WorkResult")


class CancelledWorkError(Exception):
    """Raised inside work that nobody waits for any more; it never leaves the thread."""


class WorkQueue:
    """Threads for one kind of work, with a bound on the requests that have it done or wait for it.

    A thread cannot be ended from outside. So work is passed a `CancelCheck`, a function that it must call often and
    that raises once its client has left, its time is over, or the server stops.

    Args:
        name: of one piece of such work, for refusals, such as "report".
        threads: that work at once.
        capacity: requests that may have such work in progress or waiting.
        seconds: from when work is submitted until it is given up.

    Attributes:
        admitted: requests that are within `admit` now.
    """

    def __init__(self, name: str, threads: int, capacity: int, seconds: float) -> None:
        self.name = name
        self._capacity = capacity
        self._seconds = seconds
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._in_progress: set[threading.Event] = set()
        self.admitted = 0

    @property
    def in_progress(self) -> int:
        """How many pieces of work are being done or wait for a thread."""
        return len(self._in_progress)

    @property
    def idle(self) -> bool:
        """True while no request has such work done."""
        return not self.admitted and not self._in_progress

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count one request for as long as the context lasts; entered before anything is done for it.

        Raises:
            QueueFullError: as many as the capacity are counted already.
        """
        if self.admitted >= self._capacity:
            raise QueueFullError(f"all {self._capacity} places for a {self.name} are taken", WORK_RETRY_SECONDS)
        self.admitted += 1
        try:
            yield
        finally:
            self.admitted -= 1

    async def run(self, work: Callable[[CancelCheck], WorkResult]) -> WorkResult:
        """Run the work in a thread and return its result. If the caller is cancelled, the work ends soon after.

        Raises:
            DeadlineError: it took too long.
        """
        cancelled = threading.Event()

        def check_cancelled() -> None:
            if cancelled.is_set():
                raise CancelledWorkError

        def begin() -> WorkResult:
            check_cancelled()
            return work(check_cancelled)

        self._in_progress.add(cancelled)
        try:
            async with asyncio.timeout(self._seconds) as deadline:
                return await asyncio.get_running_loop().run_in_executor(self._executor, begin)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise DeadlineError(
                f"the {self.name} was not ready within {self._seconds:g} seconds; "
                "try again later, or ask for less text",
                WORK_RETRY_SECONDS,
            ) from None
        finally:
            cancelled.set()
            self._in_progress.discard(cancelled)

    def close(self) -> None:
        """End all work and wait for the threads."""
        for cancelled in self._in_progress:
            cancelled.set()
        self._executor.shutdown(cancel_futures=True)
