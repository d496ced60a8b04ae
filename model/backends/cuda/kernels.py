"""The network on a GPU, in Triton. A row's operations and their order do not depend on the rows beside it.

Shapes: R rows, each an id of a slot's sequence; C = n_embd, H heads of size D, V = vocab_size, a ring of so many
places per slot. The residual stream is in float32; weights, keys and values are in the backend's number format.
"""

import triton
import triton.language as tl
from triton.language.extra import cuda

# What `rows` (3, STRIDE), int64, has of each row:
SLOT = tl.constexpr(0)  # -1: nothing to compute
POSITION = tl.constexpr(1)  # in its sequence
TOKEN = tl.constexpr(2)
ROW_FIELDS = 3

RMS = tl.constexpr(1)  # of `NORM`; 0 is none
LAYER = tl.constexpr(2)
RELU2 = tl.constexpr(1)  # of `ACTIVATION`; 0 is none
GELU = tl.constexpr(2)
LEAST = tl.constexpr(-1e30)  # below every score, and finite
RMS_EPSILON = tl.constexpr(2.0**-23)  # network.RMS_EPSILON
LAYER_EPSILON = tl.constexpr(1e-5)


@triton.jit
def begin(EARLY: tl.constexpr):
    """Where kernels are launched `EARLY`, wait for the one before, and let the next one come and wait likewise."""
    if EARLY:
        cuda.gdc_wait()
        cuda.gdc_launch_dependents()


@triton.jit
def embed(
    rows,
    tokens,
    positions,
    frequencies,
    x,
    cosines,
    sines,
    STRIDE: tl.constexpr,
    WIDTH: tl.constexpr,
    HALF: tl.constexpr,
    LEARNED: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    EARLY: tl.constexpr,
):
    """Write the ids' embeddings to `x` (R, C), and the cosines and sines (R, D/2) of their positions' angles."""
    begin(EARLY)
    row = tl.program_id(0)
    if tl.load(rows + SLOT * STRIDE + row) >= 0:
        position = tl.load(rows + POSITION * STRIDE + row)
        token = tl.load(rows + TOKEN * STRIDE + row)
        column = tl.arange(0, BLOCK)
        inside = column < WIDTH
        value = tl.load(tokens + token * WIDTH + column, mask=inside).to(tl.float32)
        if LEARNED:
            value += tl.load(positions + position * WIDTH + column, mask=inside).to(tl.float32)
        else:
            i = tl.arange(0, BLOCK_HALF)
            angle = position.to(tl.float64) * tl.load(frequencies + i, mask=i < HALF, other=0.0)
            tl.store(cosines + row * HALF + i, tl.cos(angle).to(tl.float32), mask=i < HALF)
            tl.store(sines + row * HALF + i, tl.sin(angle).to(tl.float32), mask=i < HALF)
        tl.store(x + row * WIDTH + column, value, mask=inside)


