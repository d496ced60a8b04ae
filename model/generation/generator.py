"""Streams in slots: every step gives each of them its next characters. Knows nothing of threads or of HTTP."""

from collections.abc import Collection, Iterator
from collections.abc import Generator as PythonGenerator
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice

import numpy as np
import torch

from model.backends.base import NOT_FINITE, Backend, Writing
from model.backends.eager import EagerBackend
from model.checkpoint import Checkpoint
from model.device import Numerics
from model.generation.sequence import Chunk, TextSequence
from model.sampling.ngram_draft import MAX_CHANCE, Draft
from model.sampling.noise import gumbel_noise
from model.sampling.sampler import Likelihood, Logits, Sampling, draw, likelihoods

STEPS_BESIDE = 8  # that a backend draws ahead for some, while others wait for the one step that they take


@dataclass
class SlotState:
    """A stream's slot, the ids that the backend has still to read there, and the guesses that go with the last."""

    slot: int
    unread: list[int]
    drafts: list[int] = field(default_factory=list)


@dataclass
class Turn:
    """A stream that writes in this step: the logits (n, V) after its last character and after each guess, the ids
    chosen by them up to the first that was not guessed, and what is told of each.
    """

    stream: TextSequence
    seat: SlotState
    logits: Logits
    ids: list[int] = field(default_factory=list)
    details: list[Likelihood | None] = field(default_factory=list)


