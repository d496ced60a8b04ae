"""The `cpu-int8` backend: slots over the compiled kernel, its rows shared among threads."""

from collections.abc import Mapping, Sequence
from itertools import accumulate

from model.backends.base import Writing, announced, check_run
from model.backends.cpu.amx import ask_for_amx
from model.backends.cpu.buffers import CHUNK, make_cache, quantise_weights, shape_of
from model.backends.cpu.multi_step import CONTEXT, Guessing
from model.backends.cpu.worker_pool import NO_GUESSING, Team
from model.device import usable_cores
from model.network import GPT
from model.sampling.ngram_draft import CERTAINTY, MAX_CHANCE, UNITS, Draft
from model.sampling.sampler import Logits

MAX_STEPS = 8  # in one `write`: other work has to wait for them
# Of more streams, so many at a time are drawn in: after a few steps their keys and values are in the processor's
# caches, where those of all have no room. More steps would be faster still, but text would come in larger lumps.
MAX_SEQUENCES = 32
NOTE = "compiling the generator for this CPU"


class Int8Backend:
    """A `Backend` (see there). A row's result does not depend on the rows beside it, on threads, or on chunks."""

    chunk = CHUNK
    prompt_rows = 2 * CHUNK
    drafts = 7
    call_cost = 4.0
    draws_apart = False

    def __init__(self, network: GPT, slots: int, threads: int | None = None) -> None:
        self.config = network.config
        self.slots = slots
        self.threads = threads or usable_cores()
        shape = shape_of(self.config, ask_for_amx())
        self.guess_cost = 0.55 if shape.tiles else 0.75  # keys and values are read once for a slot's rows
        self._weights = quantise_weights(network)
        self._cache = make_cache(self.config, slots)
        self._lengths = [0] * slots
        with announced(NOTE):  # now, so that no request has to wait for the compiler
            self._team = Team(shape, self._weights, self._cache, self.threads, slots)

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
            check_run(self, slot, ids)
        if not runs:
            return {}
        order = sorted(runs.items(), key=lambda run: -len(run[1]))  # so that they can be shared out evenly
        slots = [slot for slot, ids in order for _ in ids]
        positions = [self._lengths[slot] + i for slot, ids in order for i in range(len(ids))]
        tokens = [token for _, ids in order for token in ids]
        ends = list(accumulate(len(ids) for _, ids in order))
        logits = self._team.compute((slots, positions, tokens), ends)
        answers = {}
        for (slot, ids), end in zip(order, ends, strict=True):
            self._lengths[slot] += len(ids)
            answers[slot] = logits[end - len(ids) : end]
        return answers

    def streams_ahead(self, streams: int) -> int:
        """How many of so many streams one `write` should draw in."""
        return min(streams, MAX_SEQUENCES)

    def steps_ahead(self, streams: int, guesses: int) -> int:
        """Steps that one `write` should take; a single one is better taken by `extend`.

        A stream whose guesses are so good that its places are full pauses for the rest of them.
        """
        steps = min(MAX_STEPS, self._team.places // streams)
        return steps if steps > 1 else 0

    def write(self, writings: Sequence[Writing], steps: int, draft: Draft | None) -> list[tuple[list[int], Logits]]:
        """Draw on in each stream; see `Backend`."""
        guessing = NO_GUESSING
        if draft is not None:
            table = draft.keys, draft.surprise, min(draft.longest, CONTEXT), 1 / UNITS, CERTAINTY
            guessing = Guessing(*table, self.drafts, self.call_cost, self.guess_cost, MAX_CHANCE)
        lengths = [self._lengths[one.slot] for one in writings]
        learned, most = self.config.positions == "learned", self.config.block_size
        left = [most - length if learned else one.most for one, length in zip(writings, lengths, strict=True)]
        written = self._team.write(list(zip(writings, lengths, left, strict=True)), steps, guessing)
        for one, (ids, _) in zip(writings, written, strict=True):
            self._lengths[one.slot] += len(ids)
        return written
