"""One request on its way: the streams it asked for, and the text that waits for its reader.

The engine's thread puts pieces in; the event loop takes them out. Knows nothing of slots or of HTTP.
"""

import asyncio
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from model.errors import SoliloquyError
from model.generation.sequence import Chunk, TextSequence

FRAME_SECONDS = 0.025  # between two flushes of a text
FLUSHED_STREAMS = 16  # that can be flushed so often
MAX_STRETCH = 4.0


class RequestHandle:
    """A request's streams and its bounded buffer.

    `released` is set once none of its streams has a slot or waits for one. `active` tells how many streams are
    being written, for whomever.
    """

    def __init__(
        self,
        streams: Sequence[TextSequence],
        buffer_characters: int,
        on_change: Callable[[], None],
        active: Callable[[], int] = lambda: 1,
    ) -> None:
        self.id = uuid.uuid4().hex
        self.streams = list(streams)
        self.submitted = time.monotonic()
        self.first_character: float | None = None
        self.cancelled = False
        self.released = threading.Event()
        self._limit = buffer_characters
        self._on_change, self._active = on_change, active
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._lock = threading.Lock()
        self._pieces: list[tuple[TextSequence, Chunk]] = []
        self._buffered = 0
        self._error: SoliloquyError | None = None
        self._unfinished = len(self.streams)
        self._holding = len(self.streams)

    @property
    def full(self) -> bool:
        """True while the reader is too far behind for more text."""
        return self._buffered >= self._limit

    def put(self, stream: TextSequence, piece: Chunk) -> bool:
        """Hand a piece over, from the engine's thread; True if the reader has to be woken."""
        if self.first_character is None:
            self.first_character = time.monotonic()
        with self._lock:
            first = not self._pieces
            self._pieces.append((stream, piece))
            self._buffered += max(1, len(piece.text)) + sum(len(one.alternatives) for one in piece.logprobs)
        return first

    def leave(self) -> None:
        """One stream has given its slot or its place in the queue back, from the engine's thread."""
        self._holding -= 1
        if not self._holding:
            self.released.set()

    def fail(self, error: SoliloquyError) -> None:
        """End the job with an error, from the engine's thread."""
        self._error = error
        RequestHandle.wake([self])

    def cancel(self) -> None:
        """Nobody reads any more: give up what is unwritten. Harmless when the job has ended."""
        self.cancelled = True
        self._on_change()

    async def take(self) -> list[tuple[TextSequence, Chunk]]:
        """Wait for pieces and take all of them; empty once every stream has ended.

        Raises:
            SoliloquyError: the job was ended early; what was written before it has been taken.
        """
        while self._unfinished:
            self._arrived.clear()
            with self._lock:
                pieces, self._pieces = self._pieces, []
                was_full, self._buffered = self.full, 0
            if was_full:
                self._on_change()
            if pieces:
                self._unfinished -= sum(piece.finish_reason is not None for _, piece in pieces)
                return pieces
            if self._error is not None:
                raise self._error
            await self._arrived.wait()
        return []

    async def pause(self) -> None:
        """Until the text may be flushed again. The more are written, the rarer: else frames of one character each
        would take the time that all of them need. Texts are flushed together, which costs less than each by itself.
        """
        seconds = FRAME_SECONDS * min(MAX_STRETCH, max(1.0, self._active() / FLUSHED_STREAMS))
        if seconds:
            now = self._loop.time()
            seconds = round((now + seconds) / FRAME_SECONDS) * FRAME_SECONDS - now
        await asyncio.sleep(seconds)

    @staticmethod
    def wake(jobs: Iterable["RequestHandle"]) -> None:
        """Wake the readers of these jobs, from the engine's thread: with one system call for each loop."""
        arrived = defaultdict(list)
        for job in jobs:
            arrived[job._loop].append(job._arrived)
        for loop, events in arrived.items():
            if not loop.is_closed():  # a client of a server that has gone
                loop.call_soon_threadsafe(_set_all, events)


def _set_all(events: Iterable[asyncio.Event]) -> None:
    for event in events:
        event.set()
