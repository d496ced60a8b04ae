"""Attention in the compiled kernel: keys and values of int8, a row's heads one after another.

Only the rotary angles' sines and cosines are the system's own, in float64 and then rounded to float32.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from model.cpu.dot import COLUMNS, GROUP, OFFSET, multiply
from model.cpu.layout import Bytes, Cache, Floats, Ints, Scratch, Shape, SignedBytes, Span
from model.cpu.rows import combine, exponentials, highest, quantise, quantise_finely, total, total_of_squares

_MASKED = np.float32(-1e30)
_OFFSETS = np.uint32(OFFSET * 0x01010101).astype(np.int32)  # turns over the signs of four bytes: each is 128 more


@numba.njit(nogil=True, error_model="numpy")
def angles(frequencies: NDArray[np.float64], position: int, angles: Floats) -> None:
    """Cosines and sines (2, D/2) of a position's rotary angles."""
    for i in range(len(frequencies)):
        angles[0, i] = np.cos(position * frequencies[i])
        angles[1, i] = np.sin(position * frequencies[i])


@numba.njit(nogil=True, error_model="numpy", forceinline=True)
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


@numba.njit(nogil=True, error_model="numpy")
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


@numba.njit(nogil=True, error_model="numpy", forceinline=True)
def _write_key(key: SignedBytes, block: Bytes, column: int) -> None:
    """A key (D,) as one of the columns in a block (D/4, 64) of keys, four bytes at a time."""
    fours, places = key.view(np.int32), block.view(np.int32)
    for group in range(len(block)):
        places[group, column] = fours[group] ^ _OFFSETS


@numba.njit(nogil=True, error_model="numpy", forceinline=True)
def _write_value(value: SignedBytes, group: Bytes, at: int) -> None:
    """A value (D,) as one of the places in a group (D/16, 64) of values."""
    for block in range(len(group)):
        for i in range(COLUMNS):
            group[block, i * GROUP + at] = np.int32(value[block * COLUMNS + i]) + OFFSET


@numba.njit(nogil=True, error_model="numpy")
def attend(
    shape: Shape,
    cache: Cache,
    s: Scratch,
    r: int,
    heads: Span,
    slot: int,
    layer: int,
    position: int,
    mixed: Floats,
) -> None:
    """Attention of the row to its window, into `mixed` (C,)."""
    size, ring = shape.head_size, cache.scales.shape[4]
    count = min(ring, (position // COLUMNS + 1) * COLUMNS)
    scores, sums = s.scores[:count], s.score_sums[0]
    for h in range(*heads):
        start, end = h * size, (h + 1) * size
        step, excess = quantise(s.qkv[r, start:end], s.query8[0])
        steps = s.query8.shape[1] // GROUP
        multiply(s.query8, 1, cache.keys[slot, layer, h], 0, count // COLUMNS, steps, s.score_sums)
        _score(
            sums,
            np.int32(OFFSET * excess),
            step / np.sqrt(np.float32(size)),
            cache.scales[slot, layer, 0, h],
            scores,
        )
        _mask(scores, position, ring, shape.window)
        peak = highest(scores)
        for i in range(count):
            scores[i] -= peak
        exponentials(scores)
        norm = total(scores, s.lanes)
        value_scales = cache.scales[slot, layer, 1, h]
        for i in range(count):
            scores[i] *= value_scales[i]
        step, high, low = quantise_finely(scores, s.weights8)
        blocks = s.mixed_sums.shape[1] // COLUMNS
        multiply(s.weights8, 2, cache.values[slot, layer, h], 0, blocks, count // GROUP, s.mixed_sums)
        combine(s.mixed_sums, 0, np.int32(OFFSET * high), np.int32(OFFSET * low), step / norm, mixed[start:end])


@numba.njit(nogil=True, error_model="numpy", forceinline=True)
def _score(sums: Ints, excess: np.int32, factor: np.float32, key_scales: Floats, scores: Floats) -> None:
    for i in range(len(scores)):
        scores[i] = np.float32(np.int32(sums[i] - excess)) * (factor * key_scales[i])


@numba.njit(nogil=True, error_model="numpy", forceinline=True)
def _mask(scores: Floats, position: int, ring: int, window: int) -> None:
    """Put out of reach what is later than `position`, or has left its window."""
    place = np.int32(position % ring)
    reach, length = np.int32(min(position + 1, window)), np.int32(ring)
    for i in range(len(scores)):
        age = np.int32(place - np.int32(i))
        age = np.int32(age + length) if age < 0 else age
        scores[i] = scores[i] if age < reach else _MASKED
