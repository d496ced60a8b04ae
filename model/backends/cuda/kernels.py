"""The network's forward pass on a GPU, in Triton.

A row is one id at one position of one slot's sequence. A row's operations and their order do not depend on the rows
beside it: each sum runs within a program, over blocks of constant sizes. Knows nothing of drawing characters.

Shapes: R rows, C = n_embd, H heads of D = head_size, V = vocab_size, W = block_size. A slot's keys and values are a
ring of RING places: position p is at p mod RING. The residual stream is in float32; weights, keys and values are in
the backend's number format.

Arguments in capitals are constants of compilation. Triton's blocks have powers of two as sizes: those that hold a
whole axis (BLOCK_WIDTH, BLOCK_HALF, BLOCK_HEAD, BLOCK_NORM) are rounded up, and what is beyond the axis is masked.
"""

import triton
import triton.language as tl
from triton.language.extra import cuda

# Fields of a row, in `rows` (ROW_FIELDS, FIELD_STRIDE) int64: field f of row r is at f · FIELD_STRIDE + r.
SLOT = tl.constexpr(0)  # -1: the row is padding, and nothing is computed for it
POSITION = tl.constexpr(1)  # in the slot's sequence
TOKEN = tl.constexpr(2)  # the id to append
ROW_FIELDS = 3

# Values of `NORM`.
NO_NORM = 0
RMS_NORM = tl.constexpr(1)
LAYER_NORM = tl.constexpr(2)

# Values of `ACTIVATION`.
NO_ACTIVATION = 0
RELU2 = tl.constexpr(1)
GELU = tl.constexpr(2)

MASKED_SCORE = tl.constexpr(-1e30)  # below every score, and finite: the difference of two is not NaN
RMS_EPSILON = tl.constexpr(2.0**-23)  # config.RMS_EPSILON
LAYER_EPSILON = tl.constexpr(1e-5)


@triton.jit
def wait_for_previous_kernel(EARLY_LAUNCH: tl.constexpr):
    """Wait for the kernel before, where kernels are launched early (CUDA's programmatic dependent launch).

    Then let the next kernel be launched, which waits here in turn. To be called before memory is read.
    """
    if EARLY_LAUNCH:
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
    FIELD_STRIDE: tl.constexpr,
    WIDTH: tl.constexpr,
    HALF: tl.constexpr,
    LEARNED: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    EARLY_LAUNCH: tl.constexpr,
):
    """Write the ids' embeddings to `x` (R, C), and cosines and sines (R, D/2) of their rotary angles.

    One program for each row. `tokens` is (V, C); `positions` (W, C) is read where positions are `LEARNED`, and
    `frequencies` (D/2,) float64 otherwise. `WIDTH` is C and `HALF` D/2.
    """
    wait_for_previous_kernel(EARLY_LAUNCH)
    row = tl.program_id(0)
    if tl.load(rows + SLOT * FIELD_STRIDE + row) >= 0:
        position = tl.load(rows + POSITION * FIELD_STRIDE + row)
        token = tl.load(rows + TOKEN * FIELD_STRIDE + row)
        column = tl.arange(0, BLOCK_WIDTH)
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
def _layer_statistics(x, m, WIDTH: tl.constexpr, BLOCK_WIDTH: tl.constexpr):
    """Return the mean (BLOCK_M,) of rows `m` of `x` (R, WIDTH), and one over their standard deviation."""
    inside = tl.arange(0, BLOCK_WIDTH) < WIDTH
    values = tl.load(x + m[:, None] * WIDTH + tl.arange(0, BLOCK_WIDTH)[None, :], mask=inside[None, :], other=0.0)
    mean = tl.sum(values, 1) / WIDTH
    distance = tl.where(inside[None, :], values - mean[:, None], 0.0)
    return mean, tl.rsqrt(tl.sum(distance * distance, 1) / WIDTH + LAYER_EPSILON)


