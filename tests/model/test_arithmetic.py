"""Each function is within an ulp of the exact result wherever it is used, and none of its operations are fused."""

import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from model import arithmetic
from model.arithmetic import (
    LARGEST_ANGLE,
    LARGEST_EXPONENT,
    SMALLEST_EXPONENT,
    replace_by_exponentials,
    replace_by_gumbel_noise,
    replace_by_logarithms,
)
from model.backends.cpu import forward, vector_ops
from model.backends.cpu.buffers import NUM_PARTIAL_SUMS
from model.config import GPTConfig
from model.jit import compile_and_call
from tests.model.arithmetic_cases import (
    ANGLES,
    EXPONENTS,
    LOGARITHMS,
    exponential,
    logarithm,
    sine_and_cosine,
)

mpmath.mp.prec = 250
MAX_ULPS = 1.0
FUSED = re.compile(r"\b(vfn?m(add|sub)|fn?m(add|sub)\b|fml[as]\b)")  # of x86, of ARM's scalars and vectors


def ulps_apart(found: float, exact: Any) -> float:
    """How many units in the last place of the exact result a number is from it."""
    return float(abs(mpmath.mpf(found) - exact) / math.ulp(abs(float(exact))))


@pytest.mark.parametrize(
    ("function", "exact", "arguments"),
    [
        (logarithm, mpmath.log, LOGARITHMS),
        (exponential, mpmath.exp, EXPONENTS),
        (lambda x: sine_and_cosine(x)[0], mpmath.sin, ANGLES),
        (lambda x: sine_and_cosine(x)[1], mpmath.cos, ANGLES),
    ],
    ids=["logarithm", "exponential", "sine", "cosine"],
)
def test_results_are_within_an_ulp(
    function: Callable[[float], float], exact: Callable[[Any], Any], arguments: NDArray[np.float64]
) -> None:
    worst = max(ulps_apart(function(x), exact(mpmath.mpf(x))) for x in arguments.tolist())
    assert worst < MAX_ULPS


def test_the_ends_of_their_ranges() -> None:
    assert logarithm(1.0) == 0
    assert exponential(0.0) == 1
    assert exponential(-math.inf) == 0
    assert exponential(np.nextafter(SMALLEST_EXPONENT, -math.inf)) == 0
    assert exponential(np.nextafter(SMALLEST_EXPONENT, 0)) > 0
    assert math.isfinite(exponential(LARGEST_EXPONENT))
    assert sine_and_cosine(0.0) == (0, 1)
    assert ulps_apart(sine_and_cosine(LARGEST_ANGLE)[0], mpmath.sin(LARGEST_ANGLE)) < MAX_ULPS


def replaced(replace: Callable[[NDArray[np.float64]], None], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The numbers that a function leaves in place of these."""
    results = values.copy()
    compile_and_call(replace, np.full(1, 0.5))(results)
    return results


def test_all_numbers_of_an_array_are_replaced() -> None:
    values = replaced(replace_by_logarithms, LOGARITHMS[:100])
    assert values.tolist() == [logarithm(x) for x in LOGARITHMS[:100].tolist()]
    values = replaced(replace_by_exponentials, EXPONENTS[:100])
    assert values.tolist() == [exponential(x) for x in EXPONENTS[:100].tolist()]
    values = replaced(replace_by_gumbel_noise, np.linspace(0.01, 0.99, 50))
    np.testing.assert_allclose(values, -np.log(-np.log(np.linspace(0.01, 0.99, 50))), atol=1e-15)


@pytest.mark.parametrize("head_size", [8, 14, 64])
def test_frequencies_are_rounded_from_their_exact_values(head_size: int) -> None:
    config = GPTConfig(65, n_head=1, n_embd=head_size, positions="rotary")
    exact = [mpmath.mpf(10_000) ** -Fraction(i / head_size) for i in range(0, head_size, 2)]
    assert list(config.rotary_frequencies) == [float(one) for one in exact]
    assert GPTConfig(65).rotary_frequencies == ()


def assembly_of(function: Any, *arguments: Any) -> str:
    """The machine code of a compiled function for this CPU, after a call."""
    compiled = numba.njit(error_model="numpy")(function)
    compiled(*arguments)
    return "\n".join(compiled.inspect_asm().values())


def test_no_multiplication_is_fused_with_an_addition() -> None:
    """A fused one rounds once, so the same source would give other bits where the CPU has it.

    This is the kernel's code for norms, softmax, quantisation and scales, and all of `arithmetic`, as it is
    compiled for the CPU that runs the test; LLVM fuses only what a flag allows it to.
    """
    doubles = np.full(40, 0.5)
    floats = np.full(80, -0.5, np.float32)
    partial_sums = np.zeros(NUM_PARTIAL_SUMS, np.float32)
    whole_numbers = np.zeros(80, np.int8)
    sums = np.zeros((2, 80), np.int32)
    code = [
        assembly_of(replace_by_gumbel_noise, doubles.copy()),
        assembly_of(replace_by_exponentials, doubles.copy()),
        assembly_of(arithmetic.sine_and_cosine, 1.0),
        assembly_of(vector_ops.exponentiate, floats.copy()),
        assembly_of(vector_ops.sum_squares, floats, partial_sums),
        assembly_of(vector_ops.quantise_two_bytes, floats, whole_numbers, whole_numbers.copy()),
        assembly_of(vector_ops.dequantise_two_bytes, sums, np.int32(1), np.int32(1), np.float32(1), floats.copy()),
        assembly_of(forward._gelu, floats.copy(), floats.copy()),
    ]
    assert all("mul" in part for part in code)
    assert [FUSED.findall(part) for part in code] == [[]] * len(code)


def test_the_expression_for_fused_operations_finds_them() -> None:
    @numba.njit(fastmath={"contract"}, error_model="numpy")
    def fused(x: float, y: float, z: float) -> float:
        return x * y + z

    fused(1.0, 2.0, 3.0)
    code = "\n".join(fused.inspect_asm().values())
    has_multiplication = re.search(r"\bv?mulsd\b|\bfmul\b", code) is not None
    assert has_multiplication or FUSED.search(code)
