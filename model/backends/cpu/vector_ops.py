"""Float32 arithmetic on one row of numbers, compiled, in an order of operations that is written down here.

Nothing is contracted or reassociated (no `fastmath`), so the same row gives the same bits on every CPU. A sum runs
in `NUM_PARTIAL_SUMS` partial sums side by side, which LLVM can keep in vectors of any width, and which are then
added one after another. Whole numbers are made `np.int32` at each step: Numba would go on with 64 bits, and vectors
would hold half as many. Knows nothing of networks.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from model.backends.cpu.buffers import NUM_PARTIAL_SUMS, Floats, Ints
from model.jit import kernel_jit

INT8_LIMIT = np.float32(127)  # largest magnitude of a number that is quantised to one byte
INT16_LIMIT = np.float32(127 * 256)  # to two bytes, each from -128 to 127

_SIGN_CLEARED = np.int32(0x7FFFFFFF)  # mask of all bits but the sign
_SMALLEST_INT32 = np.int32(-(2**31))
_ROUND = np.float32(1.5 * 2**23)  # added and subtracted again, it rounds to a whole number, halves to even
_TINY = np.float32(1e-30)  # rows whose largest magnitude is below are quantised to zeros
_LOG2_E = np.float32(1.4426950408889634)
_LN2_HIGH = np.float32(0.693359375)  # few bits: its products with small whole numbers are exact
_LN2_LOW = np.float32(-2.12194440e-4)
_SMALLEST_EXPONENT = np.float32(-60)


def _float_of(typingctx: Any, bits: Any) -> Any:
    """The float32 with the bits of an int32."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


_as_float: Any = intrinsic(_float_of)


@kernel_jit(forceinline=True)
def max_magnitude(values: Floats) -> np.float32:
    """Return the largest magnitude of the values.

    It is found among int32, whose maximum LLVM vectorises, which it does not do for floats without `fastmath`: read
    as int32, the bits of floats without their sign are in the order of magnitudes.
    """
    bits = values.view(np.int32)
    largest = np.int32(0)
    for i in range(len(bits)):
        largest = max(largest, bits[i] & _SIGN_CLEARED)
    value: np.float32 = _as_float(largest)
    return value


@kernel_jit(forceinline=True)
def max_value(values: Floats) -> np.float32:
    """Return the highest of the values.

    It is found among int32, as in `max_magnitude`: with the other bits of negative numbers inverted, the bits of
    floats are in the order of values. Inverting them again gives the float back.
    """
    bits = values.view(np.int32)
    highest = _SMALLEST_INT32
    for i in range(len(bits)):
        highest = max(highest, bits[i] ^ ((bits[i] >> 31) & _SIGN_CLEARED))
    value: np.float32 = _as_float(highest ^ ((highest >> 31) & _SIGN_CLEARED))
    return value


@kernel_jit(forceinline=True)
def sum_values(values: Floats, partial_sums: Floats) -> np.float32:
    """Return the sum of the values; `partial_sums` (NUM_PARTIAL_SUMS,) is scratch memory."""
    for i in range(NUM_PARTIAL_SUMS):
        partial_sums[i] = np.float32(0)
    whole = len(values) // NUM_PARTIAL_SUMS * NUM_PARTIAL_SUMS
    for start in range(0, whole, NUM_PARTIAL_SUMS):
        for i in range(NUM_PARTIAL_SUMS):
            partial_sums[i] += values[start + i]
    for i in range(whole, len(values)):
        partial_sums[i - whole] += values[i]
    total = np.float32(0)
    for i in range(NUM_PARTIAL_SUMS):
        total += partial_sums[i]
    return total


@kernel_jit(forceinline=True)
def sum_squares(values: Floats, partial_sums: Floats) -> np.float32:
    """Return the sum of the values' squares; `partial_sums` (NUM_PARTIAL_SUMS,) is scratch memory."""
    for i in range(NUM_PARTIAL_SUMS):
        partial_sums[i] = np.float32(0)
    whole = len(values) // NUM_PARTIAL_SUMS * NUM_PARTIAL_SUMS
    for start in range(0, whole, NUM_PARTIAL_SUMS):
        for i in range(NUM_PARTIAL_SUMS):
            partial_sums[i] += values[start + i] * values[start + i]
    for i in range(whole, len(values)):
        partial_sums[i - whole] += values[i] * values[i]
    total = np.float32(0)
    for i in range(NUM_PARTIAL_SUMS):
        total += partial_sums[i]
    return total


@kernel_jit(forceinline=True)
def quantise_int8(values: Floats, out: NDArray[np.signedinteger[Any]]) -> tuple[np.float32, np.int32]:
    """Write the values to `out` as whole multiples, from -127 to 127, of a scale.

    Returns:
        The scale, and the sum of the whole numbers, which corrects a product for its `ZERO_POINT`.
    """
    largest = max_magnitude(values)
    factor = INT8_LIMIT / largest if largest > _TINY else np.float32(0)
    total = np.int32(0)
    for i in range(len(values)):
        whole = np.int32((values[i] * factor + _ROUND) - _ROUND)
        out[i] = whole
        total = np.int32(total + whole)
    return largest / INT8_LIMIT, total


@kernel_jit(forceinline=True)
def quantise_two_bytes(
    values: Floats, high_bytes: NDArray[np.signedinteger[Any]], low_bytes: NDArray[np.signedinteger[Any]]
) -> tuple[np.float32, np.int32, np.int32]:
    """Write the values as whole multiples of a scale, in two signed bytes: high · 256 + low.

    Each kind of byte is a row of its own for a product (see `dequantise_two_bytes`), which so has 16 bits of
    precision from int8 arithmetic.

    Returns:
        The scale, the sum of the high bytes and the sum of the low ones.
    """
    largest = max_magnitude(values)
    factor = INT16_LIMIT / largest if largest > _TINY else np.float32(0)
    high_sum = np.int32(0)
    low_sum = np.int32(0)
    for i in range(len(values)):
        whole = np.int32((values[i] * factor + _ROUND) - _ROUND)
        high = np.int32(np.int32(whole + np.int32(128)) >> np.int32(8))
        low = np.int32(whole - np.int32(high << np.int32(8)))
        high_bytes[i] = high
        low_bytes[i] = low
        high_sum = np.int32(high_sum + high)
        low_sum = np.int32(low_sum + low)
    return largest / INT16_LIMIT, high_sum, low_sum


@kernel_jit(forceinline=True)
def dequantise_two_bytes(
    sums: Ints, high_excess: np.int32, low_excess: np.int32, scale: np.float32, out: Floats
) -> None:
    """Write to `out` (N,) the numbers of a product of two rows of bytes.

    Args:
        sums: (2, N) of the high and the low bytes.
        high_excess, low_excess: what each sum is too large by.
        scale: of the two-byte numbers.
        out: float32.
    """
    high_sums = sums[0]
    low_sums = sums[1]
    for i in range(len(out)):
        high_part = np.float32(np.int32(high_sums[i] - high_excess)) * np.float32(256)
        out[i] = (high_part + np.float32(np.int32(low_sums[i] - low_excess))) * scale


@kernel_jit(forceinline=True)
def exponentiate(values: Floats) -> None:
    """Replace each value, at most 0, by its exponential, with a relative error of about 2e-7.

    The argument is split into n · ln 2 + r with |r| ≤ ln 2 / 2; e^r is its Taylor polynomial of degree 6, and 2^n
    is made from exponent bits. Below -60 the result is 0: smaller numbers became subnormal once a scale multiplied
    them, and subnormal numbers are so slow on some CPUs that attention over a full window took 1.6 times as long.
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
