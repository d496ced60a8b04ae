"""The look-up and the draw of `Draft.propose`, compiled."""

import numpy as np
from numpy.typing import NDArray

from model.jit import kernel_jit


@kernel_jit(allocates=True)
def propose_one(
    keys: NDArray[np.int64],
    surprisal: NDArray[np.uint8],
    context: NDArray[np.int64],
    noise: NDArray[np.float64],
    nats_per_unit: float,
    temperature: float,
    margin_slope: float,
) -> tuple[int, float]:
    """Return a draft token, and the probability that the network draws the same.

    The probability is 1/2 where two candidates are level, and it approaches 1 exponentially with their margin.

    Args:
        keys, surprisal: (N,) and (N, V), as in `Draft`; `surprisal` in units of `nats_per_unit`.
        context: (L,) the last ids, -1 first where the text is shorter; the draft token is appended to it.
        noise: (V,) of the token's position; zeros at temperature 0, which counts as 1.
        margin_slope: how fast the doubt in a draft token shrinks with its margin, per nat.
    """
    vocab_size = surprisal.shape[1]
    scale = temperature if temperature > 0 else 1.0
    row = 0
    for start in range(len(context)):  # the longest context that the table has
        key = 0
        for i in range(start, len(context)):
            key = key * (vocab_size + 1) + context[i] + 1
        found = int(np.searchsorted(keys, key))
        if context[start] >= 0 and found < len(keys) and keys[found] == key:
            row = found
            break
    best = 0
    highest = -np.inf
    second = -np.inf
    for i in range(vocab_size):
        score = noise[i] - surprisal[row, i] * nats_per_unit / scale
        if score > highest:
            best = i
            second = highest
            highest = score
        elif score > second:
            second = score
    for i in range(len(context) - 1):
        context[i] = context[i + 1]
    if len(context):
        context[-1] = best
    return best, 1 - 0.5 * np.exp(-margin_slope * (highest - second) * scale)


def propose(
    keys: NDArray[np.int64],
    surprisal: NDArray[np.uint8],
    context: NDArray[np.int64],
    noise: NDArray[np.float64],
    nats_per_unit: float,
    temperature: float,
    margin_slope: float,
    ids: NDArray[np.int64],
    probabilities: NDArray[np.float64],
) -> None:
    """Write into `ids` and `probabilities` (n,) a draft token for each row of `noise` (n, V)."""
    for row in range(len(noise)):
        ids[row], probabilities[row] = propose_one(
            keys, surprisal, context, noise[row], nats_per_unit, temperature, margin_slope
        )
