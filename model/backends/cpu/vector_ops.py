"""Float32 arithmetic on one row of numbers, compiled, in an order that is written down here.

Nothing is contracted or reassociated (no fastmath), so the same row gives the same bits on every CPU. Sums run
in lanes side by side, which are then added one after another. Whole numbers are made `np.int32` at each step:
Numba would go on with 64 bits. Knows nothing of networks.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from model.backends.cpu.buffers import LANES, Floats, Ints
from model.jit import inner

SEVEN_BITS = np.float32(127)
FIFTEEN_BITS = np.float32(127 * 256)  # in two bytes, each from -128 to 127
_ROUND = np.float32(1.5 * 2**23)  # added and taken away again, it rounds to a whole number, halves to even
_TINY = np.float32(1e-30)
_LOG2_E = np.float32(1.4426950408889634)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)  # the first has few bits
_SMALLEST_EXPONENT = np.float32(-60)


def _float_of(typingctx: Any, bits: Any) -> Any:
    """The float32 with the bits of an int32."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


_as_float: Any = intrinsic(_float_of)


@inner(forceinline=True)
def largest(values: Floats) -> np.float32:
    """The largest magnitude, found among whole numbers: bits without their sign are in the order of magnitudes."""
    bits = values.view(np.int32)
    found = np.int32(0)
    for i in range(len(bits)):
        found = max(found, bits[i] & np.int32(0x7FFFFFFF))
    value: np.float32 = _as_float(found)
    return value


@inner(forceinline=True)
def highest(values: Floats) -> np.float32:
    """The highest of the values; bits whose sign turns the others over are in the order of values."""
    bits = values.view(np.int32)
    found = np.int32(-(2**31))
    for i in range(len(bits)):
        found = max(found, bits[i] ^ ((bits[i] >> 31) & np.int32(0x7FFFFFFF)))
    value: np.float32 = _as_float(found ^ ((found >> 31) & np.int32(0x7FFFFFFF)))
    return value


@inner(forceinline=True)
def total(values: Floats, lanes: Floats) -> np.float32:
    """The sum. `lanes` (LANES,) is scratch memory, here and below."""
    for i in range(LANES):
        lanes[i] = np.float32(0)
    whole = len(values) // LANES * LANES
    for start in range(0, whole, LANES):
        for i in range(LANES):
            lanes[i] += values[start + i]
    for i in range(whole, len(values)):
        lanes[i - whole] += values[i]
    found = np.float32(0)
    for i in range(LANES):
        found += lanes[i]
    return found


@inner(forceinline=True)
def total_of_squares(values: Floats, lanes: Floats) -> np.float32:
    """The sum of the squares."""
    for i in range(LANES):
        lanes[i] = np.float32(0)
    whole = len(values) // LANES * LANES
    for start in range(0, whole, LANES):
        for i in range(LANES):
            lanes[i] += values[start + i] * values[start + i]
    for i in range(whole, len(values)):
        lanes[i - whole] += values[i] * values[i]
    found = np.float32(0)
    for i in range(LANES):
        found += lanes[i]
    return found


@inner(forceinline=True)
def quantise(values: Floats, out: NDArray[np.int8]) -> tuple[np.float32, np.int32]:
    """The nearest multiples of the returned step as whole numbers from -127 to 127; returns their sum too."""
    found = largest(values)
    factor = SEVEN_BITS / found if found > _TINY else np.float32(0)
    sums = np.int32(0)
    for i in range(len(values)):
        whole = np.int32((values[i] * factor + _ROUND) - _ROUND)
        out[i] = whole
        sums = np.int32(sums + whole)
    return found / SEVEN_BITS, sums


@inner(forceinline=True)
def quantise_finely(
    values: Floats, high_row: NDArray[np.int8], low_row: NDArray[np.int8]
) -> tuple[np.float32, np.int32, np.int32]:
    """As `quantise`, in two bytes, the high one counting 256-fold; returns both sums."""
    found = largest(values)
    factor = FIFTEEN_BITS / found if found > _TINY else np.float32(0)
    high_sum, low_sum = np.int32(0), np.int32(0)
    for i in range(len(values)):
        whole = np.int32((values[i] * factor + _ROUND) - _ROUND)
        high = np.int32(np.int32(whole + np.int32(128)) >> np.int32(8))
        low = np.int32(whole - np.int32(high << np.int32(8)))
        high_row[i], low_row[i] = high, low
        high_sum, low_sum = np.int32(high_sum + high), np.int32(low_sum + low)
    return found / FIFTEEN_BITS, high_sum, low_sum


@inner(forceinline=True)
def exponentials(values: Floats) -> None:
    """e to each value, in place, to about 2e-7 of it; what is below -60 counts as 0: CPUs are slow with numbers so
    small that a scale makes them subnormal.
    """
    for i in range(len(values)):
        x = values[i] if values[i] > _SMALLEST_EXPONENT else _SMALLEST_EXPONENT
        n = (x * _LOG2_E + _ROUND) - _ROUND
        r = (x - n * _LN2_HIGH) - n * _LN2_LOW
        p = np.float32(1 / 720)
        p = p * r + np.float32(1 / 120)
        p = p * r + np.float32(1 / 24)
        p = p * r + np.float32(1 / 6)
        p = p * r + np.float32(1 / 2)
        p = p * r + np.float32(1)
        power = _as_float(np.int32(np.int32(np.int32(n) + np.int32(127)) << np.int32(23)))
        values[i] = (p * r + np.float32(1)) * power if x > _SMALLEST_EXPONENT else np.float32(0)


@inner(forceinline=True)
def combine(sums: Ints, high: np.int32, low: np.int32, step: np.float32, out: Floats) -> None:
    """Sums (2, N) of finely quantised rows, less what is too much in each, as numbers."""
    high_sums, low_sums = sums[0], sums[1]
    for i in range(len(out)):
        coarse = np.float32(np.int32(high_sums[i] - high)) * np.float32(256)
        out[i] = (coarse + np.float32(np.int32(low_sums[i] - low))) * step
