"""The validation loss: in disjoint blocks (training's own measure), through a rolling window as the server writes,
and as nanoGPT estimates it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from model.backends.base import Backend
from model.errors import DataError
from model.network import GPT, LayerCache
from training.dataset import Ids, gather

BATCH_ROWS = 32
CALIBRATION_BLOCKS = 256
NEWTON_STEPS = 10
MIN_LOGIT_SCALE = 0.2
MAX_LOGIT_SCALE = 5.0
NANOGPT_ROWS = 64  # of its batches
NANOGPT_SEED = 1337


@dataclass(frozen=True)
class Evaluation:
    """A loss and how it was computed."""

    loss: float  # mean, in nats per character
    characters: int  # how many were predicted
    method: str


@torch.inference_mode()
def evaluate(
    network: GPT, ids: Ids, dtype: torch.dtype, max_blocks: int | None = None, progress: bool = False
) -> Evaluation:
    """The loss over a split in disjoint blocks, each predicted from its own beginning.

    Every character but the first is predicted once, those of a shorter last block too. With `max_blocks`, only that
    many whole blocks are read, evenly spaced, if the split has more.

    Raises:
        DataError: fewer than two characters.
    """
    _check(network, ids)
    block = network.config.block_size
    whole = (len(ids) - 1) // block
    starts = np.arange(whole) * block
    method = _disjoint(block)
    if max_blocks is not None and whole > max_blocks:
        starts = starts[np.linspace(0, whole - 1, max_blocks).round().astype(np.int64)]
        method = f"{max_blocks} evenly spaced blocks of {block} characters, each seen from its own beginning"
        rest = 0
    else:
        rest = (len(ids) - 1) % block
    batches = tqdm(range(0, len(starts), BATCH_ROWS), disable=not progress, leave=False, unit="batch")
    total = sum(_loss(network, ids, starts[i : i + BATCH_ROWS], block, dtype) for i in batches)
    if rest:
        total += _loss(network, ids, np.array([whole * block]), rest, dtype)
    characters = len(starts) * block + rest
    return Evaluation(total / characters, characters, method)


@torch.inference_mode()
def fit_logit_scale(network: GPT, ids: Ids, dtype: torch.dtype) -> float:
    """The factor of the logits that minimises the loss on `ids` (temperature scaling, arXiv:1706.04599).

    Found by Newton's method on disjoint blocks, at most 256 of them, evenly spaced; between 0.2 and 5.

    Raises:
        DataError: `ids` are no more than a block.
    """
    block = network.config.block_size
    _check(network, ids, block + 1)
    whole = (len(ids) - 1) // block
    starts = np.linspace(0, whole - 1, min(whole, CALIBRATION_BLOCKS)).round().astype(np.int64) * block
    logit_parts: list[Tensor] = []
    target_parts: list[Tensor] = []
    for i in range(0, len(starts), BATCH_ROWS):
        part_logits, part_targets = _predict(network, ids, starts[i : i + BATCH_ROWS], block, dtype)
        logit_parts.append(part_logits)
        target_parts.append(part_targets)
    logits = torch.cat(logit_parts).double() / network.logit_scale  # (N, V)
    targets = torch.cat(target_parts)  # (N,)
    mean_target_logit = logits.gather(1, targets[:, None]).mean()
    scale = 1.0
    for _ in range(NEWTON_STEPS):  # the loss is convex in the scale: logsumexp of a linear function
        probabilities = F.softmax(scale * logits, dim=1)  # (N, V)
        mean = (probabilities * logits).sum(1)  # (N,)
        variance = (probabilities * logits.square()).sum(1) - mean.square()
        gradient = mean.mean() - mean_target_logit
        step = gradient / variance.mean().clamp_min(1e-9)
        scale = min(max(scale - step.item(), MIN_LOGIT_SCALE), MAX_LOGIT_SCALE)
    return scale


@torch.inference_mode()
def evaluate_rolling(network: GPT, ids: Ids, dtype: torch.dtype, progress: bool = False) -> Evaluation:
    """The loss over a split read as one text through a rolling window, as a server writes.

    Every character but the first is predicted once; each layer attends to the last `block_size` positions. Only for
    rotary networks: learned positions cannot roll.

    Raises:
        DataError: fewer than two characters.
    """
    _check(network, ids)
    block = network.config.block_size
    device = next(network.parameters()).device
    caches = [_PreviousBlockCache() for _ in network.blocks]
    layers: list[LayerCache] = list(caches)
    total = 0.0
    for start in tqdm(range(0, len(ids) - 1, block), disable=not progress, leave=False, unit="block"):
        length = min(block, len(ids) - 1 - start)
        inputs, targets = gather(ids, np.array([start]), length)
        inputs = inputs.to(device)
        targets = targets.to(device)
        cached = caches[0].length
        query = torch.arange(length)[:, None] + cached  # (T, 1)
        key = torch.arange(cached + length)  # (W,)
        mask = (key <= query) & (key > query - block)  # (T, W)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            positions = torch.arange(start, start + length)
            logits = network(inputs, positions, mask[None, None].to(device), layers)
        total += F.cross_entropy(logits[0].float(), targets[0], reduction="sum").item()
    return Evaluation(total / (len(ids) - 1), len(ids) - 1, _rolling(block))


@torch.inference_mode()
def estimate_as_nanogpt(
    network: GPT, ids: Ids, dtype: torch.dtype, batches: int, progress: bool = False
) -> Evaluation:
    """The mean loss over random batches of 64 blocks that start anywhere, as nanoGPT's `estimate_loss` computes it.

    Raises:
        DataError: the split is shorter than a block.
    """
    _check(network, ids)
    block = network.config.block_size
    if len(ids) <= block:
        raise DataError(f"the split has {len(ids)} characters; nanoGPT's estimate needs {block + 1} or more")
    random = np.random.default_rng(NANOGPT_SEED)
    total = 0.0
    for _ in tqdm(range(batches), disable=not progress, leave=False, unit="batch"):
        starts = random.integers(0, len(ids) - block, NANOGPT_ROWS)
        total += _loss(network, ids, starts, block, dtype)
    characters = batches * NANOGPT_ROWS * block
    method = f"{batches} random batches of {NANOGPT_ROWS} blocks, as nanoGPT estimates"
    return Evaluation(total / characters, characters, method)


def evaluate_backend(backend: Backend, ids: Ids, rolling: bool, progress: bool = False) -> Evaluation:
    """The loss by a generator's own arithmetic: in disjoint blocks, or as one text through a rolling window.

    Raises:
        DataError: fewer than two characters.
    """
    block = backend.config.block_size
    chunk = backend.prefill_chunk
    _check_length(ids, 2)
    total = 0.0
    last = len(ids) - 1
    for start in tqdm(range(0, last, block), disable=not progress, leave=False, unit="block"):
        if not rolling or not start:
            backend.truncate(0)
        for first in range(start, min(start + block, last), chunk):
            end = min(first + chunk, start + block, last)
            logits = torch.from_numpy(backend.forward({0: ids[first:end].tolist()})[0])  # (n, V)
            targets = torch.from_numpy(ids[first + 1 : end + 1].astype(np.int64))
            total += F.cross_entropy(logits, targets, reduction="sum").item()
    return Evaluation(total / last, last, _rolling(block) if rolling else _disjoint(block))


class _PreviousBlockCache:
    """A `LayerCache` that holds the keys and values of the previous block."""

    def __init__(self) -> None:
        self._key: Tensor | None = None
        self._value: Tensor | None = None

    @property
    def length(self) -> int:
        """The number of positions it holds."""
        return 0 if self._key is None else self._key.shape[2]

    def update(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Replace the cached keys and values by these (B, H, T, D); return the previous and these, joined."""
        previous_key = self._key
        previous_value = self._value
        self._key = key
        self._value = value
        if previous_key is None or previous_value is None:
            return key, value
        return torch.cat((previous_key, key), dim=2), torch.cat((previous_value, value), dim=2)


