"""One request while it runs: its sequences, and the chunks of text that wait for its reader.

The engine's thread puts chunks in; the event loop takes them out. Knows nothing of slots or of HTTP.
"""

import asyncio
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from model.errors import SoliloquyError
from model.generation.sequence import Chunk, TextSequence

FRAME_SECONDS = 0.025  # between two flushes of a text
MAX_FAST_SEQUENCES = 16  # that are flushed so often; with more of them, flushes become rarer
MAX_STRETCH = 4.0  # how many times rarer they become at most
PLACE_SECONDS = 0.5  # between two looks at the place of a request that waits


def one_active() -> int:
    """The count of active sequences for a handle that belongs to no engine."""
    return 1


class RequestHandle:
    """A request's sequences and its bounded buffer; made on the event loop that reads it.

    Args:
        sequences: what the request asks for.
        buffer_characters: how much text may wait before `full` is true.
        on_change: called, from any thread, when the engine may have something to do: text was taken from a full
            buffer, or the request was cancelled.
        active: how many sequences are being generated, for all requests.

    Attributes:
        submitted: when it was queued, by the monotonic clock, in seconds.
        first_character: when its first character came, likewise; None before that.
        released: set once none of its sequences has a slot or waits for one.
        place: that of its first sequence among those that wait for a slot, 1 for the next; 0 once it has one. The
            engine's thread counts it.
    """

    def __init__(
        self,
        sequences: Sequence[TextSequence],
        buffer_characters: int,
        on_change: Callable[[], None],
        active: Callable[[], int] = one_active,
    ) -> None:
        self.id = uuid.uuid4().hex
        self.sequences = list(sequences)
        self.submitted = time.monotonic()
        self.first_character: float | None = None
        self.cancelled = False
        self.released = threading.Event()
        self.place = 0
        self._limit = buffer_characters
        self._on_change = on_change
        self._active = active
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._lock = threading.Lock()  # of the chunks and of how much they are
        self._chunks: list[tuple[TextSequence, Chunk]] = []
        self._buffered = 0
        self._error: SoliloquyError | None = None
        self._unfinished = len(self.sequences)  # whose end has not been taken; of the event loop
        self._holding = len(self.sequences)  # that have a slot or wait for one; of the engine's thread

    @property
    def full(self) -> bool:
        """True while the reader is too far behind for more text."""
        return self._buffered >= self._limit

    def put(self, sequence: TextSequence, chunk: Chunk) -> bool:
        """Append a chunk, from the engine's thread; returns True if the reader has to be woken."""
        if self.first_character is None:
            self.first_character = time.monotonic()
        with self._lock:
            was_empty = not self._chunks
            self._chunks.append((sequence, chunk))
            self._buffered += max(1, len(chunk.text)) + sum(len(one.alternatives) for one in chunk.logprobs)
        return was_empty

    def release_one(self) -> None:
        """Note that one sequence has left its slot or the queue, from the engine's thread."""
        self._holding -= 1
        if not self._holding:
            self.released.set()

    def fail(self, error: SoliloquyError) -> None:
        """End the request with an error, from the engine's thread."""
        self._error = error
        RequestHandle.wake([self])

    def cancel(self) -> None:
        """Give up what is not generated yet: nobody reads it. Harmless when the request has ended."""
        self.cancelled = True
        self._on_change()

    async def take(self) -> list[tuple[TextSequence, Chunk]]:
        """Wait for chunks and take all of them; an empty list once every sequence has ended.

        Raises:
            SoliloquyError: the request was ended early; what was generated before has been taken.
        """
        while self._unfinished:
            self._arrived.clear()
            with self._lock:
                chunks = self._chunks
                was_full = self.full
                self._chunks = []
                self._buffered = 0
            if was_full:
                self._on_change()
            if chunks:
                self._unfinished -= sum(chunk.finish_reason is not None for _, chunk in chunks)
                return chunks
            if self._error is not None:
                raise self._error
            await self._arrived.wait()
        return []

    async def next_place(self, told: int) -> int:
        """Wait until the place in the queue is not `told`; 0 once there is a slot, or something to take."""
        while told and self.place == told and not self._arrived.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(PLACE_SECONDS):
                    await self._arrived.wait()
        return 0 if self._arrived.is_set() else self.place

    async def pause(self) -> None:
        """Wait until the text may be flushed again.

        The more sequences there are, the rarer each is flushed: frames of one character each would take the time
        that all of them need. All texts are flushed at the same moments, which costs less than each by itself.
        """
        stretch = max(1.0, self._active() / MAX_FAST_SEQUENCES)
        seconds = FRAME_SECONDS * min(MAX_STRETCH, stretch)
        if seconds:
            now = self._loop.time()
            seconds = round((now + seconds) / FRAME_SECONDS) * FRAME_SECONDS - now
        await asyncio.sleep(seconds)

    @staticmethod
    def wake(handles: Iterable["RequestHandle"]) -> None:
        """Wake the readers of these requests, from the engine's thread; one system call for each event loop."""
        arrived = defaultdict(list)
        for handle in handles:
            arrived[handle._loop].append(handle._arrived)
        for loop, events in arrived.items():
            if not loop.is_closed():  # as that of a server that has stopped is
                loop.call_soon_threadsafe(_set_all, events)


def _set_all(events: Iterable[asyncio.Event]) -> None:
    for event in events:
        event.set()
