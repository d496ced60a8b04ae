"""The `cpu-int8` backend: slots over the compiled kernel, its rows shared among threads."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.backends.base import (
    DecodeInput,
    DecodeOutput,
    DecodePlan,
    MultiStepDecode,
    announced,
    check_run,
    room_left,
)
from model.backends.cpu.amx import request_amx
from model.backends.cpu.buffers import ATTENTION_ROWS, PREFILL_CHUNK, kernel_config, make_cache, quantise_weights
from model.backends.cpu.multi_step import CONTEXT, Speculation
from model.backends.cpu.step_costs import TICKS_PER_SECOND, MeasuredCosts
from model.backends.cpu.worker_pool import NO_SPECULATION, PoolInput, WorkerPool
from model.config import GPTConfig
from model.device import usable_cores
from model.sampling.ngram_draft import MARGIN_SLOPE, MAX_BREAK_EVEN, UNITS_PER_NAT, Draft
from model.sampling.sampler import Logits

MAX_DRAFT_TOKENS = 7
MAX_PREFILL_SECONDS = 0.012  # that a step should take for prompts, while others wait for their next character
MIN_PREFILL_CHUNK = 16  # however slow the machine is
MAX_STEPS = 8  # in one `decode`: other work has to wait for them
# Of more sequences, so many at a time are decoded: after a few steps their keys and values are in the processor's
# caches, where those of all have no room. More steps would be faster still, but text would come in larger lumps.
MAX_SEQUENCES = 32
NOTE = "compiling the generator for this CPU"


class Int8Backend:
    """A `Backend` with `MultiStepDecode` (see both).

    A row's result does not depend on the rows beside it, on threads, or on chunks.

    Args:
        weights: a checkpoint's, by their names in the network.
        threads: `usable_cores` if None.
        draft: where the draft tokens of `decode` come from; none without one.
    """

    decodes_separately = False

    def __init__(
        self,
        config: GPTConfig,
        weights: Mapping[str, NDArray[Any]],
        slots: int,
        threads: int | None = None,
        draft: Draft | None = None,
    ) -> None:
        self.config = config
        self.slots = slots
        self.threads = threads or usable_cores()
        compiled_config = kernel_config(self.config, request_amx())
        self._compiled_speculation = NO_SPECULATION if draft is None else _speculation(draft)
        self._weights = quantise_weights(config, weights)
        self._cache = make_cache(self.config, slots)
        self._lengths = [0] * slots
        with announced(NOTE):  # now, so that no request has to wait for the compiler
            self._pool = WorkerPool(compiled_config, self._weights, self._cache, self.threads, slots)
        self.speculation = MeasuredCosts(self._pool.curve, MAX_DRAFT_TOKENS)
        self.prefill_chunk = _prefill_chunk(self.speculation)
        self.prefill_budget = self.prefill_chunk

    @property
    def multi_step(self) -> MultiStepDecode:
        """This backend itself."""
        return self

    @property
    def products_per_row(self) -> int:
        """Multiplications of weights for one character."""
        w = self._weights
        return int(
            sum(part.size for part in (w.qkv, w.attention_output, w.mlp_expand, w.mlp_output)) + 2 * w.head.size
        )

    @property
    def bytes_per_step(self) -> int:
        """Bytes that one character of one sequence reads: all weights of products, and a full window."""
        cache = sum(part[0].nbytes for part in self._cache)
        return int(self.products_per_row - self._weights.head.size + cache)

    def length(self, slot: int) -> int:
        """Ids in the slot's sequence."""
        return self._lengths[slot]

    def truncate(self, slot: int, length: int = 0) -> None:
        """Keep the first `length` ids of the slot's sequence: none, or all but `ATTENTION_ROWS` - 1 at most."""
        self._lengths[slot] = length
        if not length:
            self._cache.scales[slot] = 0  # whatever was there, even if it was not finite

    def reset(self) -> None:
        """Empty all slots."""
        for slot in range(self.slots):
            self.truncate(slot)

    def forward(self, runs: Mapping[int, Sequence[int]]) -> dict[int, Logits]:
        """Append ids to each slot named; return the logits (n, V) after each of the slot's n ids.

        Raises:
            ValueError: an id is not in the vocabulary, or there are too many of them.
        """
        for slot, ids in runs.items():
            check_run(self, slot, ids)
        logits: dict[int, list[Logits]] = {slot: [] for slot in runs}
        unread = {slot: list(ids) for slot, ids in runs.items()}
        while unread:
            now: dict[int, list[int]] = {}
            later: dict[int, list[int]] = {}
            for slot, ids in unread.items():
                size = self._max_run(slot, len(ids))
                now[slot] = ids[:size]
                if size < len(ids):
                    later[slot] = ids[size:]
            for slot, part in self._forward_at_once(now).items():
                logits[slot].append(part)
            unread = later
        return {slot: parts[0] if len(parts) == 1 else np.concatenate(parts) for slot, parts in logits.items()}

    def _max_run(self, slot: int, size: int) -> int:
        """Return how many of `size` ids the slot can read at once.

        While the ring is not full, as many as there are: nothing is overwritten. Then `ATTENTION_ROWS`, for which
        the ring has room besides a window.
        """
        ring_size = self._cache.scales.shape[4]
        return size if self._lengths[slot] + size <= ring_size else min(size, ATTENTION_ROWS)

    def _forward_at_once(self, runs: Mapping[int, Sequence[int]]) -> dict[int, Logits]:
        """Return what `forward` does, of runs that no ring is too short for."""
        longest_first = sorted(runs.items(), key=lambda run: -len(run[1]))  # so that threads can share them evenly
        slots: list[int] = []
        positions: list[int] = []
        tokens: list[int] = []
        for slot, ids in longest_first:
            first = self._lengths[slot]
            slots += [slot] * len(ids)
            positions += range(first, first + len(ids))
            tokens += ids
        ends = list(accumulate(len(ids) for _, ids in longest_first))
        logits = self._pool.forward((slots, positions, tokens), ends)
        results = {}
        for (slot, ids), end in zip(longest_first, ends, strict=True):
            self._lengths[slot] += len(ids)
            results[slot] = logits[end - len(ids) : end]
        return results

    def plan_decode(self, ready: int) -> DecodePlan:
        """How many sequences one `decode` should take, and for how many steps.

        A sequence whose draft tokens are so good that its places are full pauses for the rest of the steps. A plan
        of one step is better left to `forward`.
        """
        sequences = min(ready, MAX_SEQUENCES)
        steps = min(MAX_STEPS, self._pool.max_decoded_ids // sequences)
        return DecodePlan(sequences, steps if steps > 1 else 0)

    def decode(self, inputs: Sequence[DecodeInput], steps: int, speculate: bool) -> list[DecodeOutput]:
        """Draw in each sequence for several steps; see `MultiStepDecode`."""
        speculation = self._compiled_speculation if speculate else NO_SPECULATION
        pool_inputs = []
        for one in inputs:
            limit = min(one.max_tokens, room_left(self, one.slot))
            pool_inputs.append(PoolInput(one, self._lengths[one.slot], limit))
        outputs = []
        for one, (ids, logits) in zip(inputs, self._pool.decode(pool_inputs, steps, speculation), strict=True):
            self._lengths[one.slot] += len(ids)
            outputs.append(DecodeOutput(ids, logits))
        return outputs


def _prefill_chunk(costs: MeasuredCosts) -> int:
    """Return how many ids of a prompt a step should read, so that sequences beside it do not wait for long."""
    chunk = PREFILL_CHUNK
    while chunk > MIN_PREFILL_CHUNK and costs.cost(chunk, 1) > MAX_PREFILL_SECONDS * TICKS_PER_SECOND:
        chunk //= 2
    return chunk


def _speculation(draft: Draft) -> Speculation:
    """What the compiled kernel needs to propose draft tokens."""
    return Speculation(
        keys=draft.keys,
        surprisal=draft.surprisal,
        max_context=min(draft.max_context, CONTEXT),
        nats_per_unit=1 / UNITS_PER_NAT,
        margin_slope=MARGIN_SLOPE,
        max_draft_tokens=MAX_DRAFT_TOKENS,
        max_break_even=MAX_BREAK_EVEN,
    )
