"""The network as one compiled call for the CPU: int8 weights, int8 keys and values, rows of any sequences.

A row is one character at one position of one slot's sequence. Whatever rows are computed together, by however
many threads, each comes out the same on any CPU: products are sums of integers (`dot.py`), all else happens within
the row (`rows.py`, `attention.py`). Knows nothing of PyTorch.
"""

import numba
import numpy as np

from model.backends.cpu import amx
from model.backends.cpu.attention import angles, attend, remember
from model.backends.cpu.barrier import Link, meet
from model.backends.cpu.buffers import (
    CHUNK,
    Bytes,
    Cache,
    Floats,
    Indices,
    Results,
    Scratch,
    Shape,
    SignedBytes,
    Span,
    Weights,
)
from model.backends.cpu.gemm import BLOCKS, OFFSET, multiply
from model.backends.cpu.microkernel import COLUMNS
from model.backends.cpu.vector_ops import combine, exponentials, quantise, quantise_finely, total, total_of_squares
from model.jit import inner


@numba.njit(inline="always")
def forward(
    shape: Shape,
    w: Weights,
    cache: Cache,
    scratch: Scratch,
    results: Results,
    slots: Indices,
    positions: Indices,
    tokens: Indices,
    logits: Floats,
    link: Link,
    parts: int,
) -> None:
    """Read one more character in each row; write the logits (rows, V) after it.

    With several `parts`, so many threads call this for the same rows with the same `results`, and each computes
    some of the heads and columns; what takes less time than a meeting, each computes for itself.

    Args:
        slots, positions, tokens: (rows,), `MAX_ROWS` at most. Rows of one slot are at successive positions
            that follow what the slot has read, at most R - `window` + 1 of them.
        link: of this thread; it takes the part of its number.
    """
    rows, part = len(slots), link.me if parts > 1 else 0
    heads = shape.heads * part // parts, shape.heads * (part + 1) // parts
    narrow, inside = _share(w.mix.shape[1], part, parts), _share(w.expand.shape[1], part, parts)
    if shape.tiles:
        amx.begin()
    _embed(shape, w, scratch, positions, tokens)
    for layer in range(len(w.qkv)):
        _add_attention(shape, w, cache, scratch, results, slots, positions, layer, heads, narrow, link, parts)
        _add_mlp(shape, w, scratch, results, rows, layer, inside, narrow, link, parts)
    _normalise(shape, w.norms[-1], scratch, rows)
    for r in range(rows):
        _predict(shape, w, scratch, r, _share(len(w.head), part, parts), logits[r])
    if shape.tiles:
        amx.end()


@inner(forceinline=True)
def _embed(shape: Shape, w: Weights, s: Scratch, positions: Indices, tokens: Indices) -> None:
    """What each row begins with, and the angles of its position."""
    for r in range(len(tokens)):
        for i in range(s.stream.shape[1]):
            s.stream[r, i] = w.tokens[tokens[r], i]
        if not shape.rotary:
            _add(s.stream[r : r + 1], w.positions[positions[r] : positions[r] + 1], 1)
        angles(w.frequencies, positions[r], s.angles[r])


@inner(forceinline=True)
def _add_attention(
    shape: Shape,
    w: Weights,
    cache: Cache,
    s: Scratch,
    results: Results,
    slots: Indices,
    positions: Indices,
    layer: int,
    heads: Span,
    narrow: Span,
    link: Link,
    parts: int,
) -> None:
    """A layer's attention: these heads, then these blocks of columns of what is added to the stream."""
    rows = len(slots)
    _normalise(shape, w.norms[2 * layer], s, rows)
    _ask(shape, s, w.qkv[layer], w.qkv_scales[layer], rows, heads)
    for r in range(rows):
        remember(shape, cache, s, r, heads, slots[r], layer, positions[r])
    _attend(shape, cache, s, heads, slots, layer, positions, results.mixed)
    meet(link, parts)
    _quantise(results.mixed, s.narrow8, s, rows)
    _multiply(shape, s.narrow8, w.mix[layer], w.mix_scales[layer], s, rows, narrow, results.added)
    meet(link, parts)
    _add(s.stream, results.added, rows)


@inner(forceinline=True)
def _add_mlp(
    shape: Shape,
    w: Weights,
    s: Scratch,
    results: Results,
    rows: int,
    layer: int,
    inside: Span,
    narrow: Span,
    link: Link,
    parts: int,
) -> None:
    """A layer's MLP: these blocks of its inner columns, then these of what is added to the stream."""
    _normalise(shape, w.norms[2 * layer + 1], s, rows)
    _quantise(s.normed, s.narrow8, s, rows)
    _multiply(shape, s.narrow8, w.expand[layer], w.expand_scales[layer], s, rows, inside, results.wide)
    _activate(shape.relu2, s, rows, inside, results.wide)
    meet(link, parts)
    _quantise(results.wide, s.wide8, s, rows)
    _multiply(shape, s.wide8, w.reduce[layer], w.reduce_scales[layer], s, rows, narrow, results.added)
    meet(link, parts)
    _add(s.stream, results.added, rows)


