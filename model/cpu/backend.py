"""The `cpu-int8` backend: slots over the compiled kernel, its rows shared among threads."""

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Timer

import numpy as np
import torch

from model.cpu.compiled import compile_and_call
from model.cpu.kernel import forward
from model.cpu.layout import CHUNK, MAX_ROWS, make_cache, make_scratch, quantise_weights, shape_of
from model.network import GPT
from model.sampling import Logits

SHARED_ROWS = 6  # a second thread is worth its start from so many rows on

NOTE = "compiling the generator for this CPU"
NOTE_SECONDS = 1.5  # a kernel that was compiled before is mostly there sooner

Run = tuple[int, Sequence[int]]  # a slot and the ids that it reads


class Int8Backend:
    """A `Backend` (see there). A row's result does not depend on the rows beside it, on threads, or on chunks."""

    chunk = CHUNK
    prompt_rows = 2 * CHUNK
    drafts = 7
    call_cost = 2.0

    def __init__(self, network: GPT, slots: int, threads: int | None = None) -> None:
        self.config = network.config
        self.slots = slots
        self.threads = threads or torch.get_num_threads()
        self._shape = shape_of(self.config)
        self._weights = quantise_weights(network)
        self._cache = make_cache(self.config, slots)
        size = self.config.head_size
        self._scratch = [make_scratch(self._weights, self._cache, size) for _ in range(self.threads)]
        self._lengths = [0] * slots
        self._helpers = ThreadPoolExecutor(max(1, self.threads - 1), "kernel")
        self._forward = self._compile()

    def _compile(self) -> Callable[..., None]:
        """The kernel, at once, so that no request has to wait for the compiler."""
        rows, logits = np.zeros(1, dtype=np.int64), np.empty((1, self.config.vocab_size), dtype=np.float32)
        note = Timer(NOTE_SECONDS, print, (NOTE,), {"file": sys.stderr, "flush": True})
        note.start()
        try:
            memory = self._shape, self._weights, self._cache, self._scratch[0]
            return compile_and_call(forward, *memory, rows, rows, rows, logits)
        finally:
            note.cancel()

    @property
    def products_per_row(self) -> int:
        """Multiplications of weights for one character."""
        w = self._weights
        return int(sum(part.size for part in (w.qkv, w.mix, w.expand, w.reduce)) + 2 * w.head.size)

    @property
    def bytes_per_step(self) -> int:
        """Bytes that one character of one stream reads: all weights of products, and a full window."""
        cache = sum(part[0].nbytes for part in self._cache)
        return int(self.products_per_row - self._weights.head.size + cache)

    def length(self, slot: int) -> int:
        """Characters in the slot's sequence."""
        return self._lengths[slot]

    def forget(self, slot: int, length: int = 0) -> None:
        """Leave the first `length` characters of the slot's sequence."""
        self._lengths[slot] = length
        if not length:
            self._cache.scales[slot] = 0  # whatever was there, even if it was not finite

    def reset(self) -> None:
        """Forget all slots."""
        for slot in range(self.slots):
            self.forget(slot)

    def extend(self, runs: Mapping[int, Sequence[int]]) -> dict[int, Logits]:
        """Append ids to each slot named; return the logits (n, V) after each of the slot's n ids.

        Raises:
            ValueError: an id is not in the vocabulary, or there are too many of them.
        """
        for slot, ids in runs.items():
            self._check(slot, ids)
        first, *others = self._shares(list(runs.items()))
        waiting = [self._helpers.submit(self._compute, share, i) for i, share in enumerate(others, start=1)]
        try:
            logits = self._compute(first, 0)
        finally:
            wait(waiting)  # none may still write when a failure is over
        for share in waiting:
            logits |= share.result()
        for slot, ids in runs.items():
            self._lengths[slot] += len(ids)
        return logits

    def _check(self, slot: int, ids: Sequence[int]) -> None:
        """Refuse what the kernel would read or write beyond its memory for."""
        if not ids or min(ids) < 0 or max(ids) >= self.config.vocab_size or len(ids) > self.chunk:
            raise ValueError(
                f"slot {slot}: {len(ids)} ids, from 1 to {self.chunk} of the vocabulary's are possible"
            )
        if self.config.positions == "learned" and self._lengths[slot] + len(ids) > self.config.block_size:
            raise ValueError(f"slot {slot}: learned positions end at {self.config.block_size}")

    def _shares(self, runs: list[Run]) -> list[list[Run]]:
        """The runs, shared among as many threads as pay: about as many rows for each."""
        rows = sum(len(ids) for _, ids in runs)
        count = max(1, min(self.threads, len(runs), 2 * rows // SHARED_ROWS))
        shares: list[list[Run]] = [[] for _ in range(count)]
        taken = [0] * count
        for run in sorted(runs, key=lambda run: -len(run[1])):
            least = taken.index(min(taken))
            shares[least].append(run)
            taken[least] += len(run[1])
        return shares

    def _compute(self, runs: list[Run], thread: int) -> dict[int, Logits]:
        slots = np.array([slot for slot, ids in runs for _ in ids], dtype=np.int64)
        places = [self._lengths[slot] + i for slot, ids in runs for i in range(len(ids))]
        positions = np.array(places, dtype=np.int64)
        tokens = np.array([token for _, ids in runs for token in ids], dtype=np.int64)
        logits = np.empty((len(slots), self.config.vocab_size), dtype=np.float32)
        scratch = self._scratch[thread]
        for i in range(0, len(slots), MAX_ROWS):
            part = slice(i, i + MAX_ROWS)
            read = slots[part], positions[part], tokens[part]
            self._forward(self._shape, self._weights, self._cache, scratch, *read, logits[part])
        answers, first = {}, 0
        for slot, ids in runs:
            answers[slot] = logits[first : first + len(ids)]
            first += len(ids)
        return answers
