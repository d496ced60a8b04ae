"""The look-up and the draw of `Draft.guess`, compiled."""

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(nogil=True, error_model="numpy")
def guess_one(
    keys: NDArray[np.int64],
    surprise: NDArray[np.uint8],
    context: NDArray[np.int64],
    noise: NDArray[np.float64],
    nats: float,
    temperature: float,
    certainty: float,
) -> tuple[int, float]:
    """A guess and its chance to be right.

    Args:
        keys, surprise: (N,) and (N, V), as in `Draft`; `surprise` in units of `nats`.
        context: (L,) the last ids, -1 first where the text is shorter; the guess is appended to it.
        noise: (V,) of the place; zeros at temperature 0, which counts as 1.
        certainty: how fast the doubt in a guess shrinks with its margin, per nat.
    """
    base, scale = surprise.shape[1] + 1, temperature if temperature > 0 else 1.0
    place = 0
    for start in range(len(context)):  # the longest context that the table has
        key = 0
        for i in range(start, len(context)):
            key = key * base + context[i] + 1
        found = int(np.searchsorted(keys, key))
        if context[start] >= 0 and found < len(keys) and keys[found] == key:
            place = found
            break
    best, first, second = 0, -np.inf, -np.inf
    for i in range(base - 1):
        score = noise[i] - surprise[place, i] * nats / scale
        if score > first:
            best, first, second = i, score, first
        elif score > second:
            second = score
    for i in range(len(context) - 1):
        context[i] = context[i + 1]
    if len(context):
        context[-1] = best
    return best, 1 - 0.5 * np.exp(-certainty * (first - second) * scale)


def guess(
    keys: NDArray[np.int64],
    surprise: NDArray[np.uint8],
    context: NDArray[np.int64],
    noise: NDArray[np.float64],
    nats: float,
    temperature: float,
    certainty: float,
    ids: NDArray[np.int64],
    chances: NDArray[np.float64],
) -> None:
    """Write into `ids` and `chances` (n,) a guess and its chance for each row of `noise` (n, V)."""
    for row in range(len(noise)):
        ids[row], chances[row] = guess_one(keys, surprise, context, noise[row], nats, temperature, certainty)
