import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model.backends.cpu.buffers import LANES, Floats
from model.backends.cpu.vector_ops import (
    exponentials,
    highest,
    largest,
    quantise,
    quantise_finely,
    total,
    total_of_squares,
)

TINY = float(np.finfo(np.float32).tiny)  # below it, a step of a 127th is none
rows = arrays(np.float32, st.integers(1, 200), elements=st.floats(-50, 50, width=32))


@given(x=rows)
def test_extremes_are_exact(x: Floats) -> None:
    assert largest(x) == np.abs(x).max()
    assert highest(x) == x.max()


@given(x=rows)
def test_sums_are_near_those_of_float64(x: Floats) -> None:
    lanes, exact = np.empty(LANES, np.float32), x.astype(np.float64)
    assert abs(total(x, lanes) - exact.sum()) <= 1e-5 * np.abs(exact).sum()
    assert abs(total_of_squares(x, lanes) - (exact**2).sum()) <= 1e-5 * (exact**2).sum() + 1e-37


@given(x=arrays(np.float32, 70, elements=st.floats(-100, 0, width=32)))
def test_exponentials_are_near_those_of_float64(x: Floats) -> None:
    expected = np.where(x > -60, np.exp(x.astype(np.float64)), 0)
    exponentials(x)
    np.testing.assert_allclose(x, expected, rtol=3e-7)


@given(x=rows)
def test_what_is_quantised_is_half_a_step_away_at_most(x: Floats) -> None:
    coarse, fine = np.empty(len(x), np.int8), np.empty((2, len(x)), np.int8)
    step, whole = quantise(x, coarse)
    assert whole == coarse.sum(dtype=np.int32)
    assert (np.abs(coarse * step - x) <= step * 0.5001 + TINY).all()
    step, high, low = quantise_finely(x, fine[0], fine[1])
    assert (high, low) == tuple(fine.sum(1, dtype=np.int32))
    assert (np.abs((fine[0] * 256.0 + fine[1]) * step - x) <= step * 0.51 + TINY).all()
