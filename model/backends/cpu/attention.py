"""Attention in the compiled kernel, over keys and values of int8, one head after another.

The cache of a slot is a ring (see `buffers.Cache`): position p is at index p mod R, and what is written there is
never moved. Rotary angles are those of absolute positions, so a key that was written once stays right while the
window rolls on. A score depends on the difference of positions only, so a text may go on for ever.

Sines and cosines of rotary angles are computed in float64 (`model/arithmetic.py`), and then rounded to float32.
Knows nothing of threads.
"""

import numpy as np
from numpy.typing import NDArray

from model.arithmetic import sine_and_cosine
from model.backends.cpu.buffers import (
    Bytes,
    Cache,
    Floats,
    Ints,
    KernelConfig,
    Scratch,
    SignedBytes,
    Span,
)
from model.backends.cpu.gemm import ZERO_POINT, gemm
from model.backends.cpu.microkernel import BLOCK_COLUMNS, CPU_FAMILY, K_GROUP
from model.backends.cpu.vector_ops import (
    dequantise_two_bytes,
    exponentiate,
    max_value,
    quantise_int8,
    quantise_two_bytes,
    sum_squares,
    sum_values,
)
from model.jit import kernel_jit

_TOGETHER = CPU_FAMILY.elements_together  # compiled code reads no attribute of a class
_MASKED_SCORE = np.float32(-1e30)
# Four bytes at once: inverting the sign bit of a byte v of int8 gives v + 128 of uint8. (With a zero point of 0,
# nothing is inverted.)
_FOUR_SIGN_BITS = np.uint32(ZERO_POINT * 0x01010101).astype(np.int32)
_TWO_SIGN_BITS = np.uint16(ZERO_POINT * 0x0101).astype(np.int16)


@kernel_jit()
def write_rotary_angles(frequencies: NDArray[np.float64], position: int, angles: Floats) -> None:
    """Write cosines and sines of a position's rotary angles to `angles` (2, D/2)."""
    for i in range(len(frequencies)):
        sine, cosine = sine_and_cosine(position * frequencies[i])
        angles[0, i] = cosine
        angles[1, i] = sine


@kernel_jit(forceinline=True)
def _rotate_and_normalise(
    config: KernelConfig, head: Floats, angles: Floats, rotated: Floats, partial_sums: Floats
) -> None:
    """Rotate and normalise one head's query or key (D,) in place, as far as the configuration asks for it.

    `rotated` (D/2 or more,) and `partial_sums` are scratch memory.
    """
    if config.rotary:
        half = config.head_size // 2
        a = head[:half]
        b = head[half:]
        cosine = angles[0]
        sine = angles[1]
        for i in range(half):
            rotated[i] = a[i] * cosine[i] - b[i] * sine[i]
        for i in range(half):
            b[i] = b[i] * cosine[i] + a[i] * sine[i]
        for i in range(half):
            a[i] = rotated[i]
    if config.qk_norm:
        mean_square = sum_squares(head, partial_sums) / np.float32(config.head_size)
        factor = np.float32(1) / np.sqrt(mean_square + config.qk_epsilon)
        for i in range(config.head_size):
            head[i] *= factor