class Generator:
    """Owns a backend's slots. Streams join and leave between steps; none changes another's text."""

    def __init__(self, backend: Backend, draft: Draft | None = None) -> None:
        self.backend = backend
        self.draft = draft
        self._free = list(range(backend.slots))
        self._seats: dict[TextSequence, SlotState] = {}

    @property
    def free_slots(self) -> int:
        """How many streams can be added."""
        return len(self._free)

    def add(self, stream: TextSequence) -> None:
        """Give the stream a slot; the next steps read its prompt, then write.

        A prompt longer than `block_size` is cut to its end, as in nanoGPT.

        Raises:
            IndexError: no slot is free.
        """
        slot = self._free.pop(0)
        self.backend.forget(slot)
        self._seats[stream] = SlotState(slot, stream.context(self.backend.config.block_size))

    def step(self, streams: Collection[TextSequence]) -> Iterator[tuple[TextSequence, Chunk]]:
        """Write one or more characters of each stream whose prompt is read; read on in the others' prompts.

        A stream that ends leaves its slot. Prompts are read a little in each step, so that nobody's text stalls.

        Raises:
            FloatingPointError: a logit is not finite. After it, as after any failure of the backend, `reset`.
        """
        wanted = set(streams)
        asked = [stream for stream in self._seats if stream in wanted]
        ahead, steps, rest = self._share_out(asked)
        turns = (self._write_ahead(ahead, steps) if ahead else []) + (self._write_next(rest) if rest else [])
        self._tell(turns)
        for turn in turns:
            yield turn.stream, self._accept(turn)

    def remove(self, stream: TextSequence) -> None:
        """Free the stream's slot, if it still has one."""
        seat = self._seats.pop(stream, None)
        if seat is not None:
            self._free.append(seat.slot)
            self._free.sort()  # low slots first: streams share as few groups as they can

    def reset(self) -> None:
        """Remove all streams and make the backend as new, after a step that failed."""
        self._seats.clear()
        self._free = list(range(self.backend.slots))
        self.backend.reset()

    def write(self, stream: TextSequence) -> PythonGenerator[Chunk, None, None]:
        """The whole of one stream, piece by piece."""
        self.add(stream)
        try:
            while stream in self._seats:
                for _, piece in self.step([stream]):
                    yield piece
        finally:
            self.remove(stream)

    def _share_out(self, streams: list[TextSequence]) -> tuple[list[TextSequence], int, list[TextSequence]]:
        """The streams that the backend draws for by itself, in how many steps, and those that take one step."""
        backend, ready = self.backend, [stream for stream in streams if self._can_go_ahead(stream)]
        rest = [] if len(ready) == len(streams) else [one for one in streams if not self._can_go_ahead(one)]
        if not ready or (rest and not backend.draws_apart):
            return [], 0, streams
        if not all(stream.written for stream in ready):  # somebody waits for the first character
            return (ready, 1, rest) if backend.draws_apart else ([], 0, streams)
        ahead = ready[: backend.streams_ahead(len(ready))]
        steps = backend.steps_ahead(len(ahead), self._most_guesses(len(ahead))) if ahead else 0
        if not steps:
            return [], 0, streams
        if len(ahead) < len(ready):
            for stream in ahead:
                self._queue(stream)
        return ahead, min(steps, STEPS_BESIDE) if rest else steps, rest

    def _queue(self, stream: TextSequence) -> None:
        """Behind those that have waited longer."""
        self._seats[stream] = self._seats.pop(stream)

    def _can_go_ahead(self, stream: TextSequence) -> bool:
        """True if nothing but its last id is to be read, and every character can come."""
        seat = self._seats[stream]
        return len(seat.unread) == 1 and stream.draws_plainly and not self._is_full(seat)

    def _write_ahead(self, streams: list[TextSequence], steps: int) -> list[Turn]:
        """Some steps in one call; what a stream writes beyond a stop string goes nowhere."""
        guesses = self._most_guesses(len(streams))
        draft = self.draft if guesses else None
        length = max(1, draft.longest) if draft is not None else 1
        writings, turns = [], []
        for stream in streams:
            slot, most = self._seats[stream].slot, min(stream.remaining, steps * (1 + guesses))
            recent, temperature = stream.context(length), stream.sampling.temperature
            writings.append(Writing(slot, recent, most, temperature, stream.luck, len(stream.written)))
        written = self.backend.write(writings, steps, draft)
        for stream, (ids, logits) in zip(streams, written, strict=True):
            turns.append(Turn(stream, self._seats[stream], logits, ids))
            turns[-1].seat.drafts = ids[:-1]
        return turns

    def _most_guesses(self, streams: int) -> int:
        """For each of so many streams that all draw: none where they would have to be too sure."""
        worthwhile = streams * self.backend.guess_cost <= MAX_CHANCE * (streams + self.backend.call_cost)
        return self.backend.drafts if self.draft is not None and worthwhile else 0

    def _write_next(self, streams: list[TextSequence]) -> list[Turn]:
        """One step, in which prompts are read on too."""
        runs = self._plan(streams)
        logits = self.backend.extend({self._seats[stream].slot: run for stream, run in runs.items()})
        turns = [
            Turn(stream, seat, logits[seat.slot][-1 - len(seat.drafts) :])
            for stream in runs
            if not (seat := self._seats[stream]).unread
        ]
        if turns and not np.isfinite(np.concatenate([turn.logits for turn in turns])).all():
            raise FloatingPointError(NOT_FINITE)
        self._choose(turns)
        return turns

    def _plan(self, streams: list[TextSequence]) -> dict[TextSequence, list[int]]:
        """The ids that each stream's slot reads next: a part of its prompt, or its last character and guesses."""
        backend = self.backend
        room, runs, writing = backend.prompt_rows, dict[TextSequence, list[int]](), list[TextSequence]()
        for stream in streams:
            seat = self._seats[stream]
            if self._is_full(seat):
                backend.forget(seat.slot)
                seat.unread = stream.context(backend.config.block_size // 2)
                self._queue(stream)
            if len(seat.unread) == 1:
                runs[stream], seat.unread = seat.unread, []
                writing.append(stream)
            elif room > 0:  # the last may take more than there is room for: runs end where no other stream decides
                end = min(backend.chunk, len(seat.unread) - (backend.draws_apart and stream.draws_plainly))
                runs[stream], seat.unread = seat.unread[:end], seat.unread[end:]
                room -= len(runs[stream])
        self._guess([stream for stream in writing if stream.given is None], runs)
        self._read_ahead([stream for stream in writing if stream.given is not None], runs, room)
        return runs

    def _read_ahead(self, writing: list[TextSequence], runs: dict[TextSequence, list[int]], room: int) -> None:
        """Add ids that are given to the runs of their streams, like guesses that are right; `room` is what prompts
        have left.
        """
        if not self.backend.drafts:
            return
        for stream in writing:
            seat = self._seats[stream]
            most = min(room, self.backend.chunk - 1, stream.remaining - 1, self._places_left(seat) - 1)
            seat.drafts = stream.next_given(max(0, most))
            runs[stream] = runs[stream] + seat.drafts
            room -= len(seat.drafts)

    def _guess(self, writing: list[TextSequence], runs: dict[TextSequence, list[int]]) -> None:
        """Add guesses to the runs of streams that draw, while one more makes a character cheaper on average."""
        if self.draft is None or not self.backend.drafts:
            return
        price, expected = self.backend.guess_cost, float(len(writing))
        cost = self.backend.call_cost + sum(1 + price * (len(run) - 1) for run in runs.values())
        for stream in writing:
            seat, chance = self._seats[stream], 1.0
            seat.drafts = []
            most = min(self.backend.drafts, stream.remaining - 1, self._places_left(seat) - 1)
            if most < 1 or price * expected / cost > MAX_CHANCE:
                continue
            recent = stream.context(self.draft.longest)
            for guess, right in zip(*self.draft.guess(recent, *stream.noise(most)), strict=True):
                chance *= right
                if chance < price * expected / cost:
                    break
                seat.drafts.append(guess)
                cost, expected = cost + price, expected + chance
            runs[stream] = runs[stream] + seat.drafts

    @staticmethod
    def _choose(turns: list[Turn]) -> None:
        """Take what is given, or draw what each row gives if all guesses before it are right, and keep what is."""
        for turn in turns:
            turn.ids = turn.stream.next_given(len(turn.logits))
        drawing = [turn for turn in turns if turn.stream.given is None]
        if not drawing:
            return
        samplings = [turn.stream.sampling for turn in drawing for _ in turn.logits]
        noise = [turn.stream.noise(len(turn.logits))[0] for turn in drawing]
        drawn = iter(draw(np.concatenate([turn.logits for turn in drawing]), samplings, np.concatenate(noise)))
        for turn in drawing:
            ids, drafts = list(islice(drawn, len(turn.logits))), turn.seat.drafts
            right = next((i for i, draft in enumerate(drafts) if draft != ids[i]), len(drafts))
            turn.ids = ids[: right + 1]

    @staticmethod
    def _tell(turns: list[Turn]) -> None:
        """The likelihoods of what was chosen, where they are asked for."""
        for turn in turns:
            turn.details = [None] * turn.stream.untold(len(turn.ids))
        asked = [turn for turn in turns if len(turn.details) < len(turn.ids)]
        if not asked:
            return
        rows = [(turn, i) for turn in asked for i in range(len(turn.details), len(turn.ids))]
        told = likelihoods(
            np.concatenate([turn.logits[len(turn.details) : len(turn.ids)] for turn in asked]),
            [turn.ids[i] for turn, i in rows],
            [turn.stream.sampling for turn, _ in rows],
            [turn.stream.alternatives for turn, _ in rows],
        )
        for (turn, _), one in zip(rows, told, strict=True):
            turn.details.append(one)

    def _accept(self, turn: Turn) -> Chunk:
        """Write what was chosen, and forget the guesses that were wrong."""
        stream, seat = turn.stream, turn.seat
        wrong, seat.drafts, seat.unread = len(seat.drafts) + 1 - len(turn.ids), [], turn.ids[-1:]
        piece = stream.accept(turn.ids, turn.details)
        if piece.finish_reason is not None:
            self.remove(stream)
        elif wrong:
            self.backend.forget(seat.slot, self.backend.length(seat.slot) - wrong)
        return piece

    def _is_full(self, seat: SlotState) -> bool:
        """Learned positions cannot roll: a full window keeps its newer half and begins again."""
        return self._places_left(seat) == 0

    def _places_left(self, seat: SlotState) -> int:
        config = self.backend.config
        return config.block_size - self.backend.length(seat.slot) if config.positions == "learned" else 1 << 62


def load_generator(
    checkpoint: Checkpoint,
    numerics: Numerics,
    slots: int,
    threads: int | None = None,
    compile: bool = False,
) -> Generator:
    """A generator for this checkpoint's weights; `threads` (`usable_cores` if None) is for `cpu-int8`."""
    noise = gumbel_noise(0, 0, 0, 1, len(checkpoint.vocabulary))  # compile what is used later now
    draw(noise.astype(np.float32), [Sampling()], noise)
    if checkpoint.draft is not None:
        checkpoint.draft.guess([], noise, 1.0)
    if numerics.quantised:
        from model.backends.cpu.backend import Int8Backend  # noqa: PLC0415 - it asks what this CPU can do, and takes Numba's time

        return Generator(Int8Backend(checkpoint.network(), slots, threads), checkpoint.draft)
    if numerics.device.type == "cuda" and torch.version.cuda and find_spec("triton"):  # PyTorch brings it for Linux
        from model.backends.cuda.backend import CudaBackend  # noqa: PLC0415 - it takes Triton's time

        backend = CudaBackend(checkpoint.network(numerics.dtype), numerics, slots, checkpoint.draft)
        return Generator(backend, checkpoint.draft)
    return Generator(EagerBackend(checkpoint.network(numerics.dtype), numerics, slots, compile))
