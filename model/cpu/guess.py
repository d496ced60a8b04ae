"""The look-up and the draw of `Draft.guess`, compiled."""

import numpy as np
from numpy.typing import NDArray


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
    """Write a guess and its chance for each row of `noise` (n, V).

    Args:
        keys, surprise: (N,) and (N, V), as in `Draft`; `surprise` in units of `nats`.
        context: (L,) the last ids, -1 first where the text is shorter; it moves on with each guess.
        certainty: how fast the doubt in a guess shrinks with its margin, per nat.
        ids, chances: (n,), the answer.
    """
    base = surprise.shape[1] + 1
    for row in range(len(noise)):
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
            score = noise[row, i] - surprise[place, i] * nats / temperature
            if score > first:
                best, first, second = i, score, first
            elif score > second:
                second = score
        ids[row] = best
        chances[row] = 1 - 0.5 * np.exp(-certainty * (first - second) * temperature)
        for i in range(len(context) - 1):
            context[i] = context[i + 1]
        if len(context):
            context[-1] = best
