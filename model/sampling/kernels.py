"""The draw of `sampler.draw` where no filter excludes a character, compiled."""

import numpy as np
from numpy.typing import NDArray

from model.jit import kernel_jit


@kernel_jit(allocates=True)
def draw_one(logits: NDArray[np.float32], temperature: float, noise: NDArray[np.float64]) -> int:
    """Return the id with the highest logit / temperature + noise, or at temperature 0 with the highest logit.

    `logits` and `noise` are (V,). Of equal scores the lowest id wins, as in `numpy.argmax`.
    """
    chosen = 0
    highest = logits[0]
    for i in range(1, len(logits)):
        if logits[i] > highest:
            highest = logits[i]
            chosen = i
    if temperature > 0:
        best = -np.inf
        for i in range(len(logits)):
            score = (np.float64(logits[i]) - np.float64(highest)) / temperature + noise[i]
            if score > best:
                best = score
                chosen = i
    return chosen


def draw(
    logits: NDArray[np.float32],
    temperatures: NDArray[np.float64],
    noise: NDArray[np.float64],
    ids: NDArray[np.int64],
) -> None:
    """Write each row's id into `ids` (n,); `logits` and `noise` are (n, V), `temperatures` (n,)."""
    for row in range(len(logits)):
        ids[row] = draw_one(logits[row], temperatures[row], noise[row])
