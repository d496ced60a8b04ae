"""The draw of `sampling.draw` where every character can come, compiled."""

import numpy as np
from numpy.typing import NDArray


def draw(
    logits: NDArray[np.float32],
    temperatures: NDArray[np.float64],
    noise: NDArray[np.float64],
    ids: NDArray[np.int64],
) -> None:
    """Write each row's id with the highest logit / temperature + noise; at temperature 0 the highest logit's.

    Args:
        logits, noise: (n, V); only differences between a row's logits count.
        temperatures, ids: (n,).
    """
    for row in range(len(logits)):
        highest, likeliest = logits[row, 0], 0
        for i in range(1, logits.shape[1]):
            if logits[row, i] > highest:
                highest, likeliest = logits[row, i], i
        ids[row] = likeliest
        if temperatures[row] > 0:
            best = -np.inf
            for i in range(logits.shape[1]):
                score = (np.float64(logits[row, i]) - np.float64(highest)) / temperatures[row] + noise[row, i]
                if score > best:
                    ids[row], best = i, score
