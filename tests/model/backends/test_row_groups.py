"""Which group sizes are used, where a library sums rows in this way or that."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.backends.row_groups import CPU_GROUP, GPU_GROUP, stable_sizes
from model.sampling.sampler import Logits

CPU = torch.device("cpu")
CUDA = torch.device("cuda")


def in_one_order(order: NDArray[np.int64]) -> Logits:
    """Each row comes out the same wherever it is computed."""
    return order[:, None].astype(np.float32)


def by_size(order: NDArray[np.int64]) -> Logits:
    """Groups of 2 come out otherwise than larger ones."""
    return in_one_order(order) + (len(order) == 2)


def by_index(order: NDArray[np.int64]) -> Logits:
    """The last row of a group comes out otherwise than the others."""
    logits = in_one_order(order)
    logits[-1] += 0.5
    return logits


@pytest.mark.parametrize(
    ("decode", "sizes"), [(in_one_order, [2, 4, CPU_GROUP]), (by_size, [4, CPU_GROUP]), (by_index, [1])]
)
def test_only_sizes_that_change_no_bit_are_used(decode: object, sizes: list[int]) -> None:
    assert stable_sizes(decode, CPU) == sizes  # type: ignore[arg-type]


def test_a_gpu_has_one_size() -> None:
    assert stable_sizes(in_one_order, CUDA) == [GPU_GROUP]
    assert stable_sizes(by_index, CUDA) == [1]
