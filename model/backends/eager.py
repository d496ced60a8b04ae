"""The readable reference: PyTorch, operation by operation, on any device.

Knows nothing of sampling; which rows are computed together is decided by `row_groups`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.backends.base import MultiStepDecode, StepCosts
from model.backends.row_groups import max_group, stable_sizes
from model.device import Numerics
from model.network import GPT, rotary_angles
from model.sampling.sampler import Logits


class EagerBackend:
    """A `Backend` (see there) of the network itself, one row per slot.

    Each layer's cache is a ring: position p is stored at index p mod `block_size`. With rotary positions it rolls:
    a new position overwrites the one that has just left the window, and since keys are stored already rotated, by
    angles that only matter relative to each other, the order of the ring is of no matter to attention. With learned
    positions p never exceeds `block_size`: the generator truncates the slot and reads its newer half again.
    """

    speculation: StepCosts | None = None
    multi_step: MultiStepDecode | None = None

    def __init__(self, network: GPT, numerics: Numerics, slots: int, compile: bool = False) -> None:
        self.config = network.config
        self.device = numerics.torch_device
        self.slots = slots
        self.prefill_chunk = self.config.block_size
        self.prefill_budget = 1  # one prompt in a step: each is a call of its own here
        network = network.to(self.device, numerics.torch_dtype)
        self._decode_network = torch.compile(network) if compile else network
        self._prefill_network = network
        group = max_group(self.device)
        rows = -(-slots // group) * group
        config = self.config
        shape = (config.n_layer, 2, rows, config.n_head, config.block_size, config.head_size)
        self._cache = torch.zeros(shape, device=self.device, dtype=numerics.torch_dtype)
        self._lengths = [0] * rows
        self._group_sizes = stable_sizes(self._random_rows(group), self.device)
        self.reset()

    def length(self, slot: int) -> int:
        """Ids in the slot's sequence."""
        return self._lengths[slot]

    def truncate(self, slot: int, length: int = 0) -> None:
        """Keep the first `length` ids of the slot's sequence."""
        self._lengths[slot] = length

    @torch.inference_mode()
    def reset(self) -> None:
        """Empty all slots; attention multiplies even what it masks, so a NaN must not stay."""
        self._cache.zero_()
        self._lengths = [0] * len(self._lengths)

    @torch.inference_mode()
    def forward(self, runs: Mapping[int, Sequence[int]]) -> dict[int, Logits]:
        """Append ids to each slot named; return the logits (n, V) after each of the slot's n ids.

        An empty slot reads all of its ids at once; the others read one id each at a time, together.
        """
        logits: dict[int, Logits] = {}
        decoding: dict[int, Sequence[int]] = {}
        for slot, ids in runs.items():
            if self._lengths[slot] == 0:
                logits[slot] = self._prefill(slot, ids)
            else:
                decoding[slot] = ids
        rows: dict[int, list[Logits]] = {slot: [] for slot in decoding}
        for index in range(max(map(len, decoding.values()), default=0)):
            next_ids = {slot: ids[index] for slot, ids in decoding.items() if index < len(ids)}
            for slot, row in self._decode(next_ids).items():
                rows[slot].append(row)
        for slot, parts in rows.items():
            logits[slot] = np.concatenate(parts)
        return logits

    def _prefill(self, slot: int, ids: Sequence[int]) -> Logits:
        """Read a sequence from its beginning; logits (T, V)."""
        inputs = torch.tensor([ids], device=self.device)  # (1, T)
        caches = [_PrefillCache(layer[:, slot]) for layer in self._cache]
        with self._fixed_threads():
            logits = self._prefill_network(inputs, caches=caches)  # (1, T, V)
        self._lengths[slot] = len(ids)
        return _to_numpy(logits[0])

    def _decode(self, ids: Mapping[int, int]) -> dict[int, Logits]:
        """Append one id to each slot named; logits (1, V) after each.

        A slot is always computed in the same group of neighbouring rows, as small a one as its slots of now allow.
        """
        logits: dict[int, Logits] = {}
        group = self._group_sizes[-1]
        for first in sorted({slot - slot % group for slot in ids}):
            slots = [slot for slot in ids if first <= slot < first + group]
            size = next(size for size in self._group_sizes if first + size > max(slots))
            row_ids = [ids.get(row, 0) for row in range(first, first + size)]
            group_logits = self._decode_group(first, row_ids)
            for slot in slots:
                row = slot - first
                logits[slot] = group_logits[row : row + 1]
                self._lengths[slot] += 1
        return logits

    def _decode_group(self, first: int, ids: list[int]) -> Logits:
        """Logits (rows, V) after one more id in each of the rows from `first` on.

        Rows that belong to no slot in this step are computed too. What they write at their next position is
        overwritten by their own next id before any row attends to it.
        """
        window = self.config.block_size
        rows = slice(first, first + len(ids))
        positions = torch.tensor(self._lengths[rows])[:, None]  # (rows, 1)
        mask = (torch.arange(window) <= positions)[:, None, None].to(self.device)  # (rows, 1, 1, W)
        ring_indices = (positions[:, 0] % window).to(self.device)  # (rows,)
        caches = [_DecodeCache(layer[:, rows], ring_indices) for layer in self._cache]
        rotary = None
        if self.config.positions == "rotary":
            cosine, sine = rotary_angles(positions, self.config.head_size)
            rotary = (cosine.to(self.device), sine.to(self.device))
        positions = positions.clamp(max=window - 1)  # of learned ones; only a row of no slot can be beyond
        with self._fixed_threads():
            inputs = torch.tensor(ids, device=self.device)[:, None]  # (rows, 1)
            logits = self._decode_network(inputs, positions, mask, caches, rotary)  # (rows, 1, V)
        return _to_numpy(logits[:, 0])

    def _random_rows(self, group: int) -> Callable[[NDArray[np.int64]], Logits]:
        """A function that decodes rows with random caches, lengths and ids, in an order of its caller's choice."""
        random = np.random.default_rng(0)
        cache = torch.from_numpy(random.standard_normal(self._cache[:, :, :group].shape)).to(self._cache)
        lengths = random.integers(self.config.block_size, size=group)
        ids = random.integers(self.config.vocab_size, size=group)

        @torch.inference_mode()
        def decode(order: NDArray[np.int64]) -> Logits:
            self._cache[:, :, : len(order)] = cache[:, :, order]
            self._lengths[: len(order)] = lengths[order].tolist()
            return self._decode_group(0, ids[order].tolist())

        return decode

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
    """A `LayerCache` that stores a slot's sequence from position 0; attention needs only what was just computed."""

    def __init__(self, slot: Tensor) -> None:
        self.slot = slot  # (2, H, W, D)

    def update(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        self.slot[0, :, : key.shape[2]] = key[0]
        self.slot[1, :, : key.shape[2]] = value[0]
        return key, value


class _DecodeCache:
    """A `LayerCache` that stores one position in each row's ring; attention reads the whole ring."""

    def __init__(self, layer: Tensor, ring_indices: Tensor) -> None:
        self.layer = layer  # (2, rows, H, W, D)
        self.ring_indices = ring_indices  # (rows,)
        self.rows = torch.arange(len(ring_indices), device=ring_indices.device)

    def update(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        self.layer[0, self.rows, :, self.ring_indices] = key[:, :, 0]
        self.layer[1, self.rows, :, self.ring_indices] = value[:, :, 0]
        return self.layer[0], self.layer[1]


def _to_numpy(logits: Tensor) -> Logits:
    array: Logits = logits.float().cpu().numpy()
    return np.ascontiguousarray(array)