def _check(network: GPT, ids: Ids, min_length: int = 2) -> None:
    if network.training:
        raise RuntimeError("a loss needs the network in eval() mode: dropout would be read as loss")
    _check_length(ids, min_length)


def _check_length(ids: Ids, min_length: int) -> None:
    if len(ids) < min_length:
        raise DataError(f"the split has {len(ids)} characters; a loss needs {min_length} or more")


def _disjoint(block: int) -> str:
    return f"whole split in disjoint blocks of {block} characters, each seen from its own beginning"


def _rolling(block: int) -> str:
    return f"whole split as one stream, each character seen through a rolling window of {block}"


def _loss(network: GPT, ids: Ids, starts: NDArray[np.int64], length: int, dtype: torch.dtype) -> float:
    """The summed loss in nats of the rows that begin at `starts`."""
    logits, targets = _predict(network, ids, starts, length, dtype)
    return F.cross_entropy(logits, targets, reduction="sum").item()


def _predict(
    network: GPT, ids: Ids, starts: NDArray[np.int64], length: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Logits (N, V) and targets (N,) of the rows that begin at `starts`, one after another."""
    device = next(network.parameters()).device
    inputs, targets = gather(ids, starts, length)
    inputs = inputs.to(device)
    targets = targets.to(device)
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        logits = network(inputs)  # (rows, length, V)
    return logits.flatten(0, 1).float(), targets.flatten()
