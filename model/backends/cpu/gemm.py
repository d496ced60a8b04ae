"""The one product that generation on a CPU is made of: rows of int8 times blocks of 16 columns of uint8, in int32.

Integer sums are exact, so a row's result depends on nothing but the row and the columns: not on the rows beside
it, the number of threads, or the instructions of the CPU. Where it has AVX-512 VNNI, `vpdpbusd` multiplies 64 pairs
at once (`tile.py`), and where it has AMX, many rows go through that, if K is in whole tiles (`amx.py`); elsewhere
the same loop is written so that LLVM finds the CPU's own 16-bit products. Knows nothing of networks.

Columns lie in memory as the CPU reads them: (N/16, K/4, 64) uint8, where the 64 are 16 columns of 4 consecutive
places in K each, and a value v is stored as v + 128.
"""

import numpy as np
from numpy.typing import NDArray

from model.backends.cpu import amx
from model.backends.cpu.microkernel import COLUMNS, GROUP, has_vnni, make_tiles
from model.jit import inner

OFFSET = 128
MIN_ROWS_FOR_AMX = 6  # rows: a tile takes as long for one as for sixteen


def pack(matrix: NDArray[np.int8]) -> NDArray[np.uint8]:
    """(N, K) int8 to columns (⌈N/16⌉, ⌈K/4⌉, 64); what is missing counts as 0."""
    n, k = matrix.shape
    padded = np.zeros((-n % COLUMNS + n, -k % GROUP + k), dtype=np.int16)
    padded[:n, :k] = matrix
    blocks = (padded + OFFSET).astype(np.uint8).reshape(-1, COLUMNS, padded.shape[1] // GROUP, GROUP)
    return np.ascontiguousarray(blocks.transpose(0, 2, 1, 3)).reshape(len(blocks), -1, COLUMNS * GROUP)


ROWS, BLOCKS = (4, 4) if has_vnni() else (2, 2)  # of a tile at most: as many sums as there are registers
_by_vectors, _by_amx = make_tiles(ROWS, (1, BLOCKS)), amx.make_tiles()


@inner()
def multiply(
    x: NDArray[np.int8],
    rows: int,
    columns: NDArray[np.uint8],
    blocks: int,
    steps: int,
    out: NDArray[np.int32],
    tiles: bool,
    ahead: int = 0,
) -> None:
    """The first `rows` of x (R, K) times the first `blocks` of columns, over the first 4·`steps` of K, into the
    first columns of out (R, N) int32.

    Each sum is too large by 128 times the sum of its row of x. Nothing is checked: memory is the caller's care. x
    and out are contiguous.

    Args:
        tiles: whether this thread may use AMX, between `amx.begin` and `amx.end`. R is a multiple of 16 then: rows
            beyond `rows` are read and written too.
        ahead: bytes from the columns to what is multiplied next, if that is worth asking the memory for.
    """
    if tiles and rows >= MIN_ROWS_FOR_AMX and steps % amx.STEPS == 0:
        for block in range(blocks):
            for row in range(0, rows, amx.MOST * amx.ROWS):
                tall = min((rows - row - 1) // amx.ROWS, amx.MOST - 1)
                _by_amx(tall, x, row, columns, block, steps, out, ahead)
        return
    block = 0
    while block < blocks:
        wide = blocks - block >= BLOCKS
        for row in range(0, rows, ROWS):
            kind = wide * ROWS + min(rows - row, ROWS) - 1
            _by_vectors(kind, x, row, columns, block, steps, out, ahead)
        block += BLOCKS if wide else 1
