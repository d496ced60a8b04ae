"""Weights as whole numbers of a byte: each output channel of a product has a scale.

Knows nothing of how a product is computed from them.
"""

import numpy as np
from numpy.typing import NDArray


def quantise_channels(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return a matrix (N, K) as whole numbers from -127 to 127, and their scales (N,).

    A channel's scale is its largest magnitude / 127.
    """
    scales = np.abs(matrix).max(axis=1) / np.float32(127)
    whole_numbers = np.rint(matrix / np.maximum(scales, np.float32(1e-30))[:, None]).astype(np.int8)
    return whole_numbers, scales
