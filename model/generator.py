"""Streams in slots: every step gives each of them its next characters. Knows nothing of threads or of HTTP."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np

from model.backend import Backend, EagerBackend
from model.checkpoint import Checkpoint
from model.device import Numerics
from model.draft import Draft
from model.sampling import Logits, draw
from model.stream import Piece, Stream

MOST_CHANCE = 0.9  # where a guess would have to be surer, none is asked for


@dataclass
class Seat:
    """A stream's slot, the ids that the backend has still to read there, and the guesses that go with the last."""

    slot: int
    unread: list[int]
    drafts: list[int] = field(default_factory=list)


class Generator:
    """Owns a backend's slots. Streams join and leave between steps; none changes another's text."""

    def __init__(self, backend: Backend, draft: Draft | None = None) -> None:
        self.backend = backend
        self.draft = draft
        self._free = list(range(backend.slots))
        self._seats: dict[Stream, Seat] = {}

    @property
    def free_slots(self) -> int:
        """How many streams can be added."""
        return len(self._free)

    def add(self, stream: Stream) -> None:
        """Give the stream a slot; the next steps read its prompt, then write.

        A prompt longer than `block_size` is cut to its end, as in nanoGPT.

        Raises:
            IndexError: no slot is free.
        """
        slot = self._free.pop(0)
        self.backend.forget(slot)
        self._seats[stream] = Seat(slot, stream.context(self.backend.config.block_size))

    def step(self, streams: Collection[Stream]) -> Iterator[tuple[Stream, Piece]]:
        """Write one or more characters of each stream whose prompt is read; read on in the others' prompts.

        A stream that ends leaves its slot. Prompts are read a little in each step, so that nobody's text stalls.
        """
        runs = self._plan(streams)
        logits = self.backend.extend({self._seats[stream].slot: run for stream, run in runs.items()})
        writing = [(stream, seat) for stream in runs if not (seat := self._seats[stream]).unread]
        rows = [logits[seat.slot][-1 - len(seat.drafts) :] for _, seat in writing]
        ids = iter(self._draw(writing, rows))
        for (stream, seat), own in zip(writing, rows, strict=True):
            yield from self._accept(stream, seat, own, [next(ids) for _ in own])

    def remove(self, stream: Stream) -> None:
        """Free the stream's slot, if it still has one."""
        seat = self._seats.pop(stream, None)
        if seat is not None:
            self._free.append(seat.slot)
            self._free.sort()  # low slots first: streams share as few groups as they can

    def write(self, stream: Stream) -> Iterator[Piece]:
        """The whole of one stream, piece by piece."""
        self.add(stream)
        try:
            while stream in self._seats:
                for _, piece in self.step([stream]):
                    yield piece
        finally:
            self.remove(stream)

    def _plan(self, streams: Collection[Stream]) -> dict[Stream, list[int]]:
        """The ids that each stream's slot reads next: a part of its prompt, or its last character and guesses."""
        backend, wanted = self.backend, set(streams)
        room, runs, writing = backend.prompt_rows, dict[Stream, list[int]](), list[Stream]()
        for stream in [stream for stream in self._seats if stream in wanted]:
            seat = self._seats[stream]
            if self._is_full(seat):
                backend.forget(seat.slot)
                seat.unread = stream.context(backend.config.block_size // 2)
                self._seats[stream] = self._seats.pop(stream)  # behind those that have waited longer
            if len(seat.unread) == 1:
                runs[stream], seat.unread = seat.unread, []
                writing.append(stream)
            elif room > 0:  # the last may take more than there is room for: runs end where no other stream decides
                runs[stream], seat.unread = seat.unread[: backend.chunk], seat.unread[backend.chunk :]
                room -= len(runs[stream])
        self._guess(writing, runs)
        return runs

    def _guess(self, writing: list[Stream], runs: dict[Stream, list[int]]) -> None:
        """Add guesses to the runs of streams that write, while one more makes a character cheaper on average."""
        if self.draft is None or not self.backend.drafts:
            return
        rows, expected = sum(map(len, runs.values())), float(len(writing))
        for stream in writing:
            seat, chance = self._seats[stream], 1.0
            seat.drafts = []
            most = min(self.backend.drafts, stream.remaining - 1, self._places_left(seat) - 1)
            if most < 1 or expected / (rows + self.backend.call_cost) > MOST_CHANCE:
                continue
            recent = stream.context(self.draft.longest)
            for guess, right in zip(*self.draft.guess(recent, *stream.luck(most)), strict=True):
                chance *= right
                if chance < expected / (rows + self.backend.call_cost):
                    break
                seat.drafts.append(guess)
                rows, expected = rows + 1, expected + chance
            runs[stream] = runs[stream] + seat.drafts

    @staticmethod
    def _draw(writing: list[tuple[Stream, Seat]], rows: list[Logits]) -> list[int]:
        """What each row gives, if all guesses before it are right."""
        if not writing:
            return []
        samplings = [stream.sampling for (stream, _), own in zip(writing, rows, strict=True) for _ in own]
        noise = [stream.luck(len(own))[0] for (stream, _), own in zip(writing, rows, strict=True)]
        return draw(np.concatenate(rows), samplings, np.concatenate(noise))

    def _accept(self, stream: Stream, seat: Seat, rows: Logits, ids: list[int]) -> Iterator[tuple[Stream, Piece]]:
        """The characters that were drawn from rows (n, V), up to the first that was not guessed."""
        drafts, seat.drafts = seat.drafts, []
        for place, (row, chosen) in enumerate(zip(rows, ids, strict=True)):
            piece = stream.accept(chosen, row)
            seat.unread = [chosen]
            if piece.finish_reason is not None:
                self.remove(stream)
            yield stream, piece
            if piece.finish_reason is not None:
                return
            if place < len(drafts) and drafts[place] != chosen:
                self.backend.forget(seat.slot, self.backend.length(seat.slot) - (len(drafts) - place))
                return

    def _is_full(self, seat: Seat) -> bool:
        """Learned positions cannot roll: a full window keeps its newer half and begins again."""
        return self._places_left(seat) == 0

    def _places_left(self, seat: Seat) -> int:
        config = self.backend.config
        return config.block_size - self.backend.length(seat.slot) if config.positions == "learned" else 1 << 62


def load_generator(
    checkpoint: Checkpoint,
    numerics: Numerics,
    slots: int,
    threads: int | None = None,
    compile: bool = False,
) -> Generator:
    """A generator for this checkpoint's weights; `threads` (all cores if None) is for `cpu-int8`."""
    if numerics.quantised:
        from model.cpu.backend import Int8Backend  # noqa: PLC0415 - it asks what this CPU can do, and takes Numba's time

        if checkpoint.draft is not None:  # compile it now
            checkpoint.draft.guess([], np.zeros((1, len(checkpoint.vocabulary))), 1.0)
        return Generator(Int8Backend(checkpoint.network(), slots, threads), checkpoint.draft)
    return Generator(EagerBackend(checkpoint.network(numerics.dtype), numerics, slots, compile))
