"""The backend of a GPU: steps of static shapes, each captured as a graph and replayed with one launch."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from subprocess import CalledProcessError
from threading import Lock

import numpy as np
import torch
import triton
from numpy.typing import NDArray
from triton.errors import TritonError

from model.backends.base import NOT_FINITE, Writing, announced, check_run
from model.backends.cuda import drawing, kernels
from model.backends.cuda.step import Step
from model.backends.cuda.table import MAX_VOCABULARY, make_table
from model.device import Numerics
from model.errors import DeviceError
from model.network import GPT
from model.sampling.ngram_draft import Draft, context_keys
from model.sampling.sampler import Logits

MIN_ROWS = 16  # of a graph; there is one for each power of two from here on
WIDTHS = ((32, 8), (128, 4), (512, 2))  # up to so many streams draw in so many rows each: one, and guesses
MAX_STEPS = 32  # in one `write`: 5 milliseconds for one stream, 25 for 512
MAX_POSITIONS = 1 << 24  # logits that one `write` can hold
NOTE = "compiling the generator for this GPU"
_capturing = Lock()  # PyTorch captures one graph at a time; beside it nobody should run out of memory
REMEDY = "it needs a C compiler, gcc, and Python's headers the first time; or choose cpu"


class CudaBackend:
    """A `Backend` (see there). A row's result does not depend on the rows beside it, or on chunks.

    Args:
        draft: where the guesses of `write` come from; none without one.
    Raises:
        DeviceError: the GPU has too little memory, or Triton cannot use it.
    """

    chunk = 64
    prompt_rows = 256
    drafts = WIDTHS[0][1] - 1
    call_cost = 100.0
    guess_cost = 1.0
    draws_apart = True

    def __init__(self, network: GPT, numerics: Numerics, slots: int, draft: Draft | None = None) -> None:
        self.config = network.config
        self.slots = slots
        vocab_size = self.config.vocab_size
        self._draft = draft if vocab_size <= MAX_VOCABULARY else None
        self._most = max(self.prompt_rows, *(size for size, _ in self._shapes()))
        self._most_steps = max(1, min(MAX_STEPS, MAX_POSITIONS // (self._most * vocab_size)))
        self._lengths = [0] * slots
        self._graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}
        try:
            with _capturing:
                self._table = make_table(self._draft, vocab_size, numerics.device)
                self._step = Step(network, numerics, slots, self.chunk, self._most, self._most_steps, self._table)
                if numerics.device.type == "cuda":
                    with announced(NOTE):
                        self._capture()
        except torch.OutOfMemoryError as error:
            remedy = "use fewer, or choose cpu"
            raise DeviceError(f"device: the GPU has no memory for {slots} slots; {remedy}") from error

    def length(self, slot: int) -> int:
        """Characters in the slot's sequence."""
        return self._lengths[slot]

    def forget(self, slot: int, length: int = 0) -> None:
        """Leave the sequence's first `length` characters."""
        self._lengths[slot] = length

    def reset(self) -> None:
        """Forget all slots; what is beyond their lengths is never read.

        Raises:
            RuntimeError: the GPU is lost.
        """
        self._step.wait()
        self._lengths = [0] * self.slots

    def extend(self, runs: Mapping[int, Sequence[int]]) -> dict[int, Logits]:
        """Append ids to each slot named; return the logits (n, V) after each of the slot's n ids.

        Raises:
            ValueError: an id is not in the vocabulary, or there are too many of them.
        """
        for slot, ids in runs.items():
            check_run(self, slot, ids)
        rows = np.array(
            [(slot, self._lengths[slot] + i, token) for slot, ids in runs.items() for i, token in enumerate(ids)],
            dtype=np.int64,
        )
        parts = []
        for first in range(0, len(rows), self._most):
            part = rows[first : first + self._most]
            size = _size(len(part))
            self._step.fill_rows(part, size)
            self._run(size, 0)
            parts.append(self._step.logits(len(part)))
        logits = np.concatenate(parts or [np.zeros((0, self.config.vocab_size), np.float32)])
        answers, end = {}, 0
        for slot, ids in runs.items():
            self._lengths[slot] += len(ids)
            answers[slot] = logits[end : end + len(ids)]
            end += len(ids)
        return answers

    def streams_ahead(self, streams: int) -> int:
        """How many of so many streams one `write` should draw in: all."""
        return streams

    def steps_ahead(self, streams: int, guesses: int) -> int:
        """Steps that one `write` should take."""
        return self._most_steps

    def write(self, writings: Sequence[Writing], steps: int, draft: Draft | None) -> list[tuple[list[int], Logits]]:
        """Draw on in each stream; see `Backend`. Guesses are from the draft that the backend was made with."""
        size, width = self._shape(len(writings), draft is not None)
        streams = self._streams(writings)
        steps = min(steps, int(streams[:, drawing.LIMIT.value].max()))  # each writes one id at least
        self._step.fill_streams(streams, size // width)
        for _ in range(steps):
            self._run(size, width)
        self._step.advance(size, width)
        ids, counts, told = self._step.drawn(steps, size)
        counts = counts[:, : len(writings)].T  # (streams, steps)
        taken = np.arange(width) < counts[..., None]  # (streams, steps, width)
        shape = (steps, size // width, width)
        chosen = ids.reshape(shape).swapaxes(0, 1)[: len(writings)][taken]
        if (chosen == drawing.NOT_FINITE.value).any():
            raise FloatingPointError(NOT_FINITE)
        logits = told.reshape(*shape, -1).swapaxes(0, 1)[: len(writings)][taken]
        written, flat = [], chosen.tolist()
        ends = list(accumulate(counts.sum(axis=1).tolist()))
        for one, first, end in zip(writings, [0, *ends], ends, strict=False):
            self._lengths[one.slot] += end - first
            written.append((flat[first:end], logits[first:end]))
        return written

    def _streams(self, writings: Sequence[Writing]) -> NDArray[np.int64]:
        """What the device keeps of each stream (n, 11)."""
        streams = np.zeros((len(writings), drawing.STREAM_FIELDS), np.int64)
        streams[:, :8] = [
            (
                *(one.slot, self._lengths[one.slot], one.recent[-1], 0, min(one.most, self._left(one.slot))),
                *(one.luck.seed, one.luck.sample, one.place),
            )
            for one in writings
        ]
        temperatures = np.array([one.temperature for one in writings], np.float64)
        streams[:, drawing.TEMPERATURE.value] = temperatures.view(np.int64)
        if longest := self._table.longest:
            recent = [[*(longest - len(one.recent)) * [-1], *one.recent][-longest:] for one in writings]
            streams[:, drawing.KEY.value] = context_keys(np.array(recent, np.int64), self.config.vocab_size)
        return streams

    def _shape(self, streams: int, guesses: bool) -> tuple[int, int]:
        """The rows of a step in which so many streams draw, and how many each of them has."""
        width = 1
        if guesses and self._draft is not None:
            width = next((width for most, width in WIDTHS if streams <= most), 1)
        return _size(streams * width), width

    def _shapes(self) -> set[tuple[int, int]]:
        """All that there can be of them."""
        return {self._shape(streams, guesses) for streams in range(1, self.slots + 1) for guesses in (False, True)}

    def _run(self, size: int, width: int) -> None:
        """One step of so many rows, of streams that have `width` each; of none, only to read."""
        if (size, width) in self._graphs:
            self._graphs[size, width].replay()
        else:
            self._start(size, width)

    def _start(self, size: int, width: int) -> None:
        if width:
            self._step.advance(size, width)
        self._step.forward(size)
        if width:
            self._step.draw(size, width)

    def _capture(self) -> None:
        """Compile what is not compiled yet, and capture a graph for each shape."""
        try:
            _ = triton.runtime.driver.active.utils
        except (AssertionError, ImportError, RuntimeError, OSError, CalledProcessError) as error:
            raise DeviceError(f"device: Triton cannot use the GPU ({error}); {REMEDY}") from error
        sizes = {_size(rows) for rows in range(1, self._most + 1)}
        try:
            for size, width in sorted(self._shapes() | {(size, 0) for size in sizes}):
                self._graphs[size, width] = self._captured(size, width)
        except TritonError as error:
            raise DeviceError(f"device: the kernels are not for this GPU ({error}); choose cpu") from error

    def _captured(self, size: int, width: int) -> torch.cuda.CUDAGraph:
        self._step.fill_rows(np.zeros((0, kernels.ROW_FIELDS), np.int64), size)
        self._step.fill_streams(np.zeros((0, drawing.STREAM_FIELDS), np.int64), size)
        self._start(size, width)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # others may be writing meanwhile
            self._start(size, width)
        return graph

    def _left(self, slot: int) -> int:
        """Characters that the slot can still hold."""
        learned = self.config.positions == "learned"
        return self.config.block_size - self._lengths[slot] if learned else 1 << 62


def _size(rows: int) -> int:
    """Rows of the smallest graph that has so many."""
    return max(MIN_ROWS, int(triton.next_power_of_2(rows)))
