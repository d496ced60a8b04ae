from typing import Any

import numba
import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model.backends.cpu import vector_ops
from model.backends.cpu.buffers import NUM_PARTIAL_SUMS, Floats

compiled: Any = numba.njit(error_model="numpy")
exponentiate = compiled(vector_ops.exponentiate)
max_magnitude = compiled(vector_ops.max_magnitude)
max_value = compiled(vector_ops.max_value)
quantise_int8 = compiled(vector_ops.quantise_int8)
quantise_two_bytes = compiled(vector_ops.quantise_two_bytes)
sum_squares = compiled(vector_ops.sum_squares)
sum_values = compiled(vector_ops.sum_values)

ZERO_ROW = 1e-30  # rows of magnitudes up to this are quantised to zeros
TINY = float(np.finfo(np.float32).tiny)  # of magnitudes below it, a 127th is no normal number
rows = arrays(np.float32, st.integers(1, 200), elements=st.floats(-50, 50, width=32))


@given(x=rows)
def test_extremes_are_exact(x: Floats) -> None:
    assert max_magnitude(x) == np.abs(x).max()
    assert max_value(x) == x.max()


@given(x=rows)
def test_sums_are_near_those_of_float64(x: Floats) -> None:
    partial_sums = np.empty(NUM_PARTIAL_SUMS, np.float32)
    exact = x.astype(np.float64)
    assert abs(sum_values(x, partial_sums) - exact.sum()) <= 1e-5 * np.abs(exact).sum()
    assert abs(sum_squares(x, partial_sums) - (exact**2).sum()) <= 1e-5 * (exact**2).sum() + 1e-37


@given(x=arrays(np.float32, 70, elements=st.floats(-100, 0, width=32)))
def test_exponentials_are_near_those_of_float64(x: Floats) -> None:
    expected = np.where(x > -60, np.exp(x.astype(np.float64)), 0)
    exponentiate(x)
    np.testing.assert_allclose(x, expected, rtol=3e-7)


@given(x=rows)
@example(x=np.array([1.1427036e-35], np.float32))
def test_quantised_values_are_half_a_scale_away_at_most(x: Floats) -> None:
    """Values of a row whose largest magnitude is 1e-30 at most become zeros: its scale's inverse would overflow."""
    tiny = ZERO_ROW if np.abs(x).max() <= ZERO_ROW else TINY
    one_byte = np.empty(len(x), np.int8)
    scale, row_sum = quantise_int8(x, one_byte)
    assert row_sum == one_byte.sum(dtype=np.int32)
    assert (np.abs(one_byte * scale - x) <= scale * 0.5001 + tiny).all()
    high_bytes = np.empty(len(x), np.int8)
    low_bytes = np.empty(len(x), np.int8)
    scale, high_sum, low_sum = quantise_two_bytes(x, high_bytes, low_bytes)
    assert high_sum == high_bytes.sum(dtype=np.int32)
    assert low_sum == low_bytes.sum(dtype=np.int32)
    assert (np.abs((high_bytes * 256.0 + low_bytes) * scale - x) <= scale * 0.51 + tiny).all()
