"""Continuous batching: one thread owns the generator and steps all active streams together.

Requests join and leave between steps; asyncio only moves text. Knows nothing of HTTP.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence

from app.serving.request_handle import RequestHandle
from model.errors import DrainingError, EngineFailedError, InputError, QueueFullError, SoliloquyError
from model.generation.generator import Generator
from model.generation.sequence import Chunk, TextSequence

logger = logging.getLogger(__name__)

MAX_FAILURES = 3
RETRY_SECONDS = 10  # seconds until another server has probably taken over


class Engine:
    """A bounded queue in front of a generator's slots.

    Any thread may call `submit`, `drain`, `retire` and `RequestHandle.cancel`; all else belongs to its own.

    `steps` counts calls of the generator, `failures` those that failed. A step that fails ends the texts that were
    being written; those that wait are written after it. When the generator cannot go on, `failed` is true.
    """

    def __init__(self, generator: Generator, queue_size: int, buffer_characters: int) -> None:
        self.generator = generator
        self._queue_size = queue_size
        self._buffer_characters = buffer_characters
        self._changed = threading.Condition()
        self._waiting: deque[tuple[RequestHandle, TextSequence]] = deque()
        self._active: dict[TextSequence, RequestHandle] = {}
        self._free = generator.free_slots  # as `submit` may count on, under the condition
        self._drain_at: float | None = None
        self._retiring = False
        self._closing = False
        self._in_a_row = 0  # failures since a text was finished
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)
        self.steps = 0
        self.failures = 0
        self.failed = False

    @property
    def ready(self) -> bool:
        """True while new work is taken."""
        return self._thread.is_alive() and not self.failed and self._drain_at is None

    @property
    def active(self) -> int:
        """Streams that have a slot."""
        return len(self._active)

    @property
    def waiting(self) -> int:
        """Streams that wait for one."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """True while nothing is written and nothing waits."""
        return not self._active and not self._waiting

    @property
    def ended(self) -> bool:
        """True once the thread has."""
        return self._thread.ident is not None and not self._thread.is_alive()

    def start(self) -> None:
        """Start the engine's thread."""
        self._thread.start()

    def submit(self, streams: Sequence[TextSequence]) -> RequestHandle:
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
            if self.failed:
                raise EngineFailedError("the generator has failed; the server must be restarted")
            if self._drain_at is not None or self._retiring or self._closing:
                raise DrainingError("the server is stopping", retry_after=RETRY_SECONDS)
            if len(self._waiting) + len(streams) > self._free + self._queue_size:
                raise QueueFullError(
                    f"all {self.generator.backend.slots} slots are writing and the queue is full", retry_after=5
                )
            job = RequestHandle(streams, self._buffer_characters, self._notify, lambda: self.active)
            self._waiting.extend((job, stream) for stream in streams)
            self._changed.notify()
        return job

    def drain(self, seconds: float) -> None:
        """Take no new work; end with an error what has not finished after `seconds`."""
        with self._changed:
            self._drain_at = time.monotonic() + seconds
            self._changed.notify()

    def retire(self) -> None:
        """Take no new work; the thread ends when all that was taken is written."""
        with self._changed:
            self._retiring = True
            self._changed.notify()

    def close(self) -> None:
        """End everything and wait for the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify()

    def _main(self) -> None:
        try:
            while self._work():
                self._recover()
        except Exception:  # the thread's boundary: every client must hear of it, whatever it is
            logger.exception("the generator cannot go on")
            self.failed = True
        finally:
            with self._changed:
                self._closing = True
                self._end(self._jobs())

    def _work(self) -> bool:
        """Write until the engine is to end, or True: a step failed."""
        try:
            while self._wait_for_work():
                self._drop_cancelled()
                self._admit()
                self._step()
        except Exception:  # NaN, a kernel's error: a fault of one moment, or so we hope
            logger.exception("a step of the generator failed")
            self.failures += 1
            return True
        return False

    def _recover(self) -> None:
        """End the streams that were being written and make the generator as new.

        Raises:
            RuntimeError: it fails again and again. And whatever its device raises if that is lost.
        """
        self._in_a_row += 1
        with self._changed:
            self._end(set(self._active.values()), EngineFailedError("the generator failed; ask for the rest again"))
        self.generator.reset()
        if self._in_a_row >= MAX_FAILURES:
            raise RuntimeError(f"{MAX_FAILURES} failures, and no text finished between them")

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to do; False when the engine is to end."""
        with self._changed:
            while not self._closing:
                remaining = None if self._drain_at is None else self._drain_at - time.monotonic()
                if remaining is not None:
                    self._end(self._jobs() if remaining <= 0 else self._not_begun())
                    remaining = None if remaining <= 0 else remaining
                if self._retiring and self.idle:
                    return False
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
        gone: deque[tuple[RequestHandle, TextSequence]] = deque()
        with self._changed:  # in one pass: thousands may leave together, and more while we look
            waiting, self._waiting = self._waiting, deque()
            for entry in waiting:
                (gone if entry[0].cancelled else self._waiting).append(entry)
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
            woken: list[RequestHandle] = []
            try:
                for stream, piece in self.generator.step(running):
                    if job := self._deliver(stream, piece):
                        woken.append(job)
            finally:  # a text may have ended before the step failed at another
                RequestHandle.wake(woken)

    def _deliver(self, stream: TextSequence, piece: Chunk) -> RequestHandle | None:
        """Hand the piece over; the job, if its reader has to be woken."""
        job = self._active[stream]
        if piece.finish_reason is not None:
            self._in_a_row = 0
            self._leave(stream)  # first, so that a client that knows the end finds the slot free
        told = piece.text or piece.finish_reason is not None
        return job if told and job.put(stream, piece) else None

    def _leave(self, stream: TextSequence) -> None:
        job = self._active.pop(stream)
        self.generator.remove(stream)
        with self._changed:
            self._free += 1
        job.leave()

    def _jobs(self) -> set[RequestHandle]:
        return {job for job, _ in self._waiting} | set(self._active.values())

    def _not_begun(self) -> set[RequestHandle]:
        """The jobs all of whose streams wait, once no slot is free for them."""
        if self.generator.free_slots:
            return set()
        return {job for job, _ in self._waiting} - set(self._active.values())

    def _end(self, jobs: set[RequestHandle], error: SoliloquyError | None = None) -> None:
        """Tell these clients that their texts will not be finished; with the condition held."""
        if error is None and self.failed:
            error = EngineFailedError("the generator failed before the text was finished")
        for stream in [stream for stream, job in self._active.items() if job in jobs]:
            self._leave(stream)
        for job, _ in [entry for entry in self._waiting if entry[0] in jobs]:
            job.leave()
        self._waiting = deque(entry for entry in self._waiting if entry[0] not in jobs)
        for job in jobs:
            job.fail(
                error or DrainingError("the server stopped before the text was finished", retry_after=RETRY_SECONDS)
            )
