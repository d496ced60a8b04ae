"""One tile of a product in LLVM's language: some rows of int8 times some blocks of columns, whose sums stay in
registers. See `dot.py`, which puts products together from tiles.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from model.jit import compiles_for

COLUMNS = 16  # in a block: their sums fill 64 bytes
GROUP = 4  # places in K that one instruction sums

_cgutils: Any = cgutils  # without annotations
_BYTE, _SHORT, _INT, _INDEX = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)


def has_vnni() -> bool:
    """Whether code is compiled for a CPU with AVX-512 VNNI."""
    return compiles_for("avx512vnni")


def _vector(element: ir.Type, length: int) -> ir.VectorType:
    return ir.VectorType(element, length)


class Vnni:
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


class Portable:
    """Sums of 32 int32, two for each column; LLVM knows this product of pairs as pmaddwd, smull, …"""

    lanes = 2 * COLUMNS

    @staticmethod
    def spread(builder: ir.IRBuilder, four: ir.Value) -> ir.Value:
        wide = builder.bitcast(Vnni.spread(builder, four), _vector(_BYTE, 4 * COLUMNS))
        return builder.sext(builder.sext(wide, _vector(_SHORT, 4 * COLUMNS)), _vector(_INT, 4 * COLUMNS))

    @staticmethod
    def columns(builder: ir.IRBuilder, block: ir.Value) -> ir.Value:
        return builder.zext(block, _vector(_INT, 4 * COLUMNS))

    @staticmethod
    def add(builder: ir.IRBuilder, total: ir.Value, columns: ir.Value, spread: ir.Value) -> ir.Value:
        return builder.add(total, Portable.pairs(builder, builder.mul(columns, spread)))

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
        return Portable.pairs(builder, total)


class Tile:
    """Writes one tile: a block of columns is loaded once for all rows, sums stay in registers."""

    def __init__(self, product: type[Vnni] | type[Portable], rows: int, blocks: int) -> None:
        self.product, self.rows, self.blocks = product, rows, blocks

    def write(
        self,
        builder: ir.IRBuilder,
        x: "Matrix",
        columns: "Matrix",
        out: "Matrix",
        steps: ir.Value,
        ahead: ir.Value,
    ) -> None:
        """A `Writer`."""
        kind = _vector(_INT, self.product.lanes)
        totals = [
            [_cgutils.alloca_once(builder, kind, zfill=True) for _ in range(self.blocks)] for _ in range(self.rows)
        ]
        with _cgutils.for_range(builder, steps) as loop:
            places = [columns.at(builder, n, loop.index, _BYTE) for n in range(self.blocks)]
            for place in places:
                _ask_for(builder, builder.gep(place, [ahead]))
            loaded = [self._load(builder, place) for place in places]
            for m, line in enumerate(totals):
                four = builder.load(x.at(builder, m, builder.mul(loop.index, _INDEX(GROUP)), _INT), align=1)
                spread = self.product.spread(builder, four)
                for total, block in zip(line, loaded, strict=True):
                    builder.store(self.product.add(builder, builder.load(total), block, spread), total)
        for m, line in enumerate(totals):
            for n, total in enumerate(line):
                place = out.at(builder, m, _INDEX(n * COLUMNS), _vector(_INT, COLUMNS))
                builder.store(self.product.finish(builder, builder.load(total)), place, align=4)

    def _load(self, builder: ir.IRBuilder, place: ir.Value) -> ir.Value:
        line = builder.bitcast(place, _vector(_BYTE, COLUMNS * GROUP).as_pointer())
        return self.product.columns(builder, builder.load(line, align=1))


def _ask_for(builder: ir.IRBuilder, place: ir.Value) -> None:
    """Have a cache line brought near, wherever it is, without waiting for it."""
    kind = ir.FunctionType(ir.VoidType(), [place.type, _INT, _INT, _INT])
    function = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
    read, second_cache, data = _INT(0), _INT(2), _INT(1)
    builder.call(function, [place, read, second_cache, data])


@dataclass(frozen=True)
class Matrix:
    """Memory of rows at equal distances."""

    start: ir.Value  # pointer to the first element
    stride: ir.Value  # elements from one row to the next; of columns, from one block to the next
    step: ir.Value  # elements from one place in a row to the next; of columns, from one group of K to the next

    def at(self, builder: ir.IRBuilder, row: int, place: ir.Value, kind: ir.Type) -> ir.Value:
        """Pointer to `kind` at a place in a row."""
        index = builder.add(builder.mul(_INDEX(row), self.stride), builder.mul(place, self.step))
        return builder.bitcast(builder.gep(self.start, [index]), kind.as_pointer())


Writer = Callable[[ir.IRBuilder, Matrix, Matrix, Matrix, ir.Value, ir.Value], None]


def tile_function(writers: Sequence[Writer]) -> Callable[..., None]:
    """The function tile(kind, x, row, columns, block, steps, out, ahead), whose kinds are written by `writers`.

    Rows `row` … of x (R, K) int8 times blocks `block` … of columns (N/16, K/4, 64) uint8, over the first 4·`steps`
    of K, into the same rows and columns of out (R, N) int32; x and out are contiguous. On the way the CPU is asked
    for what lies `ahead` bytes after the columns, if that is wanted. Nothing is checked.
    """

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        x, columns, out = (context.make_array(signature.args[i])(context, builder, args[i]) for i in (1, 3, 6))
        kind, row, block, steps, ahead = args[0], args[2], args[4], args[5], args[7]
        k, n = builder.extract_value(x.shape, 1), builder.extract_value(out.shape, 1)
        size, group = (builder.extract_value(columns.strides, axis) for axis in (0, 1))
        first = builder.add(builder.mul(row, n), builder.mul(block, _INDEX(COLUMNS)))
        matrices = (
            Matrix(builder.gep(x.data, [builder.mul(row, k)]), k, _INDEX(1)),
            Matrix(builder.gep(columns.data, [builder.mul(block, size)]), size, group),
            Matrix(builder.gep(out.data, [first]), n, _INDEX(1)),
        )
        after = builder.append_basic_block("tile.end")
        choice = builder.switch(kind, after)
        for number, write in enumerate(writers):
            case = builder.append_basic_block(f"tile.{number}")
            choice.add_case(_INDEX(number), case)
            builder.position_at_end(case)
            write(builder, *matrices, steps, ahead)
            builder.branch(after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    @intrinsic
    def tile(
        typingctx: Any, kind: Any, x: Any, row: Any, columns: Any, block: Any, steps: Any, out: Any, ahead: Any
    ) -> Any:
        size = types.int64
        return types.void(size, x, size, columns, size, size, out, size), codegen

    return tile


def make_tiles(rows: int, blocks: Sequence[int]) -> Callable[..., None]:
    """Tiles by the CPU's vectors; kind i · `rows` + j is j + 1 rows by blocks[i] blocks of columns."""
    product = Vnni if has_vnni() else Portable
    return tile_function([Tile(product, j + 1, wide).write for wide in blocks for j in range(rows)])
