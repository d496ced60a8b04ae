"""Logarithms, exponentials, sines and cosines in double precision that are the same, bit for bit, everywhere.

The system's own differ in the last bit between C libraries, and NumPy's between CPUs. These consist of additions,
subtractions, multiplications and divisions in an order that is written down here, each rounded as IEEE 754 says,
without fused multiply-add; and of the bits of a double. `static/engine/arithmetic.js` has them in JavaScript, for
the same text in a browser. All are within 1 ulp of the exact result.

The polynomials are Taylor's, as long as the rest is below a quarter of an ulp. Knows nothing of texts or networks.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from model.jit import kernel_jit

Doubles = NDArray[np.float64]

SMALLEST_EXPONENT = -708.0  # of `exponential`: below it results were no normal numbers
LARGEST_EXPONENT = 709.0
LARGEST_ANGLE = 2.0**27  # radians, of `sine_and_cosine`

_SMALLEST_NORMAL = 2.0**-1022
_TWO_TO_54 = 2.0**54
_MANTISSA_BITS = np.int64(52)
_EXPONENT_BIAS = np.int64(1023)
_ROOT_HALF_BITS = np.int64(0x3FE6A09E_00000000)  # of about √½
_ROUND = 1.5 * 2.0**52  # added and subtracted again, it rounds to a whole number, halves to even

_LOG2_E = 1.4426950408889634
_LN2_HIGH = 0.6931471805592082  # 40 bits: its product with an exponent is exact
_LN2_LOW = 7.371002565167799e-13  # the rest of ln 2

_TWO_OVER_PI = 0.6366197723675814
# π/2 in parts of up to 26 bits, whose products with whole numbers below 2²⁷ are exact, and the rest.
_HALF_PI_1 = 1.5707963109016418
_HALF_PI_2 = 1.5893254712295857e-08
_HALF_PI_3 = 6.123233932053594e-17
_HALF_PI_4 = 6.36831716351095e-25


def _bits_of_double(typingctx: Any, value: Any) -> Any:
    """The bits of a float64 as an int64."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), codegen


def _double_of_bits(typingctx: Any, bits: Any) -> Any:
    """The float64 with the bits of an int64."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), codegen


_as_bits: Any = intrinsic(_bits_of_double)
_as_double: Any = intrinsic(_double_of_bits)


@kernel_jit(forceinline=True)
def logarithm(x: float) -> float:
    """Return the natural logarithm of a finite number above 0.

    x = 2^k · (1 + f) with 1 + f from √½ to √2. With s = f / (2 + f), ln(1 + f) is 2 · (s + s³/3 + s⁵/5 + …), and
    2 · s = f - f²/2 + s · f²/2: so the largest term, f, is exact.
    """
    is_normal = x >= _SMALLEST_NORMAL
    bits = _as_bits(x if is_normal else x * _TWO_TO_54)
    whole = (bits - _ROOT_HALF_BITS) >> _MANTISSA_BITS
    f: float = _as_double(bits - (whole << _MANTISSA_BITS)) - 1.0
    k = float(whole) if is_normal else float(whole) - 54.0
    s = f / (2.0 + f)
    z = s * s
    p = 2.0 / 21.0
    p = p * z + 2.0 / 19.0
    p = p * z + 2.0 / 17.0
    p = p * z + 2.0 / 15.0
    p = p * z + 2.0 / 13.0
    p = p * z + 2.0 / 11.0
    p = p * z + 2.0 / 9.0
    p = p * z + 2.0 / 7.0
    p = p * z + 2.0 / 5.0
    p = p * z + 2.0 / 3.0
    half_square = 0.5 * f * f
    return k * _LN2_HIGH - ((half_square - (s * (half_square + p * z) + k * _LN2_LOW)) - f)


@kernel_jit(forceinline=True)
def exponential(x: float) -> float:
    """Return e^x of a number up to `LARGEST_EXPONENT`; 0 below `SMALLEST_EXPONENT`.

    x = n · ln 2 + r with |r| ≤ ln 2 / 2.
    """
    clipped = x if x > SMALLEST_EXPONENT else SMALLEST_EXPONENT
    n = (clipped * _LOG2_E + _ROUND) - _ROUND
    high = clipped - n * _LN2_HIGH
    low = n * _LN2_LOW
    r = high - low
    rest = (high - r) - low
    p = 1.0 / 6227020800.0
    p = p * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    power = _as_double((np.int64(n) + _EXPONENT_BIAS) << _MANTISSA_BITS)
    return (1.0 + (r + (r * r * p + rest))) * power if x > SMALLEST_EXPONENT else 0.0


@kernel_jit(forceinline=True)
def sine_and_cosine(x: float) -> tuple[float, float]:
    """Return the sine and the cosine of an angle of at most `LARGEST_ANGLE` radians, of either sign.

    x = n · π/2 + r + rest with |r| ≤ π/4, where `rest` is what r has no bits for: near a multiple of π/2 most bits
    of x cancel.
    """
    n = (x * _TWO_OVER_PI + _ROUND) - _ROUND
    exact = (x - n * _HALF_PI_1) - n * _HALF_PI_2
    third = n * _HALF_PI_3
    fourth = n * _HALF_PI_4
    high = exact - third
    low = ((exact - high) - third) - fourth
    r = high + low
    rest = (high - r) + low
    z = r * r
    half_z = 0.5 * z
    p = 1.0 / 355687428096000.0
    p = p * z - 1.0 / 1307674368000.0
    p = p * z + 1.0 / 6227020800.0
    p = p * z - 1.0 / 39916800.0
    p = p * z + 1.0 / 362880.0
    p = p * z - 1.0 / 5040.0
    p = p * z + 1.0 / 120.0
    p = p * z - 1.0 / 6.0
    sine = r + (r * z * p + (rest - half_z * rest))
    q = 1.0 / 20922789888000.0
    q = q * z - 1.0 / 87178291200.0
    q = q * z + 1.0 / 479001600.0
    q = q * z - 1.0 / 3628800.0
    q = q * z + 1.0 / 40320.0
    q = q * z - 1.0 / 720.0
    q = q * z + 1.0 / 24.0
    near_one = 1.0 - half_z
    cosine = near_one + (((1.0 - near_one) - half_z) + (z * z * q - r * rest))
    quadrant = np.int64(n) & 3
    if quadrant == 0:
        return sine, cosine
    if quadrant == 1:
        return cosine, -sine
    if quadrant == 2:
        return -sine, -cosine
    return -cosine, sine


def replace_by_logarithms(values: Doubles) -> None:
    """Replace each number (N,) above 0 by its logarithm. To be compiled."""
    for i in range(len(values)):
        values[i] = logarithm(values[i])


def replace_by_exponentials(values: Doubles) -> None:
    """Replace each number (N,) up to `LARGEST_EXPONENT`, -inf included, by its exponential. To be compiled."""
    for i in range(len(values)):
        values[i] = exponential(values[i])


def replace_by_gumbel_noise(values: Doubles) -> None:
    """Replace each uniform number (N,) between 0 and 1 by Gumbel noise, -ln(-ln(it)). To be compiled."""
    for i in range(len(values)):
        values[i] = -logarithm(-logarithm(values[i]))
