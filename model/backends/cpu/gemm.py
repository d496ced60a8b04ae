"""The matrix product that generation on a CPU consists of: rows of int8 by packed columns of uint8, in int32.

Integer sums are exact: |x| ≤ 128 and a stored weight ≤ 255, so a sum over K stays below 2³¹ up to K = 65,793, and
no instruction used here rounds or saturates. Exact sums are the same in any order. So a row's result depends on the
row and the columns alone: not on the rows beside it, the number of threads, or the CPU's instructions.

What multiplies is chosen for the CPU (`microkernel.py`); where it has AMX, many rows go through that, if K is a
multiple of a tile's (`amx.py`). Knows nothing of networks.

Packed columns lie in memory as the CPU reads them: (N/16, K/4, 64) uint8, where the 64 bytes are 16 columns of 4
neighbouring elements along K each; if only pairs are multiplied, 16 columns of the first 2 elements and then 16 of
the other 2. A weight v is stored as v + `ZERO_POINT`, since some CPUs multiply unsigned bytes by signed ones.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.backends.cpu import amx
from model.backends.cpu.microkernel import (
    BLOCK_COLUMNS,
    CPU_FAMILY,
    K_GROUP,
    MICROKERNEL_BLOCKS,
    MICROKERNEL_ROWS,
    make_vector_microkernels,
)
from model.jit import kernel_jit

ZERO_POINT = CPU_FAMILY.zero_point
MIN_ROWS_FOR_AMX = 6  # a tile takes as long for one row as for sixteen
# How far ahead of what it reads a single block's microkernel asks for columns, in bytes. Without that, four rows of
# a network's products took twice as long: the CPU's own prefetching stops at each page of 4 KiB.
PREFETCH_DISTANCE = 12 * 1024

_MAX_ROWS_OF_MANY_BLOCKS = CPU_FAMILY.max_rows_of_many_blocks  # compiled code reads no attribute of a class
_READS_DISTANT_BLOCKS = CPU_FAMILY.reads_distant_blocks
_vector_microkernel = make_vector_microkernels(MICROKERNEL_ROWS, (1, MICROKERNEL_BLOCKS))
_amx_microkernel = amx.make_amx_microkernels()


def pack_columns(matrix: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return a matrix (N, K) int8, one row for each output, as packed columns (⌈N/16⌉, ⌈K/4⌉, 64); padding is 0."""
    n, k = matrix.shape
    padded_n = n + -n % BLOCK_COLUMNS
    padded_k = k + -k % K_GROUP
    padded = np.zeros((padded_n, padded_k), dtype=np.int16)
    padded[:n, :k] = matrix
    stored = (padded + ZERO_POINT).astype(np.uint8)
    together = CPU_FAMILY.elements_together
    blocks = stored.reshape(-1, BLOCK_COLUMNS, padded_k // K_GROUP, K_GROUP // together, together)
    packed = np.ascontiguousarray(blocks.transpose(0, 2, 3, 1, 4))
    return packed.reshape(len(blocks), -1, BLOCK_COLUMNS * K_GROUP)


@kernel_jit()
def gemm(
    x: NDArray[np.signedinteger[Any]],
    rows: int,
    columns: NDArray[np.uint8],
    blocks: int,
    k_groups: int,
    out: NDArray[np.int32],
    use_amx: bool,
    prefetch_offset: int | np.int64,
) -> None:
    """Multiply the first `rows` of x (R, K) by the first `blocks` of packed columns into the corner of out (R, N).

    Only the first 4 · `k_groups` elements of K count. Each sum is too large by `ZERO_POINT` times the sum of its
    row of x, which the caller subtracts. x and out are contiguous. Nothing is checked: an index beyond the arrays
    reads or writes foreign memory.

    Args:
        x: values of int8, as `CPU_FAMILY.row_dtype`.
        rows: how many.
        columns: as `pack_columns` returns them; the first two axes may have any strides.
        blocks: how many blocks of 16 columns.
        k_groups: how many groups of 4 elements of K.
        out: int32.
        use_amx: whether this thread may use AMX: `amx.request_amx` has said yes, and the call stands between
            `amx.configure_tiles` and `amx.release_tiles`. R is a multiple of 16 then, since rows beyond `rows` are
            read and written too.
        prefetch_offset: bytes from these columns to those of the next product, for which the memory is asked while
            this one is computed. 0: to those that follow these in memory.
    """
    if use_amx and rows >= MIN_ROWS_FOR_AMX and k_groups % amx.TILE_K_GROUPS == 0:
        for block in range(blocks):
            for row in range(0, rows, amx.MAX_ROW_TILES * amx.TILE_ROWS):
                variant = min((rows - row - 1) // amx.TILE_ROWS, amx.MAX_ROW_TILES - 1)
                _amx_microkernel(variant, x, row, columns, block, k_groups, out, prefetch_offset)
        return
    lie_side_by_side = columns.strides[0] < columns.strides[1]
    may_take_many = rows <= _MAX_ROWS_OF_MANY_BLOCKS and (_READS_DISTANT_BLOCKS or lie_side_by_side)
    block = 0
    while block < blocks:
        many_blocks = may_take_many and blocks - block >= MICROKERNEL_BLOCKS
        ahead = prefetch_offset if prefetch_offset != 0 or many_blocks else PREFETCH_DISTANCE
        for row in range(0, rows, MICROKERNEL_ROWS):
            variant = many_blocks * MICROKERNEL_ROWS + min(rows - row, MICROKERNEL_ROWS) - 1
            _vector_microkernel(variant, x, row, columns, block, k_groups, out, ahead)
        block += MICROKERNEL_BLOCKS if many_blocks else 1