@triton.jit
def _layer_statistics(x, m, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """The mean of each row of `x` (R, WIDTH), and one over its standard deviation."""
    inside = tl.arange(0, BLOCK) < WIDTH
    values = tl.load(x + m[:, None] * WIDTH + tl.arange(0, BLOCK)[None, :], mask=inside[None, :], other=0.0)
    mean = tl.sum(values, 1) / WIDTH
    distance = tl.where(inside[None, :], values - mean[:, None], 0.0)
    return mean, tl.rsqrt(tl.sum(distance * distance, 1) / WIDTH + LAYER_EPSILON)


@triton.jit
def _product(
    x,
    weight,
    norm_weight,
    norm_bias,
    m,
    columns,
    wanted,
    K: tl.constexpr,
    NORM: tl.constexpr,
    NORM_BIAS: tl.constexpr,
    sizes: tl.constexpr,
):
    """Rows of `x` (R, K), normalised, times rows `columns` of `weight` (N, K), where `wanted`: float32."""
    BLOCK_M: tl.constexpr = sizes[0]
    BLOCK_K: tl.constexpr = sizes[2]
    total = tl.zeros((BLOCK_M, sizes[1]), tl.float32)
    squares = tl.zeros((BLOCK_M,), tl.float32)
    if NORM == LAYER:
        mean, scale = _layer_statistics(x, m, K, sizes[3])
    for first in tl.range(0, K, BLOCK_K, num_stages=sizes[4]):
        k = first + tl.arange(0, BLOCK_K)
        a = tl.load(x + m[:, None] * K + k[None, :], mask=k[None, :] < K, other=0.0)
        if NORM == RMS:  # the scale is applied to the sums
            squares += tl.sum(a * a, 1)
        if NORM == LAYER:
            a = (a - mean[:, None]) * scale[:, None] * tl.load(norm_weight + k, mask=k < K, other=0.0)[None, :]
            if NORM_BIAS:
                a += tl.load(norm_bias + k, mask=k < K, other=0.0)[None, :]
        b = tl.load(weight + columns[None, :] * K + k[:, None], mask=wanted[None, :] & (k[:, None] < K), other=0.0)
        total = tl.dot(a.to(b.dtype), b, total, input_precision="ieee")
    if NORM == RMS:
        total *= tl.rsqrt(squares / K + RMS_EPSILON)[:, None]
    return total


@triton.jit
def linear(
    x,
    weight,
    bias,
    norm_weight,
    norm_bias,
    out,
    N: tl.constexpr,
    K: tl.constexpr,
    NORM: tl.constexpr,
    NORM_BIAS: tl.constexpr,
    BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    ADD: tl.constexpr,
    SCALE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_NORM: tl.constexpr,
    STAGES: tl.constexpr,
    EARLY: tl.constexpr,
):
    """Write to `out` (R, N), or add to it, the activation of a product and its bias, times `SCALE`."""
    begin(EARLY)
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    wanted = columns < N
    sizes: tl.constexpr = (BLOCK_M, BLOCK_N, BLOCK_K, BLOCK_NORM, STAGES)
    total = _product(x, weight, norm_weight, norm_bias, m, columns, wanted, K, NORM, NORM_BIAS, sizes)
    if BIAS:
        total += tl.load(bias + columns, mask=wanted, other=0.0)[None, :]
    if ACTIVATION == RELU2:
        total = tl.where(total < 0.0, 0.0, total)  # maximum() would take NaN for 0
        total *= total
    if ACTIVATION == GELU:
        total = 0.5 * total * (1.0 + tl.erf(total * 0.7071067811865476))
    place = out + m[:, None] * N + columns[None, :]
    if ADD:
        total += tl.load(place, mask=wanted[None, :], other=0.0)
    tl.store(place, total * SCALE, mask=wanted[None, :])


@triton.jit
def attention_inputs(
    rows,
    x,
    weight,
    bias,
    norm_weight,
    norm_bias,
    cosines,
    sines,
    queries,
    cache,
    STRIDE: tl.constexpr,
    SLOTS: tl.constexpr,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    RING: tl.constexpr,
    NORM: tl.constexpr,
    NORM_BIAS: tl.constexpr,
    BIAS: tl.constexpr,
    ROTARY: tl.constexpr,
    QK_NORM: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_NORM: tl.constexpr,
    STAGES: tl.constexpr,
    EARLY: tl.constexpr,
):
    """Write one head's queries, scaled, to `queries` (R, H, D), or its keys or values to the layer's `cache`
    (2, slots, H, ring, D). `weight` is (3·C, C): for queries, keys, values.

    A head's halves, which rotary positions turn together, are each padded to `BLOCK_HALF` columns.
    """
    begin(EARLY)
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    kind, head = tl.program_id(1) // HEADS, tl.program_id(1) % HEADS
    half: tl.constexpr = (SIZE + 1) // 2
    i = tl.arange(0, 2 * BLOCK_HALF) % BLOCK_HALF
    d = tl.arange(0, 2 * BLOCK_HALF) // BLOCK_HALF * half + i
    wanted = (i < half) & (d < SIZE)
    columns = tl.program_id(1) * SIZE + d
    sizes: tl.constexpr = (BLOCK_M, 2 * BLOCK_HALF, BLOCK_K, BLOCK_NORM, STAGES)
    total = _product(x, weight, norm_weight, norm_bias, m, columns, wanted, HEADS * SIZE, NORM, NORM_BIAS, sizes)
    if BIAS:
        total += tl.load(bias + columns, mask=wanted, other=0.0)[None, :]
    if kind < 2:
        if ROTARY:
            j = tl.arange(0, BLOCK_HALF)
            cosine = tl.load(cosines + m[:, None] * half + j[None, :], mask=j[None, :] < half, other=0.0)
            sine = tl.load(sines + m[:, None] * half + j[None, :], mask=j[None, :] < half, other=0.0)
            pair = tl.permute(tl.reshape(total, (BLOCK_M, 2, BLOCK_HALF)), (0, 2, 1))
            a, b = tl.split(pair)
            turned = tl.join(a * cosine - b * sine, b * cosine + a * sine)
            total = tl.reshape(tl.permute(turned, (0, 2, 1)), (BLOCK_M, 2 * BLOCK_HALF))
        if QK_NORM:
            total *= tl.rsqrt(tl.sum(total * total, 1) / SIZE + RMS_EPSILON)[:, None]
    if kind == 0:
        place = queries + (m[:, None] * HEADS + head) * SIZE + d[None, :]
        tl.store(place, total * (1.0 / SIZE**0.5), mask=wanted[None, :])
    else:
        slots = tl.load(rows + SLOT * STRIDE + m)
        ring = tl.load(rows + POSITION * STRIDE + m) % RING
        start = (((kind - 1) * SLOTS + slots) * HEADS + head) * RING + ring
        tl.store(cache + start[:, None] * SIZE + d[None, :], total, mask=wanted[None, :] & (slots[:, None] >= 0))


@triton.jit
def attend(
    rows,
    queries,
    cache,
    out,
    STRIDE: tl.constexpr,
    SLOTS: tl.constexpr,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    RING: tl.constexpr,
    WINDOW: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    EARLY: tl.constexpr,
):
    """Write one row's head of `out` (R, C): values by the softmax of the scores of the last `WINDOW` positions."""
    begin(EARLY)
    row, head = tl.program_id(0), tl.program_id(1)
    slot = tl.load(rows + SLOT * STRIDE + row)
    if slot >= 0:
        position = tl.load(rows + POSITION * STRIDE + row)
        d = tl.arange(0, BLOCK_SIZE)
        query = tl.load(queries + (row * HEADS + head) * SIZE + d, mask=d < SIZE, other=0.0)
        keys = cache + (slot * HEADS + head) * RING * SIZE
        values = keys + SLOTS * HEADS * RING * SIZE
        highest, weights = tl.full((), LEAST, tl.float32), tl.full((), 0.0, tl.float32)
        mixed = tl.zeros((BLOCK_SIZE,), tl.float32)
        for first in range(0, tl.minimum(position + 1, RING), BLOCK):
            ring = first + tl.arange(0, BLOCK)
            age = (position + RING - ring) % RING
            seen = (age < WINDOW) & (age <= position) & (ring < RING)
            place = ring[:, None] * SIZE + d[None, :]
            inside = seen[:, None] & (d[None, :] < SIZE)
            key = tl.load(keys + place, mask=inside, other=0.0).to(tl.float32)
            value = tl.load(values + place, mask=inside, other=0.0).to(tl.float32)
            score = tl.where(seen, tl.sum(key * query[None, :], 1), LEAST)
            higher = tl.maximum(highest, tl.max(score, 0))
            part = tl.where(seen, tl.exp(score - higher), 0.0)
            kept = tl.exp(highest - higher)
            weights = weights * kept + tl.sum(part, 0)
            mixed = mixed * kept + tl.sum(value * part[:, None], 0)
            highest = higher
        tl.store(out + (row * HEADS + head) * SIZE + d, mixed / weights, mask=d < SIZE)
