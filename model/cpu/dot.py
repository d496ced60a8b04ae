"""The one product that generation on a CPU is made of: rows of int8 times blocks of 16 columns of uint8, in int32.

Integer sums are exact, so a row's result depends on nothing but the row and the columns: not on the rows beside
it, the number of threads, or the instructions of the CPU. Where the CPU has AVX-512 VNNI, `vpdpbusd` multiplies
64 pairs at once; elsewhere the same loop is written so that LLVM finds the CPU's own 16-bit products.
Knows nothing of networks.

Columns lie in memory as the CPU reads them: (N/16, K/4, 64) uint8, where the 64 are 16 columns of 4 consecutive
places in K each, and a value v is stored as v + 128.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import config
from numba.extending import intrinsic
from numpy.typing import NDArray

COLUMNS = 16  # in a block: their sums fill 64 bytes
GROUP = 4  # places in K that one instruction sums
OFFSET = 128

_BYTE, _SHORT, _INT, _INDEX = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)


def pack(matrix: NDArray[np.int8]) -> NDArray[np.uint8]:
    """(N, K) int8 to columns (⌈N/16⌉, ⌈K/4⌉, 64); what is missing counts as 0."""
    n, k = matrix.shape
    padded = np.zeros((-n % COLUMNS + n, -k % GROUP + k), dtype=np.int16)
    padded[:n, :k] = matrix
    blocks = (padded + OFFSET).astype(np.uint8).reshape(-1, COLUMNS, padded.shape[1] // GROUP, GROUP)
    return np.ascontiguousarray(blocks.transpose(0, 2, 1, 3)).reshape(len(blocks), -1, COLUMNS * GROUP)


def has_vnni() -> bool:
    """Whether code is compiled for a CPU with AVX-512 VNNI; Numba's own settings may name another than this one."""
    settings: Any = config
    if settings.CPU_FEATURES is not None:
        return "+avx512vnni" in settings.CPU_FEATURES.split(",")
    if settings.CPU_NAME not in (None, llvmlite.binding.get_host_cpu_name()):
        return False
    return bool(llvmlite.binding.get_host_cpu_features().get("avx512vnni"))


def _vector(element: ir.Type, length: int) -> ir.VectorType:
    return ir.VectorType(element, length)


class _Vnni:
    """Sums of 16 int32; one instruction multiplies, widens and adds."""

    lanes = COLUMNS

    @staticmethod
    def spread(builder: ir.IRBuilder, four: ir.Value) -> ir.Value:
        """Four bytes of a row, as an int32, beside every column."""
        one = builder.insert_element(ir.Constant(_vector(_INT, COLUMNS), ir.Undefined), four, _INT(0))
        return builder.shuffle_vector(one, one, ir.Constant(_vector(_INT, COLUMNS), [0] * COLUMNS))

    @staticmethod
    def columns(builder: ir.IRBuilder, block: ir.Value) -> ir.Value:
        return builder.bitcast(block, _vector(_INT, COLUMNS))

    @staticmethod
    def add(builder: ir.IRBuilder, total: ir.Value, columns: ir.Value, spread: ir.Value) -> ir.Value:
        vector = _vector(_INT, COLUMNS)
        function = builder.module.declare_intrinsic(
            "llvm.x86.avx512.vpdpbusd.512", fnty=ir.FunctionType(vector, [vector, vector, vector])
        )
        return builder.call(function, [total, columns, spread])

    @staticmethod
    def finish(builder: ir.IRBuilder, total: ir.Value) -> ir.Value:
        return total


class _Portable:
    """Sums of 32 int32, two for each column; LLVM knows this product of pairs as pmaddwd, smull, …"""

    lanes = 2 * COLUMNS

    @staticmethod
    def spread(builder: ir.IRBuilder, four: ir.Value) -> ir.Value:
        wide = builder.bitcast(_Vnni.spread(builder, four), _vector(_BYTE, 4 * COLUMNS))
        return builder.sext(builder.sext(wide, _vector(_SHORT, 4 * COLUMNS)), _vector(_INT, 4 * COLUMNS))

    @staticmethod
    def columns(builder: ir.IRBuilder, block: ir.Value) -> ir.Value:
        return builder.zext(block, _vector(_INT, 4 * COLUMNS))

    @staticmethod
    def add(builder: ir.IRBuilder, total: ir.Value, columns: ir.Value, spread: ir.Value) -> ir.Value:
        return builder.add(total, _Portable.pairs(builder, builder.mul(columns, spread)))

    @staticmethod
    def pairs(builder: ir.IRBuilder, values: ir.Value) -> ir.Value:
        """Each value plus its neighbour."""
        half = values.type.count // 2
        even, odd = (
            builder.shuffle_vector(
                values, values, ir.Constant(_vector(_INT, half), [2 * i + start for i in range(half)])
            )
            for start in (0, 1)
        )
        return builder.add(even, odd)

    @staticmethod
    def finish(builder: ir.IRBuilder, total: ir.Value) -> ir.Value:
        return _Portable.pairs(builder, total)


