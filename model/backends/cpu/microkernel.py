"""The inner loop of `gemm.py`, written in LLVM's intermediate language.

A microkernel multiplies a few rows of int8 by a few blocks of columns of uint8; its sums stay in registers over the
whole of K and are written to memory once. Knows nothing of how a product is cut into such pieces.

LLVM's language, because Numba alone reaches neither `vpdpbusd` nor prefetching, and does not promise to keep an
array of sums in registers. Each family of CPUs (`MultiplyAdd`) has instructions of its own for the same exact sums:

- `Vnni`: x86 with AVX-512 VNNI; `AvxVnni`: x86 with the same instruction for 256 bits alone
- `NeonDot`: ARM with the dot product extension: ARMv8.4, and many CPUs before it
- `Pairs`: all others
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from model.jit import target_has_feature

BLOCK_COLUMNS = 16  # columns in a block: their int32 sums fill 64 bytes, an AVX-512 register
K_GROUP = 4  # neighbouring elements along K that `vpdpbusd` multiplies and sums into one int32
BLOCK_BYTES = BLOCK_COLUMNS * K_GROUP  # one block's bytes for one K group: a cache line

# Rows and blocks of the largest microkernels. AVX-512 has 32 registers: 16 hold sums, 4 the blocks. AVX2 has 16,
# and its sums of one row and one block fill two of them; ARM has 32, of which these sums fill four. So there,
# several blocks are multiplied side by side for a row or two only, and only if that is the order in which they lie
# in memory: four blocks that lie apart are read at half the speed of one after another, once they are not in the
# nearest caches.
MICROKERNEL_ROWS = 4
MICROKERNEL_BLOCKS = 4

_cgutils: Any = cgutils  # it has no annotations
_INT8 = ir.IntType(8)
_INT16 = ir.IntType(16)
_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)


@dataclass(frozen=True)
class MatrixPointer:
    """A matrix in memory, as emitted code addresses it. Strides are in elements of `start`.

    Attributes:
        start: pointer to the first element.
        row_stride: from one row to the next; of packed columns, from one block to the next.
        inner_stride: from one element of a row to the next; of packed columns, from one K group to the next.
    """

    start: ir.Value
    row_stride: ir.Value
    inner_stride: ir.Value

    def address(self, builder: ir.IRBuilder, row: int, inner: ir.Value, element: ir.Type) -> ir.Value:
        """Return a pointer of type `element` to an element of a row."""
        to_row = builder.mul(_INT64(row), self.row_stride)
        to_inner = builder.mul(inner, self.inner_stride)
        offset = builder.add(to_row, to_inner)
        return builder.bitcast(builder.gep(self.start, [offset]), element.as_pointer())


# Emits one microkernel's code. Arguments: builder, x, columns, out, number of K groups, prefetch offset in bytes.
Emitter = Callable[[ir.IRBuilder, MatrixPointer, MatrixPointer, MatrixPointer, ir.Value, ir.Value], None]


class MultiplyAdd(ABC):
    """How a family of CPUs multiplies one K group of a row by one block of columns, and adds the products up.

    A K group is multiplied in one step or in several, one part of its elements after another.

    Attributes:
        name: as people know its instructions.
        lanes: int32 sums in one register; a block has `BLOCK_COLUMNS` / `lanes` registers of them.
        elements_together: how many elements along K stand beside each other for one column in a block.
        row_dtype: of a row's elements, whose values are those of int8.
        zero_point: how a weight of 0 is stored, in the unsigned bytes of packed columns.
        max_rows_of_many_blocks: for how many rows several blocks may be multiplied side by side.
        reads_distant_blocks: whether that pays, too, if these blocks lie apart in memory.
    """

    name: str
    lanes: int
    elements_together: int
    row_dtype: type[np.int8] | type[np.int16]
    zero_point: int
    max_rows_of_many_blocks: int
    reads_distant_blocks: bool

    @staticmethod
    @abstractmethod
    def load_row(builder: ir.IRBuilder, address: ir.Value) -> list[ir.Value]:
        """Return a row's K group, in as many parts as it is multiplied in, each beside every column."""

    @staticmethod
    @abstractmethod
    def load_block(builder: ir.IRBuilder, address: ir.Value) -> list[list[ir.Value]]:
        """Return a block's K group: for each part, one vector for each register of sums."""

    @staticmethod
    @abstractmethod
    def multiply_add(builder: ir.IRBuilder, sums: ir.Value, columns: ir.Value, row: ir.Value) -> ir.Value:
        """Return the sums plus the products of one part's columns and row."""


