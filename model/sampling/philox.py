"""The random generator of `model.sampling.noise`, compiled."""

import numpy as np
from numpy.typing import NDArray

# The constants of Philox4x32-10: multipliers of the words, and what each key grows by in a round.
_MULTIPLIER_A = np.uint64(0xD2511F53)
_MULTIPLIER_C = np.uint64(0xCD9E8D57)
_KEY_STEP_LEFT = np.uint64(0x9E3779B9)
_KEY_STEP_RIGHT = np.uint64(0xBB67AE85)
_ROUNDS = 10

_LOW_WORD = np.uint64(0xFFFFFFFF)  # of a product of 64 bits
_WORD_BITS = np.uint64(32)


def philox4x32(counters: NDArray[np.uint64], left: np.uint64, right: np.uint64) -> None:
    """Replace each counter (4, N), words below 2³², by its Philox4x32-10 under the key of two such words.

    Words are held in uint64, so that the product of two fits into one.
    """
    for i in range(counters.shape[1]):
        a = counters[0, i]
        b = counters[1, i]
        c = counters[2, i]
        d = counters[3, i]
        left_key = left
        right_key = right
        for _ in range(_ROUNDS):
            product_a = a * _MULTIPLIER_A
            product_c = c * _MULTIPLIER_C
            a = (product_c >> _WORD_BITS) ^ b ^ left_key
            b = product_c & _LOW_WORD
            c = (product_a >> _WORD_BITS) ^ d ^ right_key
            d = product_a & _LOW_WORD
            left_key = (left_key + _KEY_STEP_LEFT) & _LOW_WORD
            right_key = (right_key + _KEY_STEP_RIGHT) & _LOW_WORD
        counters[0, i] = a
        counters[1, i] = b
        counters[2, i] = c
        counters[3, i] = d
