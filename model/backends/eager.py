"""The readable reference: PyTorch, operation by operation, on any device."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.backends.base import Writing
from model.device import Numerics
from model.network import GPT, rotary_angles
from model.sampling.ngram_draft import Draft
from model.sampling.sampler import Logits

# A matrix product's rounding depends on its shape, so rows are always computed in groups of so many, full or
# not; and on a CPU in fewer, if this machine has shown that each row's bits stay the same. With some libraries
# (OpenBLAS) it depends on a row's place in the group too: there each row is computed by itself.
CPU_GROUP = 8
GPU_GROUP = 32
SMALLER_GROUPS = (2, 4)


class EagerBackend:
    """PyTorch, operation by operation. Each layer's cache is a ring: position p lives at p mod `block_size`."""

    def __init__(self, network: GPT, numerics: Numerics, slots: int, compile: bool = False) -> None:
        self.config = network.config
        self.device = numerics.device
        self.slots = slots
        self.chunk, self.prompt_rows = self.config.block_size, 1
        self.drafts, self.call_cost, self.guess_cost = 0, 0.0, 1.0
        self.draws_apart = False
        self.group = CPU_GROUP if self.device.type == "cpu" else GPU_GROUP
        network = network.to(self.device, numerics.dtype)
        self._decode_network = torch.compile(network) if compile else network
        self._prefill_network = network
        rows = -(-slots // self.group) * self.group
        config = self.config
        shape = (config.n_layer, 2, rows, config.n_head, config.block_size, config.head_size)
        self._cache = torch.zeros(shape, device=self.device, dtype=numerics.dtype)
        self._lengths = [0] * rows
        self._sizes = self._sizes_with_the_same_bits()
        self.group = self._sizes[-1]

    def length(self, slot: int) -> int:
        """Characters in the slot's sequence."""
        return self._lengths[slot]

    def forget(self, slot: int, length: int = 0) -> None:
        """Leave the first `length` characters of the slot's sequence."""
        self._lengths[slot] = length

    @torch.inference_mode()
    def reset(self) -> None:
        """Forget all slots; attention multiplies even what it masks, so a NaN must not stay."""
        self._cache.zero_()
        self._lengths = [0] * len(self._lengths)

    @torch.inference_mode()
    def extend(self, runs: Mapping[int, Sequence[int]]) -> dict[int, Logits]:
        """Append ids to each slot named; return the logits (n, V) after each of the slot's n ids."""
        logits = {slot: self._prefill(slot, ids) for slot, ids in runs.items() if not self._lengths[slot]}
        rest = {slot: ids for slot, ids in runs.items() if slot not in logits}
        for place in range(max(map(len, rest.values()), default=0)):
            step = self._decode({slot: ids[place] for slot, ids in rest.items() if place < len(ids)})
            logits |= {slot: np.concatenate((logits[slot], row)) if place else row for slot, row in step.items()}
        return logits

    def streams_ahead(self, streams: int) -> int:
        """None: this backend does not draw."""
        return 0

    def steps_ahead(self, streams: int, guesses: int) -> int:
        """None: this backend does not draw."""
        return 0

    def write(self, writings: Sequence[Writing], steps: int, draft: Draft | None) -> list[tuple[list[int], Logits]]:
        """Never to be called."""
        raise RuntimeError("this backend does not draw: steps_ahead is 0")

    def _prefill(self, slot: int, ids: Sequence[int]) -> Logits:
        """Read a sequence from its beginning; logits (T, V)."""
        inputs = torch.tensor([ids], device=self.device)  # (1, T)
        caches = [_PrefillCache(layer[:, slot]) for layer in self._cache]
        with self._fixed_threads():
            logits = self._prefill_network(inputs, caches=caches)  # (1, T, V)
        self._lengths[slot] = len(ids)
        return _to_numpy(logits[0])

    def _decode(self, ids: Mapping[int, int]) -> dict[int, Logits]:
        """Append one id to each slot named; logits (1, V) after each."""
        logits: dict[int, Logits] = {}
        for first in sorted({slot - slot % self.group for slot in ids}):
            slots = [slot for slot in ids if first <= slot < first + self.group]
            size = next(size for size in self._sizes if first + size > max(slots))
            group_logits = self._decode_group(first, [ids.get(first + row, 0) for row in range(size)])
            for slot in slots:
                logits[slot] = group_logits[slot - first : slot - first + 1]
                self._lengths[slot] += 1
        return logits

    @torch.inference_mode()
    def _sizes_with_the_same_bits(self) -> list[int]:
        """Group sizes to choose from, in which a row's bits depend on neither the size nor its place in the group.

        Those are the whole group, and smaller ones on a CPU; or one row, if rows of the whole group come out
        otherwise in another order. Which kernel multiplies depends on the shapes alone, so some steps of random
        rows tell.
        """
        random = np.random.default_rng(0)
        cache = torch.from_numpy(random.standard_normal(self._cache[:, :, : self.group].shape)).to(self._cache)
        lengths = random.integers(self.config.block_size, size=self.group)
        ids = random.integers(self.config.vocab_size, size=self.group)

        def logits(order: NDArray[np.int64]) -> Logits:
            """Those of the rows in this order."""
            self._cache[:, :, : len(order)] = cache[:, :, order]
            self._lengths[: len(order)] = lengths[order].tolist()
            return self._decode_group(0, ids[order].tolist())

        places = np.arange(self.group)
        whole = logits(places)
        smaller = SMALLER_GROUPS if self.device.type == "cpu" else ()
        sizes = [n for n in smaller if np.array_equal(logits(places[:n]), whole[:n])]
        moved = np.roll(places, -1)  # each place is compared with the next, and so all with each other
        alike = np.array_equal(logits(moved), whole[moved])
        self.reset()
        return [*sizes, self.group] if alike else [1]

    def _decode_group(self, first: int, ids: list[int]) -> Logits:
        """Logits (rows, V) after one more id in each of the rows from `first` on.

        Rows not asked for are computed too: what they write at their next place is overwritten before it is
        ever attended to.
        """
        rows, size = slice(first, first + len(ids)), self.config.block_size
        positions = torch.tensor(self._lengths[rows])[:, None]  # (rows, 1)
        mask = (torch.arange(size) <= positions)[:, None, None].to(self.device)  # (rows, 1, 1, W)
        places = (positions[:, 0] % size).to(self.device)
        caches = [_DecodeCache(layer[:, rows], places) for layer in self._cache]
        angles = rotary_angles(positions, self.config.head_size) if self.config.positions == "rotary" else None
        rotary = None if angles is None else (angles[0].to(self.device), angles[1].to(self.device))
        positions = positions.clamp(max=size - 1)  # learned ones end; only a row not asked for can be beyond
        with self._fixed_threads():
            inputs = torch.tensor(ids, device=self.device)[:, None]
            logits = self._decode_network(inputs, positions, mask, caches, rotary)  # (rows, 1, V)
        return _to_numpy(logits[:, 0])

    @contextmanager
    def _fixed_threads(self) -> Iterator[None]:
        """One thread on a CPU: with more, rounding would depend on their number."""
        before = torch.get_num_threads()
        if self.device.type == "cpu" and before != 1:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if torch.get_num_threads() != before:
                torch.set_num_threads(before)


class _PrefillCache:
    """Writes one slot's sequence from position 0; attention needs only what was just computed."""

    def __init__(self, slot: Tensor) -> None:
        self.slot = slot  # (2, H, W, D)

    def update(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        self.slot[0, :, : key.shape[2]] = key[0]
        self.slot[1, :, : key.shape[2]] = value[0]
        return key, value


class _DecodeCache:
    """Writes one position in each row's ring; attention reads the whole ring."""

    def __init__(self, layer: Tensor, places: Tensor) -> None:
        self.layer = layer  # (2, rows, H, W, D)
        self.places = places  # (rows,)
        self.rows = torch.arange(len(places), device=places.device)

    def update(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        self.layer[0, self.rows, :, self.places] = key[:, :, 0]
        self.layer[1, self.rows, :, self.places] = value[:, :, 0]
        return self.layer[0], self.layer[1]


def _to_numpy(logits: Tensor) -> Logits:
    array: Logits = logits.float().cpu().numpy()
    return np.ascontiguousarray(array)
