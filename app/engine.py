"""Continuous batching: one thread owns the generator and steps all active streams together.

Requests join and leave between steps; asyncio only moves text. Knows nothing of HTTP.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence

from app.job import Job
from model.errors import DrainingError, EngineFailedError, InputError, QueueFullError, SoliloquyError
from model.generator import Generator
from model.stream import Piece, Stream

logger = logging.getLogger(__name__)


class Engine:
    """A bounded queue in front of a generator's slots.

    Threads: `submit`, `drain` and `Job.cancel` may be called from any; everything else belongs to the
    engine's own. `steps` counts decode steps.
    """

    def __init__(self, generator: Generator, queue_size: int, buffer_characters: int) -> None:
        self.generator = generator
        self._queue_size = queue_size
        self._buffer_characters = buffer_characters
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Job, Stream]] = deque()
        self._active: dict[Stream, Job] = {}
        self._free = generator.free_slots  # as `submit` may count on, under the condition
        self._drain_at: float | None = None
        self._closing = False
        self._failed = False
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)
        self.steps = 0

    @property
    def ready(self) -> bool:
        """True while new work is taken."""
        return self._thread.is_alive() and not self._failed and self._drain_at is None

    def start(self) -> None:
        """Start the engine's thread."""
        self._thread.start()

    def submit(self, streams: Sequence[Stream]) -> Job:
        """Queue the streams of one request; call it from the event loop that will read them.

        Raises:
            InputError: there never is room for so many.
            QueueFullError: there is not room for all of them now.
            DrainingError, EngineFailedError: no work is taken any more.
        """
        most = self.generator.backend.slots + self._queue_size
        if len(streams) > most:
            raise InputError("num_samples", f"this server takes {most} at most, not {len(streams)}")
        with self._changed:
            if self._failed:
                raise EngineFailedError("the generator has failed; the server must be restarted")
            if self._drain_at is not None or self._closing:
                raise DrainingError("the server is stopping", retry_after=10)
            if len(self._waiting) + len(streams) > self._free + self._queue_size:
                raise QueueFullError(
                    f"all {self.generator.backend.slots} slots are writing and the queue is full", retry_after=5
                )
            job = Job(streams, self._buffer_characters, self._notify)
            self._waiting.extend((job, stream) for stream in streams)
            self._changed.notify()
        return job

    def drain(self, seconds: float) -> None:
        """Take no new work; end with an error what has not finished after `seconds`."""
        with self._changed:
            self._drain_at = time.monotonic() + seconds
            self._changed.notify()

    def close(self) -> None:
        """End everything and wait for the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify()

    def _main(self) -> None:
        try:
            while self._wait_for_work():
                self._drop_cancelled()
                self._admit()
                self._step()
        except Exception:  # the thread's boundary: every client must hear of it, whatever it is
            logger.exception("the generator failed")
            self._failed = True
        finally:
            with self._changed:
                self._closing = True
                self._end_all()

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to do; False when the engine is to end."""
        with self._changed:
            while not self._closing:
                remaining = None if self._drain_at is None else self._drain_at - time.monotonic()
                if remaining is not None and remaining <= 0:
                    self._end_all()
                    remaining = None
                if self._has_work():
                    return True
                self._changed.wait(remaining)
        return False

    def _has_work(self) -> bool:
        if self._waiting and (self.generator.free_slots or any(job.cancelled for job, _ in self._waiting)):
            return True
        return any(job.cancelled or not job.full for job in self._active.values())

    def _drop_cancelled(self) -> None:
        """Free the slots and queue places of clients that have gone."""
        for stream in [stream for stream, job in self._active.items() if job.cancelled]:
            self._leave(stream)
        with self._changed:
            gone = [entry for entry in self._waiting if entry[0].cancelled]
            for entry in gone:
                self._waiting.remove(entry)
        for job, _ in gone:
            job.leave()

    def _admit(self) -> None:
        """Let in as many as there are slots for; the steps read their prompts a little at a time."""
        with self._changed:
            while self._waiting and self.generator.free_slots:
                job, stream = self._waiting.popleft()
                self._free -= 1
                self._active[stream] = job
                self.generator.add(stream)

    def _step(self) -> None:
        """On with each stream whose reader keeps up."""
        running = [stream for stream, job in self._active.items() if not job.full]
        if running:
            self.steps += 1
            for stream, piece in self.generator.step(running):
                self._deliver(stream, piece)

    def _deliver(self, stream: Stream, piece: Piece) -> None:
        job = self._active[stream]
        if piece.finish_reason is not None:
            self._leave(stream)  # first, so that a client that knows the end finds the slot free
        if piece.text or piece.finish_reason is not None:
            job.put(stream, piece)

    def _leave(self, stream: Stream) -> None:
        job = self._active.pop(stream)
        self.generator.remove(stream)
        with self._changed:
            self._free += 1
        job.leave()

    def _end_all(self) -> None:
        """Tell every client that its text will not be finished; with the condition held."""
        error: SoliloquyError = DrainingError("the server stopped before the text was finished", retry_after=10)
        if self._failed:
            error = EngineFailedError("the generator failed before the text was finished")
        jobs = {job for job, _ in self._waiting} | set(self._active.values())
        for stream in list(self._active):
            self._leave(stream)
        for job, _ in self._waiting:
            job.leave()
        self._waiting.clear()
        for job in jobs:
            job.fail(error)
