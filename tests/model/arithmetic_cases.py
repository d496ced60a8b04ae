"""The functions of `model/arithmetic.py`, compiled, and numbers to try them with, hard places among them."""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from model import arithmetic
from model.config import GPTConfig

_compiled: Any = numba.njit(error_model="numpy")
exponential = _compiled(arithmetic.exponential)
logarithm = _compiled(arithmetic.logarithm)
sine_and_cosine = _compiled(arithmetic.sine_and_cosine)

_RANDOM = np.random.default_rng(0)
_WORDS = np.concatenate(
    (
        np.arange(50),
        2**32 - 1 - np.arange(50),
        2**31 + np.arange(-25, 25),
        _RANDOM.integers(0, 2**32, 800),
    )
)
_UNIFORM = (_WORDS + 0.5) / 2.0**32
_NEAR_ROOT_HALF = np.array([0x3FE6A09E_00000000 + i for i in (-2, -1, 0, 1, 2)], dtype=np.int64).view(np.float64)


def _near_multiples() -> NDArray[np.float64]:
    """Doubles beside multiples of π/2, whose sines or cosines are small."""
    multiples = np.concatenate((np.arange(1, 200), _RANDOM.integers(200, 2**26, 400))) * (np.pi / 2)
    return np.concatenate((multiples, np.nextafter(multiples, 0), np.nextafter(multiples, np.inf)))


def _angles_of_positions() -> NDArray[np.float64]:
    """Positions times frequencies: the first window, and places up to the longest text."""
    positions = np.concatenate((np.arange(0, 300, 7), _RANDOM.integers(0, 10**8, 60)))
    frequencies = GPTConfig(65, n_head=1, n_embd=32, positions="rotary").rotary_frequencies
    angles: NDArray[np.float64] = np.outer(positions.astype(np.float64), frequencies).reshape(-1)
    return angles


# Uniform numbers, -ln of them (written as their own logarithms' arguments), and the smallest `min_p`.
LOGARITHMS = np.concatenate(
    (
        _UNIFORM,
        _RANDOM.uniform(1e-10, 23, 500),
        10.0 ** _RANDOM.uniform(-323, 300, 300),
        _NEAR_ROOT_HALF,
        np.array([5e-324, 2.0**-1022, 1.0, 2.0, 0.5, np.nextafter(1, 0), np.nextafter(1, 2)]),
    )
)
EXPONENTS = np.concatenate(
    (
        _RANDOM.uniform(-708, 0, 700),
        _RANDOM.uniform(-1, 0, 500),
        -(10.0 ** _RANDOM.uniform(-20, 0, 200)),
        np.arange(-40, 1) * np.log(2) / 2,
        _RANDOM.uniform(0, 709, 100),
        np.array([0.0, -707.9999, 709.0]),
    )
)
ANGLES = np.concatenate((_angles_of_positions(), _near_multiples(), -_RANDOM.uniform(0, 100, 100)))