class Vnni(MultiplyAdd):
    """AVX-512 VNNI: one instruction multiplies 64 pairs of bytes, widens the products and adds fours of them.

    `vpdpbusd` is the variant that does not saturate, so its sums are those of ordinary int32 arithmetic.
    """

    name = "AVX-512 VNNI"
    lanes = BLOCK_COLUMNS
    elements_together = K_GROUP
    row_dtype = np.int8
    zero_point = 128  # `vpdpbusd` takes one signed and one unsigned operand
    max_rows_of_many_blocks = MICROKERNEL_ROWS
    reads_distant_blocks = True
    intrinsic = "llvm.x86.avx512.vpdpbusd.512"

    @classmethod
    def load_row(cls, builder: ir.IRBuilder, address: ir.Value) -> list[ir.Value]:
        """Return a row's four bytes beside every column."""
        return [_broadcast(builder, _load_four_bytes(builder, address), cls.lanes)]

    @classmethod
    def load_block(cls, builder: ir.IRBuilder, address: ir.Value) -> list[list[ir.Value]]:
        """Return a block's 64 bytes, typed as `vpdpbusd` takes them."""
        return [_load_registers(builder, address, _vector(_INT32, cls.lanes))]

    @classmethod
    def multiply_add(cls, builder: ir.IRBuilder, sums: ir.Value, columns: ir.Value, row: ir.Value) -> ir.Value:
        """Return the sums plus the products."""
        vector = _vector(_INT32, cls.lanes)
        signature = ir.FunctionType(vector, [vector, vector, vector])
        vpdpbusd = builder.module.declare_intrinsic(cls.intrinsic, fnty=signature)
        return builder.call(vpdpbusd, [sums, columns, row])


class AvxVnni(Vnni):
    """AVX-VNNI: the same instruction in registers of half the size, of which there are 16.

    Intel's CPUs without AVX-512 have it since Alder Lake, AMD's since Zen 5.
    """

    name = "AVX-VNNI"
    lanes = 8
    max_rows_of_many_blocks = 1
    reads_distant_blocks = False
    intrinsic = "llvm.x86.avx512.vpdpbusd.256"  # LLVM has one name for both encodings, and takes the CPU's


class NeonDot(MultiplyAdd):
    """ARM's dot product extension: `sdot` multiplies 16 pairs of signed bytes and adds fours of the products.

    There are 32 registers of four sums each.
    """

    name = "NEON dot product"
    lanes = 4
    elements_together = K_GROUP
    row_dtype = np.int8
    zero_point = 0  # both operands are signed
    max_rows_of_many_blocks = 1
    reads_distant_blocks = False

    @staticmethod
    def load_row(builder: ir.IRBuilder, address: ir.Value) -> list[ir.Value]:
        """Return a row's four bytes beside every column."""
        row_group = _broadcast(builder, _load_four_bytes(builder, address), NeonDot.lanes)
        return [builder.bitcast(row_group, _vector(_INT8, K_GROUP * NeonDot.lanes))]

    @staticmethod
    def load_block(builder: ir.IRBuilder, address: ir.Value) -> list[list[ir.Value]]:
        """Return a block's 64 bytes in four registers."""
        return [_load_registers(builder, address, _vector(_INT8, K_GROUP * NeonDot.lanes))]

    @staticmethod
    def multiply_add(builder: ir.IRBuilder, sums: ir.Value, columns: ir.Value, row: ir.Value) -> ir.Value:
        """Return the sums plus the products."""
        four_sums = _vector(_INT32, NeonDot.lanes)
        bytes_of_four = _vector(_INT8, K_GROUP * NeonDot.lanes)
        signature = ir.FunctionType(four_sums, [four_sums, bytes_of_four, bytes_of_four])
        sdot = builder.module.declare_intrinsic("llvm.aarch64.neon.sdot.v4i32.v16i8", fnty=signature)
        return builder.call(sdot, [sums, columns, row])


