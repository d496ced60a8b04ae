"""Continuous batching: one thread owns the generator and steps all active sequences together.

Requests join and leave between steps. The event loop submits them and takes their text, and computes nothing. Knows
nothing of HTTP.
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
STOPPED_RETRY_SECONDS = 10  # until another server has probably taken over
FULL_RETRY_SECONDS = 5  # until a slot has probably become free
PLACES_SECONDS = 0.25  # between two counts of the places in the queue


class Engine:
    """A bounded queue in front of a generator's slots.

    Any thread may call `submit`, `drain`, `retire` and `RequestHandle.cancel`; all else is for the engine's own
    thread. A step that fails ends the sequences that were active; those that wait are generated afterwards.

    Args:
        generator: what is stepped. From now on, nothing but the engine may call it.
        queue_size: sequences that may wait for a slot.
        buffer_characters: characters of one request that may wait for its reader.

    Attributes:
        steps: calls of the generator.
        failures: how many of them failed.
        failed: True once the generator cannot go on.
    """

    def __init__(self, generator: Generator, queue_size: int, buffer_characters: int) -> None:
        self.generator = generator
        self._queue_size = queue_size
        self._buffer_characters = buffer_characters
        self._changed = threading.Condition()
        self._waiting: deque[tuple[RequestHandle, TextSequence]] = deque()
        self._active: dict[TextSequence, RequestHandle] = {}
        # The generator's free slots, counted again: `submit` is called from another thread, which may not ask the
        # generator. Only changed while `_changed` is held.
        self._free = generator.free_slots
        self._drain_at: float | None = None
        self._retiring = False
        self._closing = False
        self._failures_in_a_row = 0  # since a sequence was finished
        self._count_places_at = 0.0  # by the monotonic clock
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
        """How many sequences have a slot."""
        return len(self._active)

    @property
    def waiting(self) -> int:
        """How many sequences wait for a slot."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """True while no sequence is active or waits."""
        return not self._active and not self._waiting

    @property
    def ended(self) -> bool:
        """True once the thread has ended."""
        return self._thread.ident is not None and not self._thread.is_alive()

    def start(self) -> None:
        """Start the engine's thread."""
        self._thread.start()

    def submit(self, sequences: Sequence[TextSequence]) -> RequestHandle:
        """Queue the sequences of one request; called from the event loop that will read them.

        Raises:
            InputError: there is never room for so many.
            QueueFullError: there is not room for all of them now.
            DrainingError, EngineFailedError: no work is taken any more.
        """
        limit = self.generator.backend.slots + self._queue_size
        if len(sequences) > limit:
            raise InputError("num_samples", f"this server takes {limit} at most, not {len(sequences)}")
        with self._changed:
            if self.failed:
                raise EngineFailedError("the generator has failed; the server must be restarted")
            if self._drain_at is not None or self._retiring or self._closing:
                raise DrainingError("the server is stopping", retry_after=STOPPED_RETRY_SECONDS)
            if len(self._waiting) + len(sequences) > self._free + self._queue_size:
                slots = self.generator.backend.slots
                message = f"all {slots} slots are writing and the queue is full"
                raise QueueFullError(message, retry_after=FULL_RETRY_SECONDS)
            handle = RequestHandle(sequences, self._buffer_characters, self._notify, lambda: self.active)
            handle.place = max(0, len(self._waiting) - self._free + 1)
            self._waiting.extend((handle, sequence) for sequence in sequences)
            self._changed.notify()
        return handle

    def drain(self, seconds: float) -> None:
        """Take no new work, and end with an error what cannot be finished: for a server that stops.

        Requests for which no slot is free end at once, the others after `seconds`.
        """
        with self._changed:
            self._drain_at = time.monotonic() + seconds
            self._changed.notify()

    def retire(self) -> None:
        """Take no new work; the thread ends when all that was taken is finished: for an engine that is replaced."""
        with self._changed:
            self._retiring = True
            self._changed.notify()

    def close(self) -> None:
        """End all requests and wait for the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify()

    def _main(self) -> None:
        """Generate until the engine is to end; the thread's function."""
        try:
            while not self._run_until_failure():
                self._recover()
        except Exception:  # nobody above could handle it, and every client must be told, whatever it is
            logger.exception("the generator cannot go on")
            self.failed = True
        finally:
            with self._changed:
                self._closing = True
                self._end_requests(self._handles())

    def _run_until_failure(self) -> bool:
        """Generate; returns True when the engine is to end, False after a step that failed."""
        try:
            while self._wait_for_work():
                self._drop_cancelled()
                self._admit()
                self._count_places()
                self._step()
        except Exception:  # NaN, or a kernel's error: perhaps a transient one, so `_recover` tries again
            logger.exception("a step of the generator failed")
            self.failures += 1
            return False
        return True

    def _recover(self) -> None:
        """End the requests that were active and reset the generator.

        Raises:
            RuntimeError: MAX_FAILURES steps have failed, and no sequence was finished between them.
            Exception: whatever the device raises if it is lost.
        """
        self._failures_in_a_row += 1
        with self._changed:
            error = EngineFailedError("the generator failed; ask for the rest again")
            self._end_requests(set(self._active.values()), error)
        self.generator.reset()
        if self._failures_in_a_row >= MAX_FAILURES:
            raise RuntimeError(f"{MAX_FAILURES} failures, and no text finished between them")

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to do; False when the engine is to end.

        While the engine drains, this also ends the requests that cannot be finished.
        """
        with self._changed:
            while not self._closing:
                remaining: float | None = None  # seconds until the requests are ended; None: they are not
                if self._drain_at is not None:
                    remaining = self._drain_at - time.monotonic()
                    if remaining > 0:
                        self._end_requests(self._not_begun())
                    else:
                        self._end_requests(self._handles())
                        remaining = None
                if self._retiring and self.idle:
                    return False
                if self._has_work():
                    return True
                self._changed.wait(remaining)
        return False

    def _has_work(self) -> bool:
        """Whether there is something to admit, to step or to drop."""
        if self._waiting and (self.generator.free_slots or any(handle.cancelled for handle, _ in self._waiting)):
            return True
        return any(handle.cancelled or not handle.full for handle in self._active.values())

    def _drop_cancelled(self) -> None:
        """Remove the sequences of cancelled requests from the slots and the queue."""
        for sequence in [sequence for sequence, handle in self._active.items() if handle.cancelled]:
            self._remove(sequence)
        cancelled: list[RequestHandle] = []
        kept: deque[tuple[RequestHandle, TextSequence]] = deque()
        with self._changed:
            # In one pass: thousands may be cancelled together. And each `cancelled` is read once, since another
            # thread may set it at any moment, without the lock.
            for handle, sequence in self._waiting:
                if handle.cancelled:
                    cancelled.append(handle)
                else:
                    kept.append((handle, sequence))
            self._waiting = kept
        for handle in cancelled:
            handle.release_one()

    def _admit(self) -> None:
        """Give the free slots to those that have waited longest; steps then read their prompts part by part."""
        with self._changed:
            while self._waiting and self.generator.free_slots:
                handle, sequence = self._waiting.popleft()
                handle.place = 0
                self._free -= 1
                self._active[sequence] = handle
                self.generator.add(sequence)

    def _count_places(self) -> None:
        """Tell the requests that wait their places in the queue, from time to time: thousands may wait."""
        now = time.monotonic()
        if not self._waiting or now < self._count_places_at:
            return
        self._count_places_at = now + PLACES_SECONDS
        with self._changed:
            # From the last to the first, so that a request's first sequence decides; one that has begun keeps 0.
            place = len(self._waiting)
            for handle, _ in reversed(self._waiting):
                if handle.place:
                    handle.place = place
                place -= 1

    def _step(self) -> None:
        """Step the sequences whose readers keep up, and hand their new text over."""
        running = [sequence for sequence, handle in self._active.items() if not handle.full]
        if not running:
            return
        self.steps += 1
        to_wake: list[RequestHandle] = []
        try:
            for sequence, chunk in self.generator.step(running):
                handle = self._active[sequence]
                if self._deliver(handle, sequence, chunk):
                    to_wake.append(handle)
        finally:  # if the step fails at one sequence, the chunks of those before it have been handed over already
            RequestHandle.wake(to_wake)

    def _deliver(self, handle: RequestHandle, sequence: TextSequence, chunk: Chunk) -> bool:
        """Hand a chunk over to its request; returns True if the reader has to be woken."""
        has_ended = chunk.finish_reason is not None
        if has_ended:
            self._failures_in_a_row = 0
            self._remove(sequence)  # first, so that a client that has seen the end finds the slot free
        if not chunk.text and not has_ended:
            return False
        return handle.put(sequence, chunk)

    def _remove(self, sequence: TextSequence) -> None:
        """Take a sequence out of its slot."""
        handle = self._active.pop(sequence)
        self.generator.remove(sequence)
        with self._changed:  # reentrant: `_end_requests` holds it already
            self._free += 1
        handle.release_one()

    def _handles(self) -> set[RequestHandle]:
        """The requests that have active or waiting sequences."""
        return {handle for handle, _ in self._waiting} | set(self._active.values())

    def _not_begun(self) -> set[RequestHandle]:
        """The requests of which every sequence still waits; an empty set while a slot is free: they get it."""
        if self.generator.free_slots:
            return set()
        return {handle for handle, _ in self._waiting} - set(self._active.values())

    def _end_requests(self, handles: set[RequestHandle], error: SoliloquyError | None = None) -> None:
        """End these requests before their texts are finished; called while `_changed` is held.

        Args:
            error: what their readers get. By default, it says that the generator has failed if `failed` is true,
                and else that the server stops.
        """
        if error is None and self.failed:
            error = EngineFailedError("the generator failed before the text was finished")
        elif error is None:
            message = "the server stopped before the text was finished"
            error = DrainingError(message, retry_after=STOPPED_RETRY_SECONDS)
        for sequence in [sequence for sequence, handle in self._active.items() if handle in handles]:
            self._remove(sequence)
        kept: deque[tuple[RequestHandle, TextSequence]] = deque()
        for handle, sequence in self._waiting:
            if handle in handles:
                handle.release_one()
            else:
                kept.append((handle, sequence))
        self._waiting = kept
        for handle in handles:
            handle.fail(error)
