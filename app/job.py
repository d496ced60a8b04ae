"""One request on its way: the streams it asked for, and the text that waits for its reader.

The engine's thread puts pieces in; the event loop takes them out. Knows nothing of slots or of HTTP.
"""

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Sequence

from model.errors import SoliloquyError
from model.stream import Piece, Stream


class Job:
    """A request's streams and its bounded buffer.

    `released` is set once none of its streams has a slot or waits for one.
    """

    def __init__(self, streams: Sequence[Stream], buffer_characters: int, on_change: Callable[[], None]) -> None:
        self.id = uuid.uuid4().hex
        self.streams = list(streams)
        self.submitted = time.monotonic()
        self.first_character: float | None = None
        self.cancelled = False
        self.released = threading.Event()
        self._limit = buffer_characters
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._lock = threading.Lock()
        self._pieces: list[tuple[Stream, Piece]] = []
        self._buffered = 0
        self._error: SoliloquyError | None = None
        self._unfinished = len(self.streams)
        self._holding = len(self.streams)

    @property
    def full(self) -> bool:
        """True while the reader is too far behind for more text."""
        return self._buffered >= self._limit

    def put(self, stream: Stream, piece: Piece) -> None:
        """Hand a piece over, from the engine's thread."""
        if self.first_character is None:
            self.first_character = time.monotonic()
        with self._lock:
            wake = not self._pieces
            self._pieces.append((stream, piece))
            self._buffered += max(1, len(piece.text)) + sum(len(one.alternatives) for one in piece.details)
        if wake:
            self._wake()

    def leave(self) -> None:
        """One stream has given its slot or its place in the queue back, from the engine's thread."""
        self._holding -= 1
        if not self._holding:
            self.released.set()

    def fail(self, error: SoliloquyError) -> None:
        """End the job with an error, from the engine's thread."""
        self._error = error
        self._wake()

    def cancel(self) -> None:
        """Nobody reads any more: give up what is unwritten. Harmless when the job has ended."""
        self.cancelled = True
        self._on_change()

    async def take(self) -> list[tuple[Stream, Piece]]:
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

    def _wake(self) -> None:
        if not self._loop.is_closed():  # a client of a server that has gone
            self._loop.call_soon_threadsafe(self._arrived.set)