@triton.jit
def _norm_matmul(
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
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_NORM: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Return rows `m` of `x` (R, K), normalised, times rows `columns` of `weight` (N, K) where `wanted`.

    The result is (BLOCK_M, BLOCK_N) float32. The norm is computed here, by every program for its rows, and not by a
    kernel of its own that writes normalised rows to memory. RMSNorm has no weight, so its scale is applied to the
    sums, and no second pass over x is needed.
    """
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    squares = tl.zeros((BLOCK_M,), tl.float32)
    if NORM == LAYER_NORM:
        mean, scale = _layer_statistics(x, m, K, BLOCK_NORM)
    for first in tl.range(0, K, BLOCK_K, num_stages=STAGES):
        k = first + tl.arange(0, BLOCK_K)
        a = tl.load(x + m[:, None] * K + k[None, :], mask=k[None, :] < K, other=0.0)
        if NORM == RMS_NORM:
            squares += tl.sum(a * a, 1)
        if NORM == LAYER_NORM:
            a = (a - mean[:, None]) * scale[:, None] * tl.load(norm_weight + k, mask=k < K, other=0.0)[None, :]
            if NORM_BIAS:
                a += tl.load(norm_bias + k, mask=k < K, other=0.0)[None, :]
        b = tl.load(weight + columns[None, :] * K + k[:, None], mask=wanted[None, :] & (k[:, None] < K), other=0.0)
        total = tl.dot(a.to(b.dtype), b, total, input_precision="ieee")  # not TF32
    if NORM == RMS_NORM:
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
    EARLY_LAUNCH: tl.constexpr,
):
    """Write to `out` (R, N) the activation of x · weightᵀ + bias, times `SCALE`; or `ADD` it there.

    `x` (R, K) is normalised first, `weight` is (N, K). One program for each `BLOCK_M` rows and `BLOCK_N` columns.
    """
    wait_for_previous_kernel(EARLY_LAUNCH)
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    wanted = columns < N
    total = _norm_matmul(
        x,
        weight,
        norm_weight,
        norm_bias,
        m,
        columns,
        wanted,
        K,
        NORM,
        NORM_BIAS,
        BLOCK_M,
        BLOCK_N,
        BLOCK_K,
        BLOCK_NORM,
        STAGES,
    )
    if BIAS:
        total += tl.load(bias + columns, mask=wanted, other=0.0)[None, :]
    if ACTIVATION == RELU2:
        total = tl.where(total < 0.0, 0.0, total)  # maximum() would return 0 for NaN, and hide it
        total *= total
    if ACTIVATION == GELU:
        total = 0.5 * total * (1.0 + tl.erf(total * 0.7071067811865476))
    pointers = out + m[:, None] * N + columns[None, :]
    if ADD:
        total += tl.load(pointers, mask=wanted[None, :], other=0.0)
    tl.store(pointers, total * SCALE, mask=wanted[None, :])


@triton.jit
def qkv_projection(
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
    FIELD_STRIDE: tl.constexpr,
    SLOTS: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
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
    EARLY_LAUNCH: tl.constexpr,
):
    """Write one head's scaled queries to `queries` (R, H, D), or its keys or values to the layer's `cache`.

    `cache` is (2, slots, H, ring, D); `weight` is (3·C, C), of queries, keys and values. One program for each
    `BLOCK_M` rows and each head of the three. A head's halves, which rotary positions rotate together, are each
    padded to `BLOCK_HALF` columns.
    """
    wait_for_previous_kernel(EARLY_LAUNCH)
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    kind = tl.program_id(1) // HEADS  # 0 for queries, 1 for keys, 2 for values
    head = tl.program_id(1) % HEADS
    half: tl.constexpr = (HEAD_SIZE + 1) // 2
    i = tl.arange(0, 2 * BLOCK_HALF) % BLOCK_HALF
    d = tl.arange(0, 2 * BLOCK_HALF) // BLOCK_HALF * half + i
    wanted = (i < half) & (d < HEAD_SIZE)
    columns = tl.program_id(1) * HEAD_SIZE + d
    total = _norm_matmul(
        x,
        weight,
        norm_weight,
        norm_bias,
        m,
        columns,
        wanted,
        HEADS * HEAD_SIZE,
        NORM,
        NORM_BIAS,
        BLOCK_M,
        2 * BLOCK_HALF,
        BLOCK_K,
        BLOCK_NORM,
        STAGES,
    )
    if BIAS:
        total += tl.load(bias + columns, mask=wanted, other=0.0)[None, :]
    if kind < 2:
        if ROTARY:
            j = tl.arange(0, BLOCK_HALF)
            cosine = tl.load(cosines + m[:, None] * half + j[None, :], mask=j[None, :] < half, other=0.0)
            sine = tl.load(sines + m[:, None] * half + j[None, :], mask=j[None, :] < half, other=0.0)
            pairs = tl.permute(tl.reshape(total, (BLOCK_M, 2, BLOCK_HALF)), (0, 2, 1))
            a, b = tl.split(pairs)
            rotated = tl.join(a * cosine - b * sine, b * cosine + a * sine)
            total = tl.reshape(tl.permute(rotated, (0, 2, 1)), (BLOCK_M, 2 * BLOCK_HALF))
        if QK_NORM:
            total *= tl.rsqrt(tl.sum(total * total, 1) / HEAD_SIZE + RMS_EPSILON)[:, None]
    if kind == 0:
        pointers = queries + (m[:, None] * HEADS + head) * HEAD_SIZE + d[None, :]
        tl.store(pointers, total * (1.0 / HEAD_SIZE**0.5), mask=wanted[None, :])
    else:
        slots = tl.load(rows + SLOT * FIELD_STRIDE + m)
        ring_index = tl.load(rows + POSITION * FIELD_STRIDE + m) % RING
        start = (((kind - 1) * SLOTS + slots) * HEADS + head) * RING + ring_index
        mask = wanted[None, :] & (slots[:, None] >= 0)
        tl.store(cache + start[:, None] * HEAD_SIZE + d[None, :], total, mask=mask)


@triton.jit
def attend(
    rows,
    queries,
    cache,
    out,
    FIELD_STRIDE: tl.constexpr,
    SLOTS: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    RING: tl.constexpr,
    WINDOW: tl.constexpr,
    BLOCK_RING: tl.constexpr,
    BLOCK_HEAD: tl.constexpr,
    EARLY_LAUNCH: tl.constexpr,
):
    """Write attention over the last `WINDOW` positions, before its output projection, to `out` (R, C).

    One program for each row and head. It goes through the ring once, `BLOCK_RING` places at a time, with the
    softmax rescaled whenever a higher score turns up (online softmax, Milakov and Gimelshein 2018,
    arXiv:1805.02867).
    """
    wait_for_previous_kernel(EARLY_LAUNCH)
    row = tl.program_id(0)
    head = tl.program_id(1)
    slot = tl.load(rows + SLOT * FIELD_STRIDE + row)
    if slot >= 0:
        position = tl.load(rows + POSITION * FIELD_STRIDE + row)
        d = tl.arange(0, BLOCK_HEAD)
        query = tl.load(queries + (row * HEADS + head) * HEAD_SIZE + d, mask=d < HEAD_SIZE, other=0.0)
        keys = cache + (slot * HEADS + head) * RING * HEAD_SIZE
        values = keys + SLOTS * HEADS * RING * HEAD_SIZE
        highest = tl.full((), MASKED_SCORE, tl.float32)
        norm = tl.full((), 0.0, tl.float32)
        attended = tl.zeros((BLOCK_HEAD,), tl.float32)
        for first in range(0, tl.minimum(position + 1, RING), BLOCK_RING):
            ring_index = first + tl.arange(0, BLOCK_RING)
            age = (position + RING - ring_index) % RING  # how many positions before this one it was written
            visible = (age < WINDOW) & (age <= position) & (ring_index < RING)
            offsets = ring_index[:, None] * HEAD_SIZE + d[None, :]
            inside = visible[:, None] & (d[None, :] < HEAD_SIZE)
            key = tl.load(keys + offsets, mask=inside, other=0.0).to(tl.float32)
            value = tl.load(values + offsets, mask=inside, other=0.0).to(tl.float32)
            score = tl.where(visible, tl.sum(key * query[None, :], 1), MASKED_SCORE)
            new_highest = tl.maximum(highest, tl.max(score, 0))
            weight = tl.where(visible, tl.exp(score - new_highest), 0.0)
            rescaling = tl.exp(highest - new_highest)
            norm = norm * rescaling + tl.sum(weight, 0)
            attended = attended * rescaling + tl.sum(value * weight[:, None], 0)
            highest = new_highest
        tl.store(out + (row * HEADS + head) * HEAD_SIZE + d, attended / norm, mask=d < HEAD_SIZE)
