"""The validation loss: one method, used during training and by `training.evaluate`."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from tqdm import tqdm

from model.errors import DataError
from model.network import GPT
from training.dataset import Ids, gather

ROWS = 32


@dataclass(frozen=True)
class Evaluation:
    """Mean loss in nats per character over `characters` predictions, and how it was computed."""

    loss: float
    characters: int
    method: str


@torch.inference_mode()
def evaluate(
    network: GPT, ids: Ids, dtype: torch.dtype, max_blocks: int | None = None, progress: bool = False
) -> Evaluation:
    """Loss over a split cut into disjoint blocks, each predicted from its own beginning.

    Every character but the first is predicted once; a shorter last block counts too. With `max_blocks`, that
    many whole blocks, evenly spaced, if the split has more.

    Raises:
        DataError: fewer than two characters.
    """
    if network.training:
        raise RuntimeError("evaluate() needs the network in eval() mode: dropout would be read as loss")
    if len(ids) < 2:
        raise DataError(f"the split has {len(ids)} characters; a loss needs 2 or more")
    block = network.config.block_size
    whole = (len(ids) - 1) // block
    starts = np.arange(whole) * block
    method = f"whole split in disjoint blocks of {block} characters, each seen from its own beginning"
    if max_blocks is not None and whole > max_blocks:
        starts = starts[np.linspace(0, whole - 1, max_blocks).round().astype(np.int64)]
        method = f"{max_blocks} evenly spaced blocks of {block} characters, each seen from its own beginning"
        rest = 0
    else:
        rest = (len(ids) - 1) % block
    batches = tqdm(range(0, len(starts), ROWS), disable=not progress, leave=False, unit="batch")
    total = sum(_loss(network, ids, starts[i : i + ROWS], block, dtype) for i in batches)
    if rest:
        total += _loss(network, ids, np.array([whole * block]), rest, dtype)
    characters = len(starts) * block + rest
    return Evaluation(total / characters, characters, method)


def _loss(network: GPT, ids: Ids, starts: NDArray[np.int64], length: int, dtype: torch.dtype) -> float:
    """Summed loss in nats of the rows that begin at `starts`."""
    device = next(network.parameters()).device
    inputs, targets = (part.to(device) for part in gather(ids, starts, length))
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        logits = network(inputs)  # (rows, length, V)
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum").item()
