"""How many rows `EagerBackend` computes together, so that a row's bits depend on nothing but the row.

A matrix product's rounding depends on its shape, so rows are computed in groups of a constant size, full or not.
With most libraries the kernel is chosen by the shape alone, and each row of a group is summed in the same order.
With some (OpenBLAS with AVX2) the order depends on the row's index in the group too, and with some (MKL without
vectors) smaller groups are summed otherwise. Which holds is not known beforehand, so it is measured on the machine
that runs. Knows nothing of caches or of networks.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from model.sampling.sampler import Logits

CPU_GROUP = 8
GPU_GROUP = 32
SMALLER_CPU_GROUPS = (2, 4)


def max_group(device: torch.device) -> int:
    """Rows of the largest group on this device."""
    return CPU_GROUP if device.type == "cpu" else GPU_GROUP


def stable_sizes(decode: Callable[[NDArray[np.int64]], Logits], device: torch.device) -> list[int]:
    """Group sizes, ascending, in which a row's bits depend neither on the size nor on its index in the group.

    Those are the largest group and, on a CPU, smaller ones that give the same bits; or 1 alone, if rows of the
    largest group come out otherwise in another order.

    Args:
        decode: the logits (n, V) of n of `max_group` different rows, computed in the order of their numbers (n,).
    """
    group = max_group(device)
    order = np.arange(group)
    expected = decode(order)
    sizes = []
    if device.type == "cpu":
        for size in SMALLER_CPU_GROUPS:
            if np.array_equal(decode(order[:size]), expected[:size]):
                sizes.append(size)
    rotated = np.roll(order, -1)  # compares each index in the group with the next, and so all with each other
    if not np.array_equal(decode(rotated), expected[rotated]):
        return [1]
    return [*sizes, group]
