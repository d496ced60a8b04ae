"""The validation loss: in disjoint blocks (training's own measure), as served, and as nanoGPT estimates it."""

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
    """The factor of the logits that makes the loss on `ids` least (temperature scaling, arXiv:1706.04599).

    Found by Newton's method on disjoint blocks, at most 256 of them, evenly spaced; between 0.2 and 5.

    Raises:
        DataError: fewer characters than a block and one.
    """
    block = network.config.block_size
    _check(network, ids, block + 1)
    whole = (len(ids) - 1) // block
    starts = np.linspace(0, whole - 1, min(whole, CALIBRATION_BLOCKS)).round().astype(np.int64) * block
    pairs = [
        _predict(network, ids, starts[i : i + BATCH_ROWS], block, dtype) for i in range(0, len(starts), BATCH_ROWS)
    ]
    logits = torch.cat([logits for logits, _ in pairs]).double() / network.logit_scale  # (N, V)
    targets = torch.cat([targets for _, targets in pairs])  # (N,)
    reached = logits.gather(1, targets[:, None]).mean()
    scale = 1.0
    for _ in range(NEWTON_STEPS):  # the loss is convex in the scale: logsumexp of a linear function
        p = F.softmax(scale * logits, dim=1)
        mean = (p * logits).sum(1)
        variance = (p * logits.square()).sum(1) - mean.square()
        step = (mean.mean() - reached) / variance.mean().clamp_min(1e-9)
        scale = min(max(scale - step.item(), 0.2), 5.0)
    return scale


@torch.inference_mode()
def evaluate_rolling(network: GPT, ids: Ids, dtype: torch.dtype, progress: bool = False) -> Evaluation:
    """Loss over a split read as one stream through a window that rolls on, as a server writes.

    Every character but the first is predicted once; each layer attends to the last `block_size` positions. For
    rotary networks: learned positions cannot roll.

    Raises:
        DataError: fewer than two characters.
    """
    _check(network, ids)
    block = network.config.block_size
    device = next(network.parameters()).device
    caches = [_Previous() for _ in network.blocks]
    layers: list[LayerCache] = list(caches)
    total = 0.0
    for start in tqdm(range(0, len(ids) - 1, block), disable=not progress, leave=False, unit="block"):
        length = min(block, len(ids) - 1 - start)
        inputs, targets = (part.to(device) for part in gather(ids, np.array([start]), length))
        earlier = caches[0].length
        query, key = torch.arange(length)[:, None] + earlier, torch.arange(earlier + length)
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
    """The mean over random batches of 64 blocks that start anywhere: nanoGPT's `estimate_loss`.

    Raises:
        DataError: the split is shorter than a block.
    """
    _check(network, ids)
    block = network.config.block_size
    if len(ids) <= block:
        raise DataError(f"the split has {len(ids)} characters; nanoGPT's estimate needs {block + 1} or more")
    draw = np.random.default_rng(1337)
    rounds = tqdm(range(batches), disable=not progress, leave=False, unit="batch")
    total = sum(_loss(network, ids, draw.integers(0, len(ids) - block, 64), block, dtype) for _ in rounds)
    characters = batches * 64 * block
    return Evaluation(
        total / characters, characters, f"{batches} random batches of 64 blocks, as nanoGPT estimates"
    )


def evaluate_backend(backend: Backend, ids: Ids, rolling: bool, progress: bool = False) -> Evaluation:
    """The loss by a generator's own arithmetic: in disjoint blocks, or as one stream through a rolling window.

    Raises:
        DataError: fewer than two characters.
    """
    block, chunk = backend.config.block_size, backend.prefill_chunk
    _check_length(ids, 2)
    total, last = 0.0, len(ids) - 1
    for start in tqdm(range(0, last, block), disable=not progress, leave=False, unit="block"):
        if not rolling or not start:
            backend.truncate(0)
        for first in range(start, min(start + block, last), chunk):
            end = min(first + chunk, start + block, last)
            logits = torch.from_numpy(backend.forward({0: ids[first:end].tolist()})[0])  # (n, V)
            targets = torch.from_numpy(ids[first + 1 : end + 1].astype(np.int64))
            total += F.cross_entropy(logits, targets, reduction="sum").item()
    return Evaluation(total / last, last, _rolling(block) if rolling else _disjoint(block))


class _Previous:
    """A `LayerCache` of the block before the present one."""

    def __init__(self) -> None:
        self._stored: tuple[Tensor, Tensor] | None = None

    @property
    def length(self) -> int:
        """Positions stored."""
        return 0 if self._stored is None else self._stored[0].shape[2]

    def update(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, T, D) after those of the block before, which they replace in store."""
        before, self._stored = self._stored, (key, value)
        if before is None:
            return key, value
        return torch.cat((before[0], key), dim=2), torch.cat((before[1], value), dim=2)


def _check(network: GPT, ids: Ids, least: int = 2) -> None:
    if network.training:
        raise RuntimeError("a loss needs the network in eval() mode: dropout would be read as loss")
    _check_length(ids, least)


def _check_length(ids: Ids, least: int) -> None:
    if len(ids) < least:
        raise DataError(f"the split has {len(ids)} characters; a loss needs {least} or more")


def _disjoint(block: int) -> str:
    return f"whole split in disjoint blocks of {block} characters, each seen from its own beginning"


def _rolling(block: int) -> str:
    return f"whole split as one stream, each character seen through a rolling window of {block}"


def _loss(network: GPT, ids: Ids, starts: NDArray[np.int64], length: int, dtype: torch.dtype) -> float:
    """Summed loss in nats of the rows that begin at `starts`."""
    logits, targets = _predict(network, ids, starts, length, dtype)
    return F.cross_entropy(logits, targets, reduction="sum").item()


def _predict(
    network: GPT, ids: Ids, starts: NDArray[np.int64], length: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Logits (N, V) and targets (N,) of the rows that begin at `starts`, one after another."""
    device = next(network.parameters()).device
    inputs, targets = (part.to(device) for part in gather(ids, starts, length))
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        logits = network(inputs)  # (rows, length, V)
    return logits.flatten(0, 1).float(), targets.flatten()
