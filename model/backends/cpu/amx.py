"""A microkernel for AMX, the tile registers of newer Intel CPUs.

One instruction, `tdpbsud`, multiplies a tile of 16 rows by a tile of 16 columns over 64 elements of K: eight times
as much as `vpdpbusd` does in that time. Packed columns (see `gemm.py`) lie in memory as the instruction reads them.
Knows nothing of when AMX pays.
"""

import ctypes
import platform
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from model.backends.cpu.microkernel import K_GROUP, Emitter, MatrixPointer, microkernel_function
from model.jit import target_has_feature

TILE_ROWS = 16  # rows of x in a tile
TILE_K_GROUPS = 16  # K groups in a tile: 64 elements of K
MAX_ROW_TILES = 4  # row tiles that one microkernel multiplies; their sums take half of the eight registers

_NUM_REGISTERS = 8
_TILE_ROW_BYTES = 64
_COLUMNS_REGISTER = 7
# Registers 4, 5 and 6 hold tiles of x in turn, so that a load need not wait for the last product.
_FIRST_ROWS_REGISTER = MAX_ROW_TILES
_NUM_ROWS_REGISTERS = 3
_INT8 = ir.IntType(8)
_INT64 = ir.IntType(64)

# Linux gives a process the tile registers on request only, since they make its threads' state 8 KiB larger
# (arch_prctl of Linux, Documentation/arch/x86/xstate.rst).
_SYS_ARCH_PRCTL = 158
_ARCH_REQ_XCOMP_PERM = 0x1023
_XFEATURE_XTILE_DATA = 18


def has_amx() -> bool:
    """Return whether code is compiled for a CPU with AMX for int8."""
    return target_has_feature("amx-tile") and target_has_feature("amx-int8")


def request_amx() -> bool:
    """Ask the system for the tile registers; return whether this process may use them.

    The answer is an argument of compiled code and never a constant in it: that code is kept on disk, and the next
    process that loads it may be refused.
    """
    if not has_amx() or sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    libc = ctypes.CDLL(None)
    return int(libc.syscall(_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILE_DATA)) == 0


def _emit_instruction(builder: ir.IRBuilder, name: str, *arguments: ir.Value) -> None:
    """Emit an x86 instruction; nothing for CPUs without AMX, where code with it is compiled but never run."""
    if not has_amx():
        return
    signature = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    builder.call(builder.module.declare_intrinsic(f"llvm.x86.{name}", fnty=signature), arguments)


def _tile_configuration() -> bytes:
    """Return the 64 bytes that `ldtilecfg` reads (Intel, Software Developer's Manual, volume 1, chapter 18).

    Byte 0 is the palette, bytes 16 to 47 are the row lengths of 16 registers in bytes (16 bits each), bytes 48 to
    63 their numbers of rows. All eight registers have 16 rows of 64 bytes.
    """
    configuration = bytearray(64)
    configuration[0] = 1
    for register in range(_NUM_REGISTERS):
        configuration[16 + 2 * register] = _TILE_ROW_BYTES
        configuration[48 + register] = TILE_ROWS
    return bytes(configuration)


def _configure_tiles(typingctx: Any) -> Any:
    """Set the shapes of this thread's tile registers; to be called before the first microkernel."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        configuration = context.insert_const_bytes(builder.module, _tile_configuration(), name="amx_configuration")
        _emit_instruction(builder, "ldtilecfg", configuration)
        return context.get_dummy_value()

    return types.void(), codegen


def _release_tiles(typingctx: Any) -> Any:
    """Clear this thread's tile registers, so that the system need not save them when it switches threads."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        _emit_instruction(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), codegen


configure_tiles: Any = intrinsic(_configure_tiles)
release_tiles: Any = intrinsic(_release_tiles)


def _emit_microkernel(
    row_tiles: int,
    builder: ir.IRBuilder,
    x: MatrixPointer,
    columns: MatrixPointer,
    out: MatrixPointer,
    k_groups: ir.Value,
    prefetch_offset: ir.Value,
) -> None:
    """Emit the product of `row_tiles` tiles of x and one block of columns; the rest is an `Emitter`.

    Registers 0 to 3 hold the sums, 4 to 6 tiles of x, 7 the columns, which are loaded once for all rows. Nothing is
    prefetched.
    """
    registers = [_INT8(i) for i in range(_NUM_REGISTERS)]
    sum_registers = registers[:row_tiles]
    columns_register = registers[_COLUMNS_REGISTER]
    for sums in sum_registers:
        _emit_instruction(builder, "tilezero", sums)
    with cgutils.for_range_slice(builder, _INT64(0), k_groups, _INT64(TILE_K_GROUPS)) as (k_group, _):
        k = builder.mul(k_group, _INT64(K_GROUP))
        columns_address = columns.address(builder, 0, k_group, _INT8)
        _emit_instruction(builder, "tileloadd64", columns_register, columns_address, columns.inner_stride)
        for m, sums in enumerate(sum_registers):
            rows_register = registers[_FIRST_ROWS_REGISTER + m % _NUM_ROWS_REGISTERS]
            rows_address = x.address(builder, m * TILE_ROWS, k, _INT8)
            _emit_instruction(builder, "tileloadd64", rows_register, rows_address, x.row_stride)
            _emit_instruction(builder, "tdpbsud", sums, rows_register, columns_register)
    out_stride_bytes = builder.mul(out.row_stride, _INT64(4))
    for m, sums in enumerate(sum_registers):
        out_address = out.address(builder, m * TILE_ROWS, _INT64(0), _INT8)
        _emit_instruction(builder, "tilestored64", sums, out_address, out_stride_bytes)


def make_amx_microkernels() -> Callable[..., None]:
    """Return a `microkernel_function` by AMX; variant i multiplies i + 1 tiles of rows by one block of columns."""
    emitters: list[Emitter] = [partial(_emit_microkernel, tiles) for tiles in range(1, MAX_ROW_TILES + 1)]
    return microkernel_function(emitters)
