"""Tiles by the tile registers of newer CPUs of Intel's (AMX): one instruction multiplies 16 rows by 16 columns over
64 places of K, eight times as much as `vpdpbusd` in that time. See `dot.py`: its columns lie as they are read.
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

from model.backends.cpu.microkernel import GROUP, Matrix, tile_function
from model.jit import compiles_for

ROWS, STEPS = 16, 16  # of a tile: rows of x, and groups of 4 places of K
MOST = 4  # tiles of rows beside each other: their sums take half of the registers

_LINE = 64  # bytes in a tile's row
_BYTE, _INDEX = ir.IntType(8), ir.IntType(64)
_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18


def has_amx() -> bool:
    """Whether code is compiled for a CPU with AMX for bytes."""
    return compiles_for("amx-tile") and compiles_for("amx-int8")


def ask_for_amx() -> bool:
    """Whether this process may use it: Linux makes room for the registers if asked to (its arch/x86/xstate.rst)."""
    if not has_amx() or sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    return int(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA)) == 0


def _emit(builder: ir.IRBuilder, name: str, *arguments: ir.Value) -> None:
    """Write an instruction; nothing for other CPUs, where none of this is called."""
    if not has_amx():
        return
    kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    builder.call(builder.module.declare_intrinsic(f"llvm.x86.{name}", fnty=kind), arguments)


def _begin(typingctx: Any) -> Any:
    """Shape this thread's eight registers: 16 rows of 64 bytes each."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        shapes = bytes([1] + [0] * 15 + [_LINE, 0] * 8 + [0] * 16 + [ROWS] * 8 + [0] * 8)
        _emit(builder, "ldtilecfg", context.insert_const_bytes(builder.module, shapes, name="amx_shapes"))
        return context.get_dummy_value()

    return types.void(), codegen


def _end(typingctx: Any) -> Any:
    """Clear them, so that the system need not keep them when it switches threads."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        _emit(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), codegen


begin: Any = intrinsic(_begin)
end: Any = intrinsic(_end)


def _write(
    tall: int, builder: ir.IRBuilder, x: Matrix, columns: Matrix, out: Matrix, steps: ir.Value, ahead: ir.Value
) -> None:
    """A `Writer`."""
    register = [_BYTE(i) for i in range(8)]
    sums, block = register[:tall], register[7]
    for one in sums:
        _emit(builder, "tilezero", one)
    with cgutils.for_range_slice(builder, _INDEX(0), steps, _INDEX(STEPS)) as (step, _):
        place = builder.mul(step, _INDEX(GROUP))
        _emit(builder, "tileloadd64", block, columns.at(builder, 0, step, _BYTE), columns.step)
        for m, one in enumerate(sums):
            row = register[4 + m % 3]
            _emit(builder, "tileloadd64", row, x.at(builder, m * ROWS, place, _BYTE), x.stride)
            _emit(builder, "tdpbsud", one, row, block)
    line = builder.mul(out.stride, _INDEX(4))
    for m, one in enumerate(sums):
        _emit(builder, "tilestored64", one, out.at(builder, m * ROWS, _INDEX(0), _BYTE), line)


def make_tiles() -> Callable[..., None]:
    """Tiles by AMX; kind i is i + 1 tiles of rows by one block of columns, which is read once for all of them."""
    return tile_function([partial(_write, tall + 1) for tall in range(MOST)])
