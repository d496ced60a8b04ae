"""The backend of a GPU: steps of static shapes, each captured as a graph and replayed with one launch."""

from collections.abc import Mapping, Sequence
from subprocess import CalledProcessError
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
import triton
from numpy.typing import NDArray
from triton.errors import TritonError

from model.backends.base import (
    NOT_FINITE,
    DecodeInput,
    DecodeOutput,
    DecodePlan,
    LinearCosts,
    MultiStepDecode,
    announced,
    check_run,
    room_left,
)
from model.backends.cuda import drawing, kernels
from model.backends.cuda.step import Step
from model.backends.cuda.table import MAX_VOCABULARY, make_table
from model.device import Numerics
from model.errors import DeviceError
from model.network import GPT
from model.sampling.ngram_draft import Draft, context_keys
from model.sampling.sampler import Logits


class Width(NamedTuple):
    """Up to so many sequences have so many rows each in a step: for the last id, and for draft tokens."""

    sequences: int
    rows: int


MIN_ROWS = 16  # of a graph; there is one for each power of two from here on
WIDTHS = (Width(32, 8), Width(128, 4), Width(512, 2))  # beyond them, one row each
MAX_STEPS = 32  # in one `decode`: 5 milliseconds for one sequence, 25 for 512
MAX_LOGITS = 1 << 24  # numbers that one `decode` can hold
NOTE = "compiling the generator for this GPU"
_capturing = Lock()  # PyTorch captures one graph at a time, and no other model should take its memory meanwhile
REMEDY = "it needs a C compiler, gcc, and Python's headers the first time; or choose cpu"