class _Tile:
    """Writes the loop of one tile: a block of columns is loaded once for all rows, sums stay in registers."""

    def __init__(self, product: type[_Vnni] | type[_Portable], rows: int, blocks: int) -> None:
        self.product, self.rows, self.blocks = product, rows, blocks
        self.total_type = _vector(_INT, product.lanes)

    def write(
        self, builder: ir.IRBuilder, x: "_Matrix", columns: "_Matrix", out: "_Matrix", steps: ir.Value
    ) -> None:
        """Multiply over the first `steps` groups of K, which are one or more."""
        before = builder.block
        body, after = builder.append_basic_block("tile"), builder.append_basic_block("tile.end")
        builder.branch(body)
        builder.position_at_end(body)
        step = builder.phi(_INDEX)
        step.add_incoming(_INDEX(0), before)
        totals = [[builder.phi(self.total_type) for _ in range(self.blocks)] for _ in range(self.rows)]
        sums = self._add(builder, x, columns, step, totals)
        for total, value in zip(chain(*totals), chain(*sums), strict=True):
            total.add_incoming(ir.Constant(self.total_type, [0] * self.product.lanes), before)
            total.add_incoming(value, body)
        following = builder.add(step, _INDEX(1))
        step.add_incoming(following, body)
        builder.cbranch(builder.icmp_signed("<", following, steps), body, after)
        builder.position_at_end(after)
        for m, line in enumerate(sums):
            for n, value in enumerate(line):
                place = out.at(builder, m, _INDEX(n * COLUMNS), _vector(_INT, COLUMNS))
                builder.store(self.product.finish(builder, value), place, align=4)

    def _add(
        self, builder: ir.IRBuilder, x: "_Matrix", columns: "_Matrix", step: ir.Value, totals: list[list[ir.Value]]
    ) -> list[list[ir.Value]]:
        bytes_type = _vector(_BYTE, COLUMNS * GROUP)
        places = [
            columns.at(builder, n, builder.mul(step, _INDEX(COLUMNS * GROUP)), bytes_type)
            for n in range(self.blocks)
        ]
        loaded = [self.product.columns(builder, builder.load(place, align=1)) for place in places]
        sums = []
        for m, line in enumerate(totals):
            four = builder.load(x.at(builder, m, builder.mul(step, _INDEX(GROUP)), _INT), align=1)
            spread = self.product.spread(builder, four)
            sums.append([self.product.add(builder, t, w, spread) for t, w in zip(line, loaded, strict=True)])
        return sums


@dataclass(frozen=True)
class _Matrix:
    """Memory of rows at equal distances."""

    start: ir.Value  # pointer to the first element
    stride: ir.Value  # elements from one row to the next

    def at(self, builder: ir.IRBuilder, row: int, column: ir.Value, kind: ir.Type) -> ir.Value:
        """Pointer to `kind` at (row, column)."""
        index = builder.add(builder.mul(_INDEX(row), self.stride), column)
        return builder.bitcast(builder.gep(self.start, [index]), kind.as_pointer())


def _make_tile(rows: int, blocks: int) -> Callable[..., None]:
    """The function tile(x, row, columns, block, steps, out).

    Rows `row` … of x (R, K) int8 times blocks `block` … of columns (N/16, K/4, 64) uint8, over the first 4·`steps`
    of K, into the same rows and columns of out (R, N) int32. Nothing is checked.
    """
    tile = _Tile(_Vnni if has_vnni() else _Portable, rows, blocks)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        x, columns, out = (context.make_array(signature.args[i])(context, builder, args[i]) for i in (0, 2, 5))
        row, block, steps = args[1], args[3], args[4]
        k, n = builder.extract_value(x.shape, 1), builder.extract_value(out.shape, 1)
        size = builder.mul(builder.extract_value(columns.shape, 1), _INDEX(COLUMNS * GROUP))
        first = builder.add(builder.mul(row, n), builder.mul(block, _INDEX(COLUMNS)))
        tile.write(
            builder,
            _Matrix(builder.gep(x.data, [builder.mul(row, k)]), k),
            _Matrix(builder.gep(columns.data, [builder.mul(block, size)]), size),
            _Matrix(builder.gep(out.data, [first]), n),
            steps,
        )
        return context.get_dummy_value()

    @intrinsic
    def tile_(typingctx: Any, x: Any, row: Any, columns: Any, block: Any, steps: Any, out: Any) -> Any:
        return types.void(x, types.int64, columns, types.int64, types.int64, out), codegen

    return tile_


ROWS, BLOCKS = (4, 4) if has_vnni() else (2, 2)  # of a tile at most: as many sums as there are registers
_tiles = {(rows, blocks): _make_tile(min(rows, ROWS), blocks) for rows in (1, 2, 3, 4) for blocks in (1, BLOCKS)}
_one_wide, _two_wide, _three_wide, _four_wide = (_tiles[rows, BLOCKS] for rows in (1, 2, 3, 4))
_one_thin, _two_thin, _three_thin, _four_thin = (_tiles[rows, 1] for rows in (1, 2, 3, 4))


@numba.njit(nogil=True)
def multiply(
    x: NDArray[np.int8],
    rows: int,
    columns: NDArray[np.uint8],
    first: int,
    end: int,
    steps: int,
    out: NDArray[np.int32],
) -> None:
    """The first `rows` of x (R, K) times the blocks `first` to `end` of columns, over the first 4·`steps` of K.

    Each of out (R, N) int32 is too large by 128 times the sum of its row of x. Nothing is checked: memory is the
    caller's care.
    """
    wide_end = first + (end - first) // BLOCKS * BLOCKS
    for block in range(first, wide_end, BLOCKS):
        row = 0
        while row < rows:
            here = min(rows - row, ROWS)
            if here == 1:
                _one_wide(x, row, columns, block, steps, out)
            elif here == 2:
                _two_wide(x, row, columns, block, steps, out)
            elif here == 3:
                _three_wide(x, row, columns, block, steps, out)
            else:
                _four_wide(x, row, columns, block, steps, out)
            row += here
    for block in range(wide_end, end):
        row = 0
        while row < rows:
            here = min(rows - row, ROWS)
            if here == 1:
                _one_thin(x, row, columns, block, steps, out)
            elif here == 2:
                _two_thin(x, row, columns, block, steps, out)
            elif here == 3:
                _three_thin(x, row, columns, block, steps, out)
            else:
                _four_thin(x, row, columns, block, steps, out)
            row += here
