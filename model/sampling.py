"""From logits to one character: pure functions of logits, parameters and noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.errors import InputError

Logits = NDArray[np.float32]
ALTERNATIVES = 5


@dataclass(frozen=True)
class Sampling:
    """How a character is chosen; temperature 0 always takes the likeliest.

    Raises:
        InputError: a value is out of range; names it.
    """

    temperature: float = 0.8
    top_k: int | None = 200
    top_p: float | None = None
    min_p: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError("temperature", f"{self.temperature} is not a number from 0 up")
        if self.top_k is not None and self.top_k < 1:
            raise InputError("top_k", f"{self.top_k} leaves nothing to choose from; use 1 or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError("top_p", f"{self.top_p} is not above 0 and at most 1")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise InputError("min_p", f"{self.min_p} is not between 0 and 1")


@dataclass(frozen=True)
class Likelihood:
    """How sure the model was of one character, before temperature and filters.

    `rank` is 1 for the likeliest; `entropy` is in bits; `alternatives` are (id, probability), likeliest first.
    """

    probability: float
    rank: int
    entropy: float
    alternatives: tuple[tuple[int, float], ...]


def draw(logits: Logits, samplings: Sequence[Sampling], noise: NDArray[np.float64]) -> list[int]:
    """Of each row, the id with the highest logit / temperature + Gumbel noise among those that the filters keep.

    Args:
        logits: (n, V).
        samplings: how each row's character is chosen.
        noise: (n, V), zeros in rows of temperature 0.
    """
    temperatures = np.array([sampling.temperature or 1.0 for sampling in samplings])
    scaled = (logits.astype(np.float64) - logits.max(axis=1, keepdims=True)) / temperatures[:, None]
    for row, sampling in enumerate(samplings):
        if sampling.temperature:
            scaled[row] = _filter(scaled[row], logits[row], sampling)
    ids: list[int] = (scaled + noise).argmax(axis=1).tolist()
    return ids


def _filter(scaled: NDArray[np.float64], logits: Logits, sampling: Sampling) -> NDArray[np.float64]:
    """Scaled logits (V,) with -inf where top-k, then top-p, then min-p exclude a character."""
    if sampling.top_k is not None and sampling.top_k < len(logits):
        kth = np.partition(logits, -sampling.top_k)[-sampling.top_k]
        # by the logits themselves: scaling rounds some that differ to be equal
        scaled = np.where(logits < kth, -np.inf, scaled)
    if sampling.top_p is not None and sampling.top_p < 1:
        order = np.argsort(-scaled, kind="stable")
        probabilities = softmax(scaled)[order]
        before = np.cumsum(probabilities) - probabilities
        scaled = scaled.copy()
        scaled[order[before >= sampling.top_p]] = -np.inf
    if sampling.min_p:
        floor = scaled.max() + math.log(sampling.min_p)
        scaled = np.where(scaled < floor, -np.inf, scaled)
    return scaled


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probabilities (V,) in float64."""
    exponentials = np.exp(logits.astype(np.float64) - float(logits.max()))
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum()
    return probabilities


def likelihood(logits: Logits, chosen: int) -> Likelihood:
    """What the model itself thought of the `chosen` id: logits (V,) at temperature 1."""
    probabilities = softmax(logits)
    order = np.argsort(-probabilities, kind="stable")
    positive = probabilities[probabilities > 0]
    return Likelihood(
        probability=float(probabilities[chosen]),
        rank=int(np.flatnonzero(order == chosen)[0]) + 1,
        entropy=max(0.0, -float((positive * np.log2(positive)).sum())),
        alternatives=tuple((int(i), float(probabilities[i])) for i in order[:ALTERNATIVES]),
    )