class CudaBackend:
    """A `Backend` with `MultiStepDecode` (see both).

    A row's result does not depend on the rows beside it, or on chunks.

    Args:
        draft: where the draft tokens of `decode` come from; none without one.
    Raises:
        DeviceError: the GPU has too little memory, or Triton cannot use it.
    """

    prefill_chunk = 64
    prefill_budget = 256
    speculation = LinearCosts(max_draft_tokens=WIDTHS[0].rows - 1, call=100.0, draft_token=1.0)
    decodes_separately = True

    def __init__(self, network: GPT, numerics: Numerics, slots: int, draft: Draft | None = None) -> None:
        self.config = network.config
        self.slots = slots
        vocab_size = self.config.vocab_size
        self._draft = draft if vocab_size <= MAX_VOCABULARY else None
        self._max_rows = max(self.prefill_budget, *(size for size, _ in self._shapes()))
        self._max_steps = max(1, min(MAX_STEPS, MAX_LOGITS // (self._max_rows * vocab_size)))
        self._lengths = [0] * slots
        self._graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}
        try:
            with _capturing:
                self._table = make_table(self._draft, vocab_size, numerics.torch_device)
                self._step = Step(
                    network, numerics, slots, self.prefill_chunk, self._max_rows, self._max_steps, self._table
                )
                if numerics.device_type == "cuda":
                    with announced(NOTE):
                        self._capture()
        except torch.OutOfMemoryError as error:
            remedy = "use fewer, or choose cpu"
            raise DeviceError(f"device: the GPU has no memory for {slots} slots; {remedy}") from error

    @property
    def multi_step(self) -> MultiStepDecode:
        """This backend itself."""
        return self

    def length(self, slot: int) -> int:
        """Ids in the slot's sequence."""
        return self._lengths[slot]

    def truncate(self, slot: int, length: int = 0) -> None:
        """Keep the sequence's first `length` ids."""
        self._lengths[slot] = length

    def reset(self) -> None:
        """Empty all slots; what is beyond their lengths is never read.

        Raises:
            RuntimeError: the GPU is lost.
        """
        self._step.synchronize()
        self._lengths = [0] * self.slots

    def forward(self, runs: Mapping[int, Sequence[int]]) -> dict[int, Logits]:
        """Append ids to each slot named; return the logits (n, V) after each of the slot's n ids.

        Raises:
            ValueError: an id is not in the vocabulary, or there are too many of them.
        """
        rows: list[tuple[int, int, int]] = []  # slot, position, id
        for slot, ids in runs.items():
            check_run(self, slot, ids)
            rows += zip(
                [slot] * len(ids), range(self._lengths[slot], self._lengths[slot] + len(ids)), ids, strict=True
            )
        parts = [np.zeros((0, self.config.vocab_size), np.float32)]
        for first in range(0, len(rows), self._max_rows):
            part = np.array(rows[first : first + self._max_rows], dtype=np.int64)
            size = _size(len(part))
            self._step.set_rows(part, size)
            self._run(size, 0)
            parts.append(self._step.read_logits(len(part)))
        logits = np.concatenate(parts)
        results = {}
        end = 0
        for slot, ids in runs.items():
            first = end
            end += len(ids)
            self._lengths[slot] += len(ids)
            results[slot] = logits[first:end]
        return results

    def plan_decode(self, ready: int) -> DecodePlan:
        """All sequences that are ready, for as many steps as the buffers hold."""
        return DecodePlan(ready, self._max_steps)

    def decode(self, inputs: Sequence[DecodeInput], steps: int, speculate: bool) -> list[DecodeOutput]:
        """Draw in each sequence for several steps; see `MultiStepDecode`."""
        size, width = self._shape(len(inputs), speculate)
        sequences = self._sequence_fields(inputs)
        steps = min(steps, int(sequences[:, drawing.LIMIT.value].max()))  # each step draws one id at least
        self._step.set_sequences(sequences, size // width)
        for _ in range(steps):
            self._run(size, width)
        self._step.accept_and_propose(size, width)
        ids, counts, logits = self._step.read_drawn(steps, size)
        # A row of a step belongs to a sequence, and counts if no draft token before it was rejected.
        counts = counts[:, : len(inputs)].T  # (sequences, steps)
        accepted = np.arange(width) < counts[..., None]  # (sequences, steps, width)
        shape = (steps, size // width, width)
        accepted_ids = ids.reshape(shape).swapaxes(0, 1)[: len(inputs)][accepted]
        if (accepted_ids == drawing.NOT_FINITE_ID.value).any():
            raise FloatingPointError(NOT_FINITE)
        accepted_logits = logits.reshape(*shape, -1).swapaxes(0, 1)[: len(inputs)][accepted]
        outputs = []
        end = 0
        for one, count in zip(inputs, counts.sum(axis=1).tolist(), strict=True):
            first = end
            end += count
            self._lengths[one.slot] += count
            outputs.append(DecodeOutput(accepted_ids[first:end].tolist(), accepted_logits[first:end]))
        return outputs

    def _sequence_fields(self, inputs: Sequence[DecodeInput]) -> NDArray[np.int64]:
        """What the device keeps of each sequence (n, `SEQUENCE_FIELDS`)."""
        fields = np.zeros((len(inputs), drawing.SEQUENCE_FIELDS), np.int64)
        fields[:, kernels.SLOT.value] = [one.slot for one in inputs]
        fields[:, kernels.POSITION.value] = [self._lengths[one.slot] for one in inputs]
        fields[:, kernels.TOKEN.value] = [one.context[-1] for one in inputs]
        fields[:, drawing.LIMIT.value] = [min(one.max_tokens, room_left(self, one.slot)) for one in inputs]
        fields[:, drawing.SEED.value] = [one.gumbel_noise.seed for one in inputs]
        fields[:, drawing.SAMPLE.value] = [one.gumbel_noise.sample for one in inputs]
        fields[:, drawing.DRAW_POSITION.value] = [one.position for one in inputs]
        temperatures = np.array([one.temperature for one in inputs], np.float64)
        fields[:, drawing.TEMPERATURE.value] = temperatures.view(np.int64)  # its bits
        max_context = self._table.max_context
        if max_context:
            contexts = np.full((len(inputs), max_context), -1, np.int64)  # -1 first where a text is shorter
            for row, one in enumerate(inputs):
                context = one.context[-max_context:]
                contexts[row, max_context - len(context) :] = context
            fields[:, drawing.CONTEXT_KEY.value] = context_keys(contexts, self.config.vocab_size)
        return fields

    def _shape(self, sequences: int, speculate: bool) -> tuple[int, int]:
        """The rows of a step in which so many sequences decode, and how many each of them has."""
        width = 1
        if speculate and self._draft is not None:
            width = next((width.rows for width in WIDTHS if sequences <= width.sequences), 1)
        return _size(sequences * width), width

    def _shapes(self) -> set[tuple[int, int]]:
        """All that there can be of them."""
        shapes = set()
        for sequences in range(1, self.slots + 1):
            shapes.add(self._shape(sequences, speculate=False))
            shapes.add(self._shape(sequences, speculate=True))
        return shapes

    def _run(self, size: int, width: int) -> None:
        """One step of so many rows, of sequences that have `width` each; with `width` 0 a forward pass alone."""
        if (size, width) in self._graphs:
            self._graphs[size, width].replay()
        else:
            self._start(size, width)

    def _start(self, size: int, width: int) -> None:
        if width:
            self._step.accept_and_propose(size, width)
        self._step.forward(size)
        if width:
            self._step.draw(size, width)

    def _capture(self) -> None:
        """Compile what is not compiled yet, and capture a graph for each shape."""
        try:
            _ = triton.runtime.driver.active.utils
        except (AssertionError, ImportError, RuntimeError, OSError, CalledProcessError) as error:
            raise DeviceError(f"device: Triton cannot use the GPU ({error}); {REMEDY}") from error
        sizes = {_size(rows) for rows in range(1, self._max_rows + 1)}
        try:
            for size, width in sorted(self._shapes() | {(size, 0) for size in sizes}):
                self._graphs[size, width] = self._captured(size, width)
        except TritonError as error:
            raise DeviceError(f"device: the kernels are not for this GPU ({error}); choose cpu") from error

    def _captured(self, size: int, width: int) -> torch.cuda.CUDAGraph:
        self._step.set_rows(np.zeros((0, kernels.ROW_FIELDS), np.int64), size)
        self._step.set_sequences(np.zeros((0, drawing.SEQUENCE_FIELDS), np.int64), size)
        self._start(size, width)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may compute meanwhile
            self._start(size, width)
        return graph


def _size(rows: int) -> int:
    """Rows of the smallest graph that has so many."""
    return max(MIN_ROWS, int(triton.next_power_of_2(rows)))