class Pairs(MultiplyAdd):
    """Any CPU: one instruction multiplies pairs of 16-bit numbers and adds each pair (`pmaddwd` on x86).

    A row has been widened to 16 bits when it was quantised, once for all columns; columns are widened when they are
    loaded, once for all rows of the microkernel. LLVM recognises the instruction by the products of sign-extended
    numbers whose neighbours are added.

    Tried and rejected: the 8-bit product of AVX2, `pmaddubsw`, saturates at 16 bits, so its sums are not exact.
    And four elements of K side by side, as VNNI has them, need two sums for each column, which leaves registers
    for half as many rows: it was half as fast.
    """

    name = "pairs of 16 bits"
    lanes = 8
    elements_together = 2
    row_dtype = np.int16
    zero_point = 128
    max_rows_of_many_blocks = 2
    reads_distant_blocks = False

    @staticmethod
    def load_row(builder: ir.IRBuilder, address: ir.Value) -> list[ir.Value]:
        """Return the row's first two 16-bit numbers beside every column, and the same of the next two."""
        pairs = builder.bitcast(address, _INT32.as_pointer())
        parts = []
        for i in range(K_GROUP // 2):
            pair = builder.load(builder.gep(pairs, [_INT64(i)]), align=2)
            parts.append(builder.bitcast(_broadcast(builder, pair, Pairs.lanes), _vector(_INT16, 2 * Pairs.lanes)))
        return parts

    @staticmethod
    def load_block(builder: ir.IRBuilder, address: ir.Value) -> list[list[ir.Value]]:
        """Return the block's bytes widened to 16 bits, the first pair of all columns and then the second."""
        vectors = builder.bitcast(address, _vector(_INT8, 2 * Pairs.lanes).as_pointer())
        registers = BLOCK_COLUMNS // Pairs.lanes
        parts = []
        for i in range(K_GROUP // 2):
            columns = []
            for j in range(registers):
                stored = builder.load(builder.gep(vectors, [_INT64(i * registers + j)]), align=1)
                columns.append(builder.zext(stored, _vector(_INT16, 2 * Pairs.lanes)))
            parts.append(columns)
        return parts

    @staticmethod
    def multiply_add(builder: ir.IRBuilder, sums: ir.Value, columns: ir.Value, row: ir.Value) -> ir.Value:
        """Return the sums plus the products, which are added in pairs."""
        wide = _vector(_INT32, 2 * Pairs.lanes)
        products = builder.mul(builder.sext(columns, wide), builder.sext(row, wide))
        even_lanes = ir.Constant(_vector(_INT32, Pairs.lanes), list(range(0, 2 * Pairs.lanes, 2)))
        odd_lanes = ir.Constant(_vector(_INT32, Pairs.lanes), list(range(1, 2 * Pairs.lanes, 2)))
        even = builder.shuffle_vector(products, products, even_lanes)
        odd = builder.shuffle_vector(products, products, odd_lanes)
        return builder.add(sums, builder.add(even, odd))


def _target_family() -> type[MultiplyAdd]:
    """Return the fastest family whose instructions the CPU that code is compiled for has."""
    if target_has_feature("avx512vnni"):
        return Vnni
    if target_has_feature("avxvnni"):
        return AvxVnni
    if target_has_feature("dotprod"):
        return NeonDot
    return Pairs


CPU_FAMILY = _target_family()


def _load_four_bytes(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    """Return four bytes as one int32."""
    return builder.load(builder.bitcast(address, _INT32.as_pointer()), align=1)


def _load_registers(builder: ir.IRBuilder, address: ir.Value, register: ir.VectorType) -> list[ir.Value]:
    """Return a block's 64 bytes for one K group, in registers of this type."""
    registers = builder.bitcast(address, register.as_pointer())
    bytes_of_register = register.count * register.element.width // 8
    loaded = []
    for i in range(BLOCK_BYTES // bytes_of_register):
        loaded.append(builder.load(builder.gep(registers, [_INT64(i)]), align=1))
    return loaded


def _broadcast(builder: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    """Return an int32 in every lane of a vector."""
    undefined = ir.Constant(_vector(_INT32, lanes), ir.Undefined)
    first_lane = builder.insert_element(undefined, value, _INT32(0))
    zeros = ir.Constant(_vector(_INT32, lanes), [0] * lanes)
    return builder.shuffle_vector(first_lane, first_lane, zeros)


@dataclass(frozen=True)
class VectorMicrokernel:
    """The microkernel of some rows by some blocks of columns, for the CPU's vector registers."""

    family: type[MultiplyAdd]
    rows: int
    blocks: int

    def emit(
        self,
        builder: ir.IRBuilder,
        x: MatrixPointer,
        columns: MatrixPointer,
        out: MatrixPointer,
        k_groups: ir.Value,
        prefetch_offset: ir.Value,
    ) -> None:
        """Emit the code (an `Emitter`).

        For each K group the blocks are loaded once, for all rows, and each row's elements are broadcast once, for
        all blocks. The sums are stack variables that never have their address taken, so LLVM holds them in
        registers: `gemm` chooses rows and blocks such that they fit.
        """
        lanes = self.family.lanes
        registers = BLOCK_COLUMNS // lanes
        sum_type = _vector(_INT32, lanes)
        sums: dict[tuple[int, int, int], ir.Value] = {}  # by row, block, and register of the block
        for m in range(self.rows):
            for n in range(self.blocks):
                for register in range(registers):
                    sums[m, n, register] = _cgutils.alloca_once(builder, sum_type, zfill=True)
        with _cgutils.for_range(builder, k_groups) as loop:
            addresses = [columns.address(builder, n, loop.index, _INT8) for n in range(self.blocks)]
            for address in addresses:
                _prefetch(builder, builder.gep(address, [prefetch_offset]))
            blocks = [self.family.load_block(builder, address) for address in addresses]
            k = builder.mul(loop.index, _INT64(K_GROUP))
            rows = [self.family.load_row(builder, x.address(builder, m, k, _INT8)) for m in range(self.rows)]
            for (m, n, register), one_sum in sums.items():
                for block_part, row_part in zip(blocks[n], rows[m], strict=True):
                    before = builder.load(one_sum)
                    after = self.family.multiply_add(builder, before, block_part[register], row_part)
                    builder.store(after, one_sum)
        for (m, n, register), one_sum in sums.items():
            column = _INT64(n * BLOCK_COLUMNS + register * lanes)
            builder.store(builder.load(one_sum), out.address(builder, m, column, sum_type), align=4)


def make_vector_microkernels(max_rows: int, block_counts: Sequence[int]) -> Callable[..., None]:
    """Return a `microkernel_function` for the CPU's vector registers.

    Variant i · `max_rows` + j multiplies j + 1 rows by `block_counts[i]` blocks of columns.
    """
    emitters: list[Emitter] = []
    for blocks in block_counts:
        for rows in range(1, max_rows + 1):
            emitters.append(VectorMicrokernel(CPU_FAMILY, rows, blocks).emit)
    return microkernel_function(emitters)


def microkernel_function(emitters: Sequence[Emitter]) -> Callable[..., None]:
    """Return microkernel(variant, x, row, columns, block, k_groups, out, prefetch_offset), for compiled code.

    It multiplies rows from `row` on of x (R, K) by blocks from `block` on of columns (N/16, K/4, 64) uint8, over
    the first 4 · `k_groups` elements of K, into the same rows and columns of out (R, N) int32. x has the type
    `CPU_FAMILY.row_dtype`; x and out are contiguous. Meanwhile it prefetches what lies `prefetch_offset` bytes
    after the columns that it reads. Indices are not checked.

    Args:
        emitters: one for each variant, among which a `switch` chooses.
    """

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        variant, x_value, row, columns_value, block, k_groups, out_value, prefetch_offset = args
        x = context.make_array(signature.args[1])(context, builder, x_value)
        columns = context.make_array(signature.args[3])(context, builder, columns_value)
        out = context.make_array(signature.args[6])(context, builder, out_value)
        k = builder.extract_value(x.shape, 1)
        n = builder.extract_value(out.shape, 1)
        block_stride = builder.extract_value(columns.strides, 0)
        group_stride = builder.extract_value(columns.strides, 1)
        out_offset = builder.add(builder.mul(row, n), builder.mul(block, _INT64(BLOCK_COLUMNS)))
        x_pointer = MatrixPointer(builder.gep(x.data, [builder.mul(row, k)]), k, _INT64(1))
        columns_start = builder.gep(columns.data, [builder.mul(block, block_stride)])
        columns_pointer = MatrixPointer(columns_start, block_stride, group_stride)
        out_pointer = MatrixPointer(builder.gep(out.data, [out_offset]), n, _INT64(1))
        end = builder.append_basic_block("microkernel.end")
        switch = builder.switch(variant, end)
        for number, emit in enumerate(emitters):
            case = builder.append_basic_block(f"microkernel.{number}")
            switch.add_case(_INT64(number), case)
            builder.position_at_end(case)
            emit(builder, x_pointer, columns_pointer, out_pointer, k_groups, prefetch_offset)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    @intrinsic
    def microkernel(
        typingctx: Any,
        variant: Any,
        x: Any,
        row: Any,
        columns: Any,
        block: Any,
        k_groups: Any,
        out: Any,
        prefetch_offset: Any,
    ) -> Any:
        index = types.int64
        return types.void(index, x, index, columns, index, index, out, index), codegen

    return microkernel


def _prefetch(builder: ir.IRBuilder, address: ir.Value) -> None:
    """Emit a prefetch of one cache line. Any address may be given: a prefetch never faults."""
    signature = ir.FunctionType(ir.VoidType(), [address.type, _INT32, _INT32, _INT32])
    prefetch = builder.module.declare_intrinsic("llvm.prefetch", [address.type], signature)
    for_reading = _INT32(0)
    into_second_level_cache = _INT32(2)
    data_not_code = _INT32(1)
    builder.call(prefetch, [address, for_reading, into_second_level_cache, data_not_code])


def _vector(element: ir.Type, length: int) -> ir.VectorType:
    return ir.VectorType(element, length)
