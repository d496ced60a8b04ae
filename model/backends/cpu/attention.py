"""Attention in the compiled kernel: keys and values of int8, one head after another.

Only the rotary angles' sines and cosines are the system's own, in float64 and then rounded to float32.
"""

import numpy as np
from numpy.typing import NDArray

from model.backends.cpu.buffers import Bytes, Cache, Floats, Ints, Scratch, Shape, SignedBytes, Span
from model.backends.cpu.gemm import OFFSET, multiply
from model.backends.cpu.microkernel import COLUMNS, GROUP
from model.backends.cpu.vector_ops import (
    combine,
    exponentials,
    highest,
    quantise,
    quantise_finely,
    total,
    total_of_squares,
)
from model.jit import inner

_MASKED = np.float32(-1e30)
_OFFSETS = np.uint32(OFFSET * 0x01010101).astype(np.int32)  # turns over the signs of four bytes: each is 128 more


@inner()
def angles(frequencies: NDArray[np.float64], position: int, angles: Floats) -> None:
    """Cosines and sines (2, D/2) of a position's rotary angles."""
    for i in range(len(frequencies)):
        angles[0, i] = np.cos(position * frequencies[i])
        angles[1, i] = np.sin(position * frequencies[i])


@inner(forceinline=True)
def _turn(shape: Shape, x: Floats, angles: Floats, turned: Floats, lanes: Floats) -> None:
    """Rotate and normalise a head's query or key (D,), as the configuration asks."""
    if shape.rotary:
        half = shape.head_size // 2
        a, b, cosine, sine = x[:half], x[half:], angles[0], angles[1]
        for i in range(half):
            turned[i] = a[i] * cosine[i] - b[i] * sine[i]
        for i in range(half):
            b[i] = b[i] * cosine[i] + a[i] * sine[i]
        for i in range(half):
            a[i] = turned[i]
    if shape.qk_norm:
        mean_square = total_of_squares(x, lanes) / np.float32(shape.head_size)
        factor = np.float32(1) / np.sqrt(mean_square + shape.qk_epsilon)
        for i in range(shape.head_size):
            x[i] *= factor


