"""The network's forward pass as one compiled call for the CPU: int8 weights, int8 keys and values.

A row is one id at one position of one slot's sequence; rows of several sequences are computed together. Whichever
they are, and however many threads compute them, each row comes out the same on any CPU: products are sums of
integers (`gemm.py`), and all else happens within the row (`vector_ops.py`, `attention.py`). Knows nothing of
PyTorch.
"""

import numba
import numpy as np

from model.backends.cpu import amx
from model.backends.cpu.attention import attend, write_kv, write_rotary_angles
from model.backends.cpu.barrier import BarrierHandle, barrier_wait
from model.backends.cpu.buffers import (
    ATTENTION_ROWS,
    Activations,
    Bytes,
    Cache,
    Floats,
    Indices,
    KernelConfig,
    Rows,
    Scratch,
    Span,
    Weights,
)
from model.backends.cpu.gemm import ZERO_POINT, gemm
from model.backends.cpu.microkernel import BLOCK_COLUMNS, MICROKERNEL_BLOCKS
from model.backends.cpu.vector_ops import (
    dequantise_two_bytes,
    exponentiate,
    quantise_int8,
    quantise_two_bytes,
    sum_squares,
    sum_values,
)
from model.jit import kernel_jit


@numba.njit(inline="always")
def forward(
    config: KernelConfig,
    weights: Weights,
    cache: Cache,
    scratch: Scratch,
    activations: Activations,
    slots: Indices,
    positions: Indices,
    tokens: Indices,
    logits: Floats,
    barrier: BarrierHandle,
    num_shards: int,
) -> None:
    """Append one id in each row; write the logits (rows, V) after it.

    With more than one shard, that many threads call this for the same rows with the same `activations`, and each
    computes some of the heads and columns of every layer. They wait for each other where one reads what the others
    wrote, four times a layer. Norms and quantisation of the residual stream take less time than a barrier does, so
    each thread computes them for itself.

    Args:
        slots, positions, tokens: (rows,), `MAX_ROWS` at most. Rows of one slot are at successive positions
            that follow what the slot has read: at most R - `window` + 1 of them if the last is at R or beyond, so
            that none overwrites what another of them attends to.
        barrier: this thread's handle; it computes the shard of its own number.
        num_shards: 1 if this thread computes these rows alone.
    """
    rows = len(slots)
    shard = barrier.worker if num_shards > 1 else 0
    heads = Span(config.heads * shard // num_shards, config.heads * (shard + 1) // num_shards)
    residual_blocks = _shard_blocks(weights.attention_output.shape[1], shard, num_shards)
    mlp_blocks = _shard_blocks(weights.mlp_expand.shape[1], shard, num_shards)
    vocabulary_blocks = _shard_blocks(len(weights.head), shard, num_shards)
    if config.use_amx:
        amx.configure_tiles()
    _embed(config, weights, scratch, positions, tokens)
    for layer in range(len(weights.qkv)):
        _add_attention(
            config,
            weights,
            cache,
            scratch,
            activations,
            slots,
            positions,
            layer,
            heads,
            residual_blocks,
            barrier,
            num_shards,
        )
        _add_mlp(
            config, weights, scratch, activations, rows, layer, mlp_blocks, residual_blocks, barrier, num_shards
        )
    _normalise(config, weights.norms[-1], scratch, rows)
    for row in range(rows):
        _write_logits(config, weights, scratch, row, vocabulary_blocks, logits[row])
    if config.use_amx:
        amx.release_tiles()


@kernel_jit(forceinline=True)
def _embed(config: KernelConfig, weights: Weights, scratch: Scratch, positions: Indices, tokens: Indices) -> None:
    """Write each row's embedding to the residual stream, and the rotary angles of its position."""
    for row in range(len(tokens)):
        for i in range(scratch.residual.shape[1]):
            scratch.residual[row, i] = weights.tokens[tokens[row], i]
        if not config.rotary:
            _add(scratch.residual[row : row + 1], weights.positions[positions[row] : positions[row] + 1], 1)
        write_rotary_angles(weights.frequencies, positions[row], scratch.rotary_angles[row])


@kernel_jit(forceinline=True)
def _add_attention(
    config: KernelConfig,
    weights: Weights,
    cache: Cache,
    scratch: Scratch,
    activations: Activations,
    slots: Indices,
    positions: Indices,
    layer: int,
    heads: Span,
    output_blocks: Span,
    barrier: BarrierHandle,
    num_shards: int,
) -> None:
    """Add a layer's attention to the residual stream.

    Args:
        heads: this thread's shard of attention itself.
        output_blocks: its shard of the output projection, in blocks of columns.
    """
    rows = len(slots)
    _normalise(config, weights.norms[2 * layer], scratch, rows)
    _qkv_projection(config, scratch, weights.qkv[layer], weights.qkv_scales[layer], rows, heads)
    for row in range(rows):
        write_kv(config, cache, scratch, row, heads, slots[row], layer, positions[row])
    _attend(config, cache, scratch, heads, slots, layer, positions, activations.attended)
    barrier_wait(barrier, num_shards)
    _quantise_rows(activations.attended, scratch.int8_rows, scratch, rows)
    _linear(
        config,
        scratch.int8_rows,
        weights.attention_output[layer],
        weights.attention_output_scales[layer],
        scratch,
        rows,
        output_blocks,
        activations.residual_update,
    )
    barrier_wait(barrier, num_shards)
    _add(scratch.residual, activations.residual_update, rows)


@kernel_jit(forceinline=True)
def _add_mlp(
    config: KernelConfig,
    weights: Weights,
    scratch: Scratch,
    activations: Activations,
    rows: int,
    layer: int,
    hidden_blocks: Span,
    output_blocks: Span,
    barrier: BarrierHandle,
    num_shards: int,
) -> None:
    """Add a layer's MLP to the residual stream.

    Args:
        hidden_blocks: this thread's shard of the first product, in blocks of columns.
        output_blocks: its shard of the second one.
    """
    _normalise(config, weights.norms[2 * layer + 1], scratch, rows)
    _quantise_rows(scratch.normed, scratch.int8_rows, scratch, rows)
    _linear(
        config,
        scratch.int8_rows,
        weights.mlp_expand[layer],
        weights.mlp_expand_scales[layer],
        scratch,
        rows,
        hidden_blocks,
        activations.mlp_hidden,
    )
    _activate(config.relu2, scratch, rows, hidden_blocks, activations.mlp_hidden)
    barrier_wait(barrier, num_shards)
    _quantise_rows(activations.mlp_hidden, scratch.int8_mlp_rows, scratch, rows)
    _linear(
        config,
        scratch.int8_mlp_rows,
        weights.mlp_output[layer],
        weights.mlp_output_scales[layer],
        scratch,
        rows,
        output_blocks,
        activations.residual_update,
    )
    barrier_wait(barrier, num_shards)
    _add(scratch.residual, activations.residual_update, rows)


@kernel_jit(forceinline=True)
def _shard_blocks(blocks: int, shard: int, num_shards: int) -> Span:
    """Return a shard's blocks of columns: whole groups of as many as a microkernel multiplies at once."""
    groups = -(-blocks // MICROKERNEL_BLOCKS)
    start = groups * shard // num_shards * MICROKERNEL_BLOCKS
    end = min(groups * (shard + 1) // num_shards * MICROKERNEL_BLOCKS, blocks)
    return Span(start, end)


@kernel_jit(forceinline=True)
def _add(x: Floats, y: Floats, rows: int) -> None:
    """Add y to x (…, C), in the first rows."""
    for row in range(rows):
        for i in range(x.shape[1]):
            x[row, i] += y[row, i]


@kernel_jit()
def _normalise(config: KernelConfig, norm: Floats, scratch: Scratch, rows: int) -> None:
    """Write RMSNorm or LayerNorm of the residual stream to `scratch.normed`; columns of padding stay 0."""
    channels = config.heads * config.head_size
    weight = norm[0]
    bias = norm[1]
    for row in range(rows):
        x = scratch.residual[row, :channels]
        y = scratch.normed[row, :channels]
        mean = np.float32(0) if config.rmsnorm else sum_values(x, scratch.partial_sums) / np.float32(channels)
        for i in range(channels):
            y[i] = x[i] - mean
        variance = sum_squares(y, scratch.partial_sums) / np.float32(channels)
        factor = np.float32(1) / np.sqrt(variance + config.epsilon)
        for i in range(channels):
            y[i] = y[i] * factor * weight[i] + bias[i]


@kernel_jit()
def _quantise_rows(values: Floats, int8_rows: Rows, scratch: Scratch, rows: int) -> None:
    """Quantise rows of `values`, as wide as `int8_rows`, for `_linear`."""
    width = int8_rows.shape[1]
    for row in range(rows):
        scale, row_sum = quantise_int8(values[row, :width], int8_rows[row])
        scratch.row_scales[row] = scale
        scratch.row_sums[row] = row_sum


@kernel_jit()
def _linear(
    config: KernelConfig,
    int8_rows: Rows,
    columns: Bytes,
    scales: Floats,
    scratch: Scratch,
    rows: int,
    blocks: Span,
    out: Floats,
) -> None:
    """Multiply the rows that were quantised last by these blocks of columns, into the same columns of `out`.

    It goes by few blocks at a time, so that their sums are still in the first-level cache when they are scaled.
    """
    for block in range(blocks.start, blocks.end, MICROKERNEL_BLOCKS):
        block_end = min(block + MICROKERNEL_BLOCKS, blocks.end)
        gemm(
            int8_rows,
            rows,
            columns[block:block_end],
            block_end - block,
            columns.shape[1],
            scratch.gemm_sums,
            config.use_amx,
            0,
        )
        start = block * BLOCK_COLUMNS
        end = block_end * BLOCK_COLUMNS
        column_scales = scales[0, start:end]
        bias = scales[1, start:end]
        for row in range(rows):
            row_scale = scratch.row_scales[row]
            excess = np.int32(ZERO_POINT * scratch.row_sums[row])
            sums = scratch.gemm_sums[row]
            out_row = out[row, start:end]
            for i in range(len(out_row)):
                out_row[i] = np.float32(np.int32(sums[i] - excess)) * (row_scale * column_scales[i]) + bias[i]


@kernel_jit()
def _qkv_projection(
    config: KernelConfig, scratch: Scratch, columns: Bytes, scales: Floats, rows: int, heads: Span
) -> None:
    """Write queries, keys and values of these heads, rounded to whole blocks of columns, to `scratch.qkv`."""
    _quantise_rows(scratch.normed, scratch.int8_rows, scratch, rows)
    start = heads.start * config.head_size // BLOCK_COLUMNS
    end = -(-heads.end * config.head_size // BLOCK_COLUMNS)
    width = scratch.residual.shape[1] // BLOCK_COLUMNS
    for i in range(3):
        blocks = Span(i * width + start, i * width + end)
        _linear(config, scratch.int8_rows, columns, scales, scratch, rows, blocks, scratch.qkv)


@kernel_jit()
def _attend(
    config: KernelConfig,
    cache: Cache,
    scratch: Scratch,
    heads: Span,
    slots: Indices,
    layer: int,
    positions: Indices,
    attended: Floats,
) -> None:
    """Compute attention of all rows, those of one slot together."""
    start = 0
    while start < len(slots):
        end = start + 1
        while end < min(len(slots), start + ATTENTION_ROWS) and slots[end] == slots[start]:
            end += 1
        next_slot = slots[end] if end < len(slots) else slots[start]
        attend(
            config,
            cache,
            scratch,
            start,
            end - start,
            heads,
            slots[start],
            layer,
            positions[start],
            next_slot,
            attended,
        )
        start = end


@kernel_jit()
def _activate(relu2: bool, scratch: Scratch, rows: int, blocks: Span, hidden: Floats) -> None:
    """Replace these blocks of columns by their squared ReLU or GELU."""
    for row in range(rows):
        x = hidden[row, blocks.start * BLOCK_COLUMNS : blocks.end * BLOCK_COLUMNS]
        if relu2:
            for i in range(len(x)):
                positive = x[i] if x[i] > np.float32(0) else np.float32(0)
                x[i] = positive * positive
        else:
            _gelu(x, scratch.scores[: len(x)])


@kernel_jit()
def _gelu(x: Floats, tail: Floats) -> None:
    """Replace x by x times the normal distribution function of x, to 1e-7 (Abramowitz and Stegun 1964, 7.1.26).

    `tail` (len(x),) is scratch memory.
    """
    for i in range(len(x)):
        tail[i] = np.float32(-0.5) * x[i] * x[i]
    exponentiate(tail)
    for i in range(len(x)):
        t = np.float32(1) / (np.float32(1) + np.float32(0.3275911 / 2**0.5) * abs(x[i]))
        p = np.float32(1.061405429) * t - np.float32(1.453152027)
        p = p * t + np.float32(1.421413741)
        p = p * t - np.float32(0.284496736)
        p = p * t + np.float32(0.254829592)
        beyond = np.float32(0.5) * p * t * tail[i]
        x[i] *= np.float32(1) - beyond if x[i] > np.float32(0) else beyond


@kernel_jit()
def _write_logits(
    config: KernelConfig, weights: Weights, scratch: Scratch, row: int, blocks: Span, logits: Floats
) -> None:
    """Write these blocks of a row's logits (V,), from `scratch.normed`.

    The row is quantised to two bytes: logits decide what is drawn, so they are computed with twice the precision.
    """
    high_bytes = scratch.final_bytes[0]
    low_bytes = scratch.final_bytes[1]
    scale, high_sum, low_sum = quantise_two_bytes(scratch.normed[row], high_bytes, low_bytes)
    columns = weights.head[blocks.start : blocks.end]
    num_blocks = blocks.end - blocks.start
    gemm(scratch.final_bytes, 2, columns, num_blocks, columns.shape[1], scratch.logit_sums, False, 0)
    start = blocks.start * BLOCK_COLUMNS
    out = logits[start : blocks.end * BLOCK_COLUMNS]
    column_scales = weights.head_scales[start:]
    high_excess = np.int32(ZERO_POINT * high_sum)
    low_excess = np.int32(ZERO_POINT * low_sum)
    dequantise_two_bytes(scratch.logit_sums, high_excess, low_excess, scale * config.logit_scale, out)
    for i in range(len(out)):
        out[i] *= column_scales[i]
