"""The network as one compiled call for the CPU: int8 weights, int8 keys and values, rows of any sequences.

A row is one character at one position of one slot's sequence. Whatever rows are computed together, each comes out
the same on any CPU: products are sums of integers (`dot.py`), all else happens within the row (`rows.py`). Only the
rotary angles' sines and cosines are the system's own, in float64 and then rounded to float32.
Knows nothing of PyTorch.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from model.cpu.dot import COLUMNS, GROUP, OFFSET, multiply
from model.cpu.layout import Bytes, Cache, Floats, Ints, Scratch, Shape, SignedBytes, Weights
from model.cpu.rows import exponentials, highest, quantise, quantise_finely, total, total_of_squares

Indices = NDArray[np.int64]

_MASKED = np.float32(-1e30)
_OFFSETS = np.uint32(OFFSET * 0x01010101).astype(np.int32)  # turns over the signs of four bytes: each is 128 more


def forward(
    shape: Shape,
    w: Weights,
    cache: Cache,
    scratch: Scratch,
    slots: Indices,
    positions: Indices,
    tokens: Indices,
    logits: Floats,
) -> None:
    """Read one more character in each row; write the logits (rows, V) after it.

    Args:
        slots, positions, tokens: (rows,), no more than `scratch` has. Rows of one slot are at successive positions
            that follow what the slot has read, at most R - `window` + 1 of them.
    """
    rows = len(slots)
    for r in range(rows):
        scratch.stream[r] = w.tokens[tokens[r]]
        if not shape.rotary:
            _add(scratch.stream[r], w.positions[positions[r]])
        _angles(w.frequencies, positions[r], scratch.angles[r])
    for layer in range(len(w.qkv)):
        _normalise(shape, w.norms[2 * layer], scratch, rows)
        _product(scratch.normed, scratch.narrow8, w.qkv[layer], w.qkv_scales[layer], scratch, rows)
        for r in range(rows):
            _remember(shape, cache, scratch, r, slots[r], layer, positions[r])
        for r in range(rows):
            _attend(shape, cache, scratch, r, slots[r], layer, positions[r])
        _product(scratch.normed, scratch.narrow8, w.mix[layer], w.mix_scales[layer], scratch, rows)
        for r in range(rows):
            _add(scratch.stream[r], scratch.wide[r])
        _normalise(shape, w.norms[2 * layer + 1], scratch, rows)
        _product(scratch.normed, scratch.narrow8, w.expand[layer], w.expand_scales[layer], scratch, rows)
        _activate(shape.relu2, scratch, rows)
        _product(scratch.wide, scratch.wide8, w.reduce[layer], w.reduce_scales[layer], scratch, rows)
        for r in range(rows):
            _add(scratch.stream[r], scratch.wide[r])
    _normalise(shape, w.norms[-1], scratch, rows)
    for r in range(rows):
        _predict(shape, w, scratch, r, logits[r])


@numba.njit(nogil=True, error_model="numpy", forceinline=True)
def _add(x: Floats, y: Floats) -> None:
    """x (C,) += the beginning of y."""
    for i in range(len(x)):
        x[i] += y[i]


@numba.njit(nogil=True, error_model="numpy")
def _normalise(shape: Shape, norm: Floats, scratch: Scratch, rows: int) -> None:
    """RMSNorm or LayerNorm of the residual stream; what widths were rounded up by stays 0."""
    channels = shape.heads * shape.head_size
    for r in range(rows):
        x, y = scratch.stream[r, :channels], scratch.normed[r, :channels]
        mean = np.float32(0) if shape.rmsnorm else total(x, scratch.lanes) / np.float32(channels)
        for i in range(channels):
            y[i] = x[i] - mean
        variance = total_of_squares(y, scratch.lanes) / np.float32(channels)
        factor = np.float32(1) / np.sqrt(variance + shape.epsilon)
        weight, bias = norm[0], norm[1]
        for i in range(channels):
            y[i] = y[i] * factor * weight[i] + bias[i]


@numba.njit(nogil=True, error_model="numpy")
def _product(values: Floats, bytes8: SignedBytes, columns: Bytes, scales: Floats, s: Scratch, rows: int) -> None:
    """Rows of `values` times `columns`, into s.wide."""
    blocks, steps = columns.shape[0], columns.shape[1]
    for r in range(rows):
        s.steps[r], s.totals[r] = quantise(values[r, : steps * GROUP], bytes8[r])
    multiply(bytes8, rows, columns, blocks, steps, s.sums)
    scale, bias = scales[0], scales[1]
    for r in range(rows):
        step, excess, sums, out = s.steps[r], np.int32(OFFSET * s.totals[r]), s.sums[r], s.wide[r]
        for i in range(blocks * COLUMNS):
            out[i] = np.float32(np.int32(sums[i] - excess)) * (step * scale[i]) + bias[i]


@numba.njit(nogil=True, error_model="numpy")
def _activate(relu2: bool, s: Scratch, rows: int) -> None:
    """Squared ReLU or GELU of what the last product wrote."""
    width = s.wide8.shape[1]
    for r in range(rows):
        x = s.wide[r, :width]
        if relu2:
            for i in range(width):
                positive = x[i] if x[i] > np.float32(0) else np.float32(0)
                x[i] = positive * positive
        else:
            _gelu(x, s.scores[:width])


@numba.njit(nogil=True, error_model="numpy")
def _gelu(x: Floats, tail: Floats) -> None:
    """x times the normal distribution function of x, to 1e-7 (Abramowitz and Stegun 1964, 7.1.26)."""
    for i in range(len(x)):
        tail[i] = np.float32(-0.5) * x[i] * x[i]
    exponentials(tail)
    for i in range(len(x)):
        t = np.float32(1) / (np.float32(1) + np.float32(0.3275911 / 2**0.5) * abs(x[i]))
        p = np.float32(1.061405429) * t - np.float32(1.453152027)
        p = p * t + np.float32(1.421413741)
        p = p * t - np.float32(0.284496736)
        p = p * t + np.float32(0.254829592)
        beyond = np.float32(0.5) * p * t * tail[i]
        x[i] *= np.float32(1) - beyond if x[i] > np.float32(0) else beyond


@numba.njit(nogil=True, error_model="numpy")
def _angles(frequencies: NDArray[np.float64], position: int, angles: Floats) -> None:
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
def _remember(shape: Shape, cache: Cache, s: Scratch, r: int, slot: int, layer: int, position: int) -> None:
    """Turn the row's queries and keys; write keys and values into the cache."""
    size, width = shape.head_size, s.stream.shape[1]
    scales = cache.scales[slot, layer]  # (2, H, R)
    place = position % scales.shape[2]
    bytes8 = s.bytes8
    for h in range(shape.heads):
        start, end = h * size, (h + 1) * size
        key, value = s.wide[r, width + start : width + end], s.wide[r, 2 * width + start : 2 * width + end]
        _turn(shape, s.wide[r, start:end], s.angles[r], s.scores, s.lanes)
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
def _attend(shape: Shape, cache: Cache, s: Scratch, r: int, slot: int, layer: int, position: int) -> None:
    """Attention of the row to its window, into s.normed."""
    size, ring = shape.head_size, cache.scales.shape[4]
    count = min(ring, (position // COLUMNS + 1) * COLUMNS)
    scores, sums, mixed = s.scores[:count], s.score_sums[0], s.mixed_sums
    for h in range(shape.heads):
        start, end = h * size, (h + 1) * size
        step, excess = quantise(s.wide[r, start:end], s.query8[0])
        multiply(
            s.query8, 1, cache.keys[slot, layer, h], count // COLUMNS, s.query8.shape[1] // GROUP, s.score_sums
        )
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
        multiply(s.weights8, 2, cache.values[slot, layer, h], mixed.shape[1] // COLUMNS, count // GROUP, mixed)
        out = s.normed[r, start:end]
        _combine(mixed, np.int32(OFFSET * high), np.int32(OFFSET * low), step / norm, out)


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


@numba.njit(nogil=True, error_model="numpy", forceinline=True)
def _combine(sums: Ints, high: np.int32, low: np.int32, step: np.float32, out: Floats) -> None:
    """Sums (2, N) of finely quantised rows, less what is too much in each, as numbers."""
    high_sums, low_sums = sums[0], sums[1]
    for i in range(len(out)):
        coarse = np.float32(np.int32(high_sums[i] - high)) * np.float32(256)
        out[i] = (coarse + np.float32(np.int32(low_sums[i] - low))) * step


@numba.njit(nogil=True, error_model="numpy")
def _predict(shape: Shape, w: Weights, s: Scratch, r: int, logits: Floats) -> None:
    """Logits (V,) from the row's normalised stream."""
    step, high, low = quantise_finely(s.normed[r], s.final8)
    multiply(s.final8, 2, w.head, w.head.shape[0], w.head.shape[1], s.logit_sums)
    _combine(s.logit_sums, np.int32(OFFSET * high), np.int32(OFFSET * low), step * shape.logit_scale, logits)
    for i in range(len(logits)):
        logits[i] *= w.head_scales[i]