@inner()
def remember(
    shape: Shape,
    cache: Cache,
    s: Scratch,
    r: int,
    heads: Span,
    slot: int,
    layer: int,
    position: int,
) -> None:
    """Turn the row's queries and keys; write keys and values into the cache."""
    size, width = shape.head_size, s.stream.shape[1]
    scales = cache.scales[slot, layer]  # (2, H, R)
    place = position % scales.shape[2]
    qkv, bytes8 = s.qkv[r], s.bytes8
    for h in range(*heads):
        start, end = h * size, (h + 1) * size
        query, key, value = (
            qkv[start:end],
            qkv[width + start : width + end],
            qkv[2 * width + start : 2 * width + end],
        )
        _turn(shape, query, s.angles[r], s.scores, s.lanes)
        _turn(shape, key, s.angles[r], s.scores, s.lanes)
        scales[0, h, place], _ = quantise(key, bytes8)
        _write_key(bytes8, cache.keys[slot, layer, h, place // COLUMNS], place % COLUMNS)
        scales[1, h, place], _ = quantise(value, bytes8)
        _write_value(bytes8, cache.values[slot, layer, h, :, place // GROUP], place % GROUP)


@inner(forceinline=True)
def _write_key(key: SignedBytes, block: Bytes, column: int) -> None:
    """A key (D,) as one of the columns in a block (D/4, 64) of keys, four bytes at a time."""
    fours, places = key.view(np.int32), block.view(np.int32)
    for group in range(len(block)):
        places[group, column] = fours[group] ^ _OFFSETS


@inner(forceinline=True)
def _write_value(value: SignedBytes, group: Bytes, at: int) -> None:
    """A value (D,) as one of the places in a group (D/16, 64) of values."""
    for block in range(len(group)):
        for i in range(COLUMNS):
            group[block, i * GROUP + at] = np.int32(value[block * COLUMNS + i]) + OFFSET


@inner()
def attend(
    shape: Shape,
    cache: Cache,
    s: Scratch,
    first: int,
    rows: int,
    heads: Span,
    slot: int,
    layer: int,
    position: int,
    following: int,
    mixed: Floats,
) -> None:
    """Attention of some rows of one slot, from the `first` at `position` on, to their windows, into `mixed` (…, C).

    Keys and values are read once for all of them. While a head's keys are multiplied, its values are on their way,
    and then the keys of the next head, or of the slot `following`.
    """
    size, ring, blocks = shape.head_size, cache.scales.shape[4], s.mixed_sums.shape[1] // COLUMNS
    count = min(ring, ((position + rows - 1) // COLUMNS + 1) * COLUMNS)
    steps, root = s.query8.shape[1] // GROUP, np.sqrt(np.float32(size))
    across = cache.values.ctypes.data - cache.keys.ctypes.data
    for h in range(*heads):
        start, end = h * size, (h + 1) * size
        key_scales, value_scales = cache.scales[slot, layer, 0, h], cache.scales[slot, layer, 1, h]
        for i in range(rows):
            s.steps[i], s.totals[i] = quantise(s.qkv[first + i, start:end], s.query8[i])
        multiply(
            s.query8, rows, cache.keys[slot, layer, h], count // COLUMNS, steps, s.score_sums, shape.tiles, across
        )
        for i in range(rows):
            scores, excess = s.scores[:count], np.int32(OFFSET * s.totals[i])
            _score(s.score_sums[i], excess, s.steps[i] / root, key_scales, scores)
            _mask(scores, position + i, ring, shape.window)
            _weigh(s, i, scores, value_scales)
        values, groups = cache.values[slot, layer, h], count // GROUP
        back = _way_on(cache.keys.strides, heads, h, following - slot) - across
        multiply(s.weights8, 2 * rows, values, blocks, groups, s.mixed_sums, shape.tiles, back)
        for i in range(rows):
            high, low = np.int32(OFFSET * s.highs[i]), np.int32(OFFSET * s.lows[i])
            combine(s.mixed_sums[2 * i :], high, low, s.steps[i], mixed[first + i, start:end])


@inner(forceinline=True)
def _way_on(strides: tuple[int, ...], heads: Span, h: int, slots: int) -> int:
    """Bytes from a head's keys to those of the next head, or of the first one, so many slots on."""
    return strides[2] if h + 1 < heads[1] else strides[0] * slots - strides[2] * (h - heads[0])


@inner(forceinline=True)
def _score(sums: Ints, excess: np.int32, factor: np.float32, key_scales: Floats, scores: Floats) -> None:
    for i in range(len(scores)):
        scores[i] = np.float32(np.int32(sums[i] - excess)) * (factor * key_scales[i])


@inner(forceinline=True)
def _weigh(s: Scratch, i: int, scores: Floats, value_scales: Floats) -> None:
    """The softmax of scores, times the scales of values, as whole numbers of the row `i` in s.weights8."""
    peak = highest(scores)
    for j in range(len(scores)):
        scores[j] -= peak
    exponentials(scores)
    norm = total(scores, s.lanes)
    for j in range(len(scores)):
        scores[j] *= value_scales[j]
    step, s.highs[i], s.lows[i] = quantise_finely(scores, s.weights8[2 * i], s.weights8[2 * i + 1])
    s.steps[i] = step / norm


@inner(forceinline=True)
def _mask(scores: Floats, position: int, ring: int, window: int) -> None:
    """Put out of reach what is later than `position`, or has left its window."""
    place = np.int32(position % ring)
    reach, length = np.int32(min(position + 1, window)), np.int32(ring)
    for i in range(len(scores)):
        age = np.int32(place - np.int32(i))
        age = np.int32(age + length) if age < 0 else age
        scores[i] = scores[i] if age < reach else _MASKED
