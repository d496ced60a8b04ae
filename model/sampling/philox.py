"""The random generator of `model.sampling.noise`, compiled."""

import numpy as np
from numpy.typing import NDArray

_LOW, _HIGH = np.uint64(0xFFFFFFFF), np.uint64(32)
_FIRST, _SECOND = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_LEFT_STEP, _RIGHT_STEP = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


def philox4x32(counters: NDArray[np.uint64], left: np.uint64, right: np.uint64) -> None:
    """Philox4x32-10 of each counter (4, N) under the key of two words, in place."""
    for i in range(counters.shape[1]):
        a, b, c, d = counters[0, i], counters[1, i], counters[2, i], counters[3, i]
        left_key, right_key = left, right
        for _ in range(10):
            first, second = a * _FIRST, c * _SECOND
            a, b, c, d = (
                (second >> _HIGH) ^ b ^ left_key,
                second & _LOW,
                (first >> _HIGH) ^ d ^ right_key,
                first & _LOW,
            )
            left_key, right_key = (left_key + _LEFT_STEP) & _LOW, (right_key + _RIGHT_STEP) & _LOW
        counters[0, i], counters[1, i], counters[2, i], counters[3, i] = a, b, c, d