@inner(forceinline=True)
def _share(blocks: int, part: int, parts: int) -> Span:
    """A part's blocks of columns, in whole tiles."""
    tiles = -(-blocks // BLOCKS)
    return tiles * part // parts * BLOCKS, min(tiles * (part + 1) // parts * BLOCKS, blocks)


@inner(forceinline=True)
def _add(x: Floats, y: Floats, rows: int) -> None:
    """x (…, C) += y, in the first rows."""
    for r in range(rows):
        for i in range(x.shape[1]):
            x[r, i] += y[r, i]


@inner()
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


@inner()
def _quantise(values: Floats, bytes8: SignedBytes, s: Scratch, rows: int) -> None:
    """Rows of `values`, as wide as `bytes8`, for a product."""
    width = bytes8.shape[1]
    for r in range(rows):
        s.steps[r], s.totals[r] = quantise(values[r, :width], bytes8[r])


@inner()
def _multiply(
    shape: Shape,
    bytes8: SignedBytes,
    columns: Bytes,
    scales: Floats,
    s: Scratch,
    rows: int,
    blocks: Span,
    out: Floats,
) -> None:
    """Rows that were quantised last, times these blocks of columns, into the same columns of `out`."""
    for block in range(blocks[0], blocks[1], BLOCKS):
        end = min(block + BLOCKS, blocks[1])
        multiply(bytes8, rows, columns[block:end], end - block, columns.shape[1], s.sums, shape.tiles)
        first, last = block * COLUMNS, end * COLUMNS
        scale, bias = scales[0, first:last], scales[1, first:last]
        for r in range(rows):
            step, excess = s.steps[r], np.int32(OFFSET * s.totals[r])
            sums, row = s.sums[r], out[r, first:last]
            for i in range(len(row)):
                row[i] = np.float32(np.int32(sums[i] - excess)) * (step * scale[i]) + bias[i]


@inner()
def _ask(shape: Shape, s: Scratch, columns: Bytes, scales: Floats, rows: int, heads: Span) -> None:
    """Queries, keys and values of these heads, in whole blocks, into s.qkv."""
    _quantise(s.normed, s.narrow8, s, rows)
    first, end = heads[0] * shape.head_size // COLUMNS, -(-heads[1] * shape.head_size // COLUMNS)
    width = s.stream.shape[1] // COLUMNS
    for i in range(3):
        _multiply(shape, s.narrow8, columns, scales, s, rows, (i * width + first, i * width + end), s.qkv)


@inner()
def _attend(
    shape: Shape,
    cache: Cache,
    s: Scratch,
    heads: Span,
    slots: Indices,
    layer: int,
    positions: Indices,
    mixed: Floats,
) -> None:
    """Attention of all rows, those of one slot together."""
    first = 0
    while first < len(slots):
        end = first + 1
        while end < min(len(slots), first + CHUNK) and slots[end] == slots[first]:
            end += 1
        following = slots[end] if end < len(slots) else slots[first]
        attend(shape, cache, s, first, end - first, heads, slots[first], layer, positions[first], following, mixed)
        first = end


@inner()
def _activate(relu2: bool, s: Scratch, rows: int, blocks: Span, wide: Floats) -> None:
    """Squared ReLU or GELU of what the last product wrote."""
    for r in range(rows):
        x = wide[r, blocks[0] * COLUMNS : blocks[1] * COLUMNS]
        if relu2:
            for i in range(len(x)):
                positive = x[i] if x[i] > np.float32(0) else np.float32(0)
                x[i] = positive * positive
        else:
            _gelu(x, s.scores[: len(x)])


@inner()
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


@inner()
def _predict(shape: Shape, w: Weights, s: Scratch, r: int, blocks: Span, logits: Floats) -> None:
    """The logits of the blocks from the first to the end, from the row's normalised stream."""
    step, high, low = quantise_finely(s.normed[r], s.final8[0], s.final8[1])
    multiply(
        s.final8, 2, w.head[blocks[0] : blocks[1]], blocks[1] - blocks[0], w.head.shape[1], s.logit_sums, False
    )
    first = blocks[0] * COLUMNS
    out, scales = logits[first : blocks[1] * COLUMNS], w.head_scales[first:]
    combine(s.logit_sums, np.int32(OFFSET * high), np.int32(OFFSET * low), step * shape.logit_scale, out)
    for i in range(len(out)):
        out[i] *= scales[i]
