"""Work that threads do for requests, one bounded place for each kind: none waits behind another kind.

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

RETRY_SECONDS = 5  # seconds until a place has probably become free

Result = TypeVar("Result")


class CancelledWorkError(Exception):
    """Nobody waits for the work any more; never leaves its thread."""


class WorkQueue:
    """Threads for one kind of work, and how many requests may have it done or wait for it.

    A thread cannot be ended from outside. So work is handed a `CancelCheck`, which it must call often, and which
    raises once its client has gone, its time is over, or the server stops.

    Args:
        name: of one such work, for its refusals, such as "report".
        threads: that work at once.
        places: of requests that have such work in progress or waiting.
        seconds: from when work is handed over until it is given up.
    """

    def __init__(self, name: str, threads: int, places: int, seconds: float) -> None:
        self.name = name
        self._places = places
        self._seconds = seconds
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._in_progress: set[threading.Event] = set()
        self.taken = 0

    @property
    def in_progress(self) -> int:
        """Work that is being done or waits for a thread."""
        return len(self._in_progress)

    @property
    def idle(self) -> bool:
        """True while nobody has such work done."""
        return not self.taken and not self._in_progress

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for one request, for as long as it lasts; taken before anything is done for it.

        Raises:
            QueueFullError: there is none.
        """
        if self.taken >= self._places:
            raise QueueFullError(f"all {self._places} places for a {self.name} are taken", RETRY_SECONDS)
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    async def run(self, work: Callable[[CancelCheck], Result]) -> Result:
        """What the work returns. If the caller is cancelled, the work ends soon after.

        Raises:
            DeadlineError: it took too long.
        """
        cancelled = threading.Event()

        def check_cancelled() -> None:
            if cancelled.is_set():
                raise CancelledWorkError

        def begin() -> Result:
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
                RETRY_SECONDS,
            ) from None
        finally:
            cancelled.set()
            self._in_progress.discard(cancelled)

    def close(self) -> None:
        """End all work and wait for the threads."""
        for cancelled in self._in_progress:
            cancelled.set()
        self._executor.shutdown(cancel_futures=True)