@kernel_jit()
def write_kv(
    config: KernelConfig,
    cache: Cache,
    scratch: Scratch,
    row: int,
    heads: Span,
    slot: int,
    layer: int,
    position: int,
) -> None:
    """Rotate and normalise a row's queries and keys in `scratch.qkv`; write its keys and values into the cache."""
    size = config.head_size
    width = scratch.residual.shape[1]
    scales = cache.scales[slot, layer]  # (2, H, R)
    ring_index = position % scales.shape[2]
    qkv = scratch.qkv[row]
    angles = scratch.rotary_angles[row]
    int8_head = scratch.int8_head
    for h in range(heads.start, heads.end):
        start = h * size
        end = (h + 1) * size
        query = qkv[start:end]
        key = qkv[width + start : width + end]
        value = qkv[2 * width + start : 2 * width + end]
        _rotate_and_normalise(config, query, angles, scratch.scores, scratch.partial_sums)
        _rotate_and_normalise(config, key, angles, scratch.scores, scratch.partial_sums)
        scales[0, h, ring_index], _ = quantise_int8(key, int8_head)
        _write_key(int8_head, cache.keys[slot, layer, h, ring_index // BLOCK_COLUMNS], ring_index % BLOCK_COLUMNS)
        scales[1, h, ring_index], _ = quantise_int8(value, int8_head)
        _write_value(int8_head, cache.values[slot, layer, h, :, ring_index // K_GROUP], ring_index % K_GROUP)


@kernel_jit(forceinline=True)
def _write_key(key: SignedBytes, block: Bytes, column: int) -> None:
    """Write a key (D,) into one column of a block (D/4, 64) of keys, as many bytes at a time as stand together."""
    if _TOGETHER == K_GROUP:
        key_groups = key.view(np.int32)
        block_groups = block.view(np.int32)
        for k_group in range(len(block)):
            block_groups[k_group, column] = key_groups[k_group] ^ _FOUR_SIGN_BITS
    else:
        key_pairs = key.view(np.int16)
        block_pairs = block.view(np.int16)
        for k_group in range(len(block)):
            block_pairs[k_group, column] = key_pairs[2 * k_group] ^ _TWO_SIGN_BITS
            block_pairs[k_group, BLOCK_COLUMNS + column] = key_pairs[2 * k_group + 1] ^ _TWO_SIGN_BITS


@kernel_jit(forceinline=True)
def _write_value(value: SignedBytes, k_group: Bytes, index: int) -> None:
    """Write a value (D,) into one of the four elements of a K group (D/16, 64) of values."""
    part = index // _TOGETHER
    first = part * _TOGETHER * BLOCK_COLUMNS + index % _TOGETHER
    for block in range(len(k_group)):
        for i in range(BLOCK_COLUMNS):
            k_group[block, first + i * _TOGETHER] = np.int32(value[block * BLOCK_COLUMNS + i]) + ZERO_POINT


@kernel_jit()
def attend(
    config: KernelConfig,
    cache: Cache,
    scratch: Scratch,
    first_row: int,
    rows: int,
    heads: Span,
    slot: int,
    layer: int,
    position: int,
    next_slot: int,
    attended: Floats,
) -> None:
    """Write attention of some rows of one slot, each over its window, to the same rows of `attended` (…, C).

    Keys and values are read once for all of these rows. While a head's keys are multiplied, its values are
    prefetched; and then the keys of the next head, or of the slot that comes next.

    Softmax weights, times the scales of values, are quantised to two bytes: with one byte, the many small weights
    of a long window would become 0.

    Args:
        first_row, rows: the rows, which are at successive positions.
        position: of the first row.
        heads: those to compute.
        next_slot: whose rows are computed after these.
    """
    size = config.head_size
    ring_size = cache.scales.shape[4]
    value_blocks = scratch.value_sums.shape[1] // BLOCK_COLUMNS
    # ring entries in use, in whole blocks; once the ring has been filled, all
    entries = min(ring_size, ((position + rows - 1) // BLOCK_COLUMNS + 1) * BLOCK_COLUMNS)
    key_groups = scratch.int8_queries.shape[1] // K_GROUP
    root = np.sqrt(np.float32(size))
    keys_to_values = np.int64(cache.values.ctypes.data - cache.keys.ctypes.data)  # bytes
    for h in range(heads.start, heads.end):
        start = h * size
        end = (h + 1) * size
        keys = cache.keys[slot, layer, h]
        values = cache.values[slot, layer, h]
        key_scales = cache.scales[slot, layer, 0, h]
        value_scales = cache.scales[slot, layer, 1, h]
        for i in range(rows):
            query = scratch.qkv[first_row + i, start:end]
            scratch.row_scales[i], scratch.row_sums[i] = quantise_int8(query, scratch.int8_queries[i])
        gemm(
            scratch.int8_queries,
            rows,
            keys,
            entries // BLOCK_COLUMNS,
            key_groups,
            scratch.score_sums,
            config.use_amx,
            keys_to_values,
        )
        for i in range(rows):
            scores = scratch.scores[:entries]
            excess = np.int32(ZERO_POINT * scratch.row_sums[i])
            _dequantise_scores(scratch.score_sums[i], excess, scratch.row_scales[i] / root, key_scales, scores)
            _mask_outside_window(scores, position + i, ring_size, config.window)
            _quantise_softmax(scratch, i, scores, value_scales)
        values_to_next_keys = _bytes_to_next_keys(cache.keys.strides, heads, h, next_slot - slot) - keys_to_values
        gemm(
            scratch.softmax_bytes,
            2 * rows,
            values,
            value_blocks,
            entries // K_GROUP,
            scratch.value_sums,
            config.use_amx,
            values_to_next_keys,
        )
        for i in range(rows):
            high_excess = np.int32(ZERO_POINT * scratch.softmax_high_sums[i])
            low_excess = np.int32(ZERO_POINT * scratch.softmax_low_sums[i])
            out = attended[first_row + i, start:end]
            dequantise_two_bytes(scratch.value_sums[2 * i :], high_excess, low_excess, scratch.row_scales[i], out)


@kernel_jit(forceinline=True)
def _bytes_to_next_keys(strides: tuple[int, ...], heads: Span, head: int, slots: int) -> int:
    """Return the bytes from a head's keys to those of the next one, or of the first one `slots` slots on."""
    if head + 1 < heads.end:
        return strides[2]
    return strides[0] * slots - strides[2] * (head - heads.start)


@kernel_jit(forceinline=True)
def _dequantise_scores(
    sums: Ints, excess: np.int32, factor: np.float32, key_scales: Floats, scores: Floats
) -> None:
    """Write the scores (ring entries,) of one query, scaled, from their sums."""
    for i in range(len(scores)):
        scores[i] = np.float32(np.int32(sums[i] - excess)) * (factor * key_scales[i])


@kernel_jit(forceinline=True)
def _mask_outside_window(scores: Floats, position: int, ring_size: int, window: int) -> None:
    """Set the scores of ring entries to `_MASKED_SCORE` that the row at `position` does not attend to.

    The age of an entry is how many positions before `position` it was written. An entry is masked if it was written
    after `position` (by a later row of this chunk, or by a draft token that was rejected), if it has left the
    window, or if the sequence has not come so far: modulo the ring size all of these have too great an age.
    """
    row_index = np.int32(position % ring_size)
    visible = np.int32(min(position + 1, window))
    length = np.int32(ring_size)
    for i in range(len(scores)):
        age = np.int32(row_index - np.int32(i))
        age = np.int32(age + length) if age < 0 else age
        scores[i] = scores[i] if age < visible else _MASKED_SCORE


@kernel_jit(forceinline=True)
def _quantise_softmax(scratch: Scratch, i: int, scores: Floats, value_scales: Floats) -> None:
    """Write softmax of the scores, times the scales of values, to the row's two rows of `scratch.softmax_bytes`.

    The values' scales are put into the left operand because they differ along K; the norm of the softmax goes into
    the scale of the whole row, `scratch.row_scales[i]`.
    """
    highest = max_value(scores)
    for j in range(len(scores)):
        scores[j] -= highest
    exponentiate(scores)
    norm = sum_values(scores, scratch.partial_sums)
    for j in range(len(scores)):
        scores[j] *= value_scales[j]
    high_bytes = scratch.softmax_bytes[2 * i]
    low_bytes = scratch.softmax_bytes[2 * i + 1]
    scale, high_sum, low_sum = quantise_two_bytes(scores, high_bytes, low_bytes)
    scratch.softmax_high_sums[i] = high_sum
    scratch.softmax_low_sums[i] = low_sum
    scratch.row_scales[i] = scale / norm
