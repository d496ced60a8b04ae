"""From logits to one character: pure functions of logits, parameters and noise."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from model.errors import InputError

Logits = NDArray[np.float32]
ALTERNATIVES = 5
MIN_TOP_P = 1e-30  # also in float32
LN2 = math.log(2)


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
        if self.top_p is not None and not 0 <= self.top_p <= 1:
            raise InputError("top_p", f"{self.top_p} is not between 0 and 1")
        if self.top_p == 0:  # the likeliest alone: it is above any such bound by itself
            object.__setattr__(self, "top_p", MIN_TOP_P)
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise InputError("min_p", f"{self.min_p} is not between 0 and 1")

    def keeps_all(self, vocab_size: int) -> bool:
        """True if every character can be drawn."""
        few = self.top_k is not None and self.top_k < vocab_size
        return self.temperature > 0 and not few and self.top_p in (None, 1) and not self.min_p


@dataclass(frozen=True)
class Likelihood:
    """How sure the model was of one character.

    `probability` is the model's own, before temperature and filters; `final` the one after them, with which it was
    drawn. `rank` is 1 for the likeliest; `entropy` is in bits, before them too. `alternatives` are
    (id, probability, final), likeliest first.
    """

    probability: float
    final: float
    rank: int
    entropy: float
    alternatives: tuple[tuple[int, float, float], ...]


def draw(logits: Logits, samplings: Sequence[Sampling], noise: NDArray[np.float64]) -> list[int]:
    """Of each row, the id with the highest logit / temperature + Gumbel noise among those that the filters keep.

    Args:
        logits: (n, V).
        samplings: how each row's character is chosen.
        noise: (n, V), of no matter in rows of temperature 0.
    """
    temperatures = np.array([sampling.temperature for sampling in samplings], dtype=np.float64)
    ids = np.empty(len(logits), dtype=np.int64)
    _compiled_draw()(np.ascontiguousarray(logits), temperatures, np.ascontiguousarray(noise), ids)
    filtered = [row for row, one in enumerate(samplings) if one.temperature and not one.keeps_all(logits.shape[1])]
    if filtered:
        rows, few = logits[filtered], [samplings[row] for row in filtered]
        ids[filtered] = (_adjust(_relative(rows), rows, few) + noise[filtered]).argmax(axis=1)
    chosen: list[int] = ids.tolist()
    return chosen


@cache
def _compiled_draw() -> Callable[..., None]:
    """Ten times as fast as NumPy where little is drawn between long computations: it takes few cache lines."""
    from model.jit import compile_and_call  # noqa: PLC0415
    from model.sampling import kernels as draw  # noqa: PLC0415 - Numba takes a quarter of a second

    one, id_ = np.zeros((1, 1)), np.zeros(1, dtype=np.int64)
    return compile_and_call(draw.draw, one.astype(np.float32), one[0], one, id_)


def likelihoods(
    logits: Logits, chosen: Sequence[int], samplings: Sequence[Sampling], alternatives: Sequence[int]
) -> list[Likelihood]:
    """What there is to tell of each row's `chosen` id.

    Args:
        logits: (n, V).
        chosen: an id for each row.
        samplings: how each row's character was chosen.
        alternatives: how many each row tells, as far as there are.
    """
    relative, rows, ids = _relative(logits), np.arange(len(chosen)), np.asarray(chosen)
    exponentials = np.exp(relative)
    sums = exponentials.sum(axis=1, keepdims=True)
    probabilities = exponentials / sums
    entropies = np.log(sums[:, 0]) - (probabilities * relative).sum(axis=1)
    finals = softmax(_adjust(relative, logits, samplings))
    order = np.argsort(-logits, axis=1, kind="stable")
    told = order[:, : max(alternatives)]
    columns = (
        probabilities[rows, ids],
        finals[rows, ids],
        (order == ids[:, None]).argmax(axis=1) + 1,
        np.maximum(entropies / LN2, 0),
        told,
        probabilities[rows[:, None], told],
        finals[rows[:, None], told],
    )
    return [
        Likelihood(p, final, rank, entropy, tuple(islice(zip(others, ps, finals, strict=True), count)))
        for count, p, final, rank, entropy, others, ps, finals in zip(
            alternatives, *(column.tolist() for column in columns), strict=True
        )
    ]


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probabilities (…, V) in float64."""
    exponentials = np.exp(_relative(logits))
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities


def _relative(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Logits (…, V) in float64, less the highest of each row."""
    relative: NDArray[np.float64] = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return relative


def _adjust(relative: NDArray[np.float64], logits: Logits, samplings: Sequence[Sampling]) -> NDArray[np.float64]:
    """Relative logits (n, V) after temperature and filters, -inf where a character is left out."""
    temperatures = np.array([sampling.temperature or 1.0 for sampling in samplings])
    with np.errstate(over="ignore"):  # the lowest temperatures leave all but the highest at -inf
        scaled: NDArray[np.float64] = relative / temperatures[:, None]
    alike: dict[Sampling, list[int]] = {}
    for row, sampling in enumerate(samplings):
        alike.setdefault(sampling, []).append(row)
    for sampling, rows in alike.items():
        if not sampling.keeps_all(logits.shape[1]):
            scaled[rows] = _filter(scaled[rows], logits[rows], sampling)
    return scaled


def _filter(scaled: NDArray[np.float64], logits: Logits, sampling: Sampling) -> NDArray[np.float64]:
    """Scaled logits (n, V) with -inf where temperature 0, top-k, then top-p, then min-p exclude a character."""
    if sampling.temperature == 0:
        likeliest = logits.argmax(axis=1, keepdims=True)
        scaled = np.where(np.arange(logits.shape[1]) == likeliest, 0.0, -np.inf)
    if sampling.top_k is not None and sampling.top_k < logits.shape[1]:
        kth = np.partition(logits, -sampling.top_k, axis=1)[:, -sampling.top_k, None]
        # by the logits themselves: scaling rounds some that differ to be equal
        scaled = np.where(logits < kth, -np.inf, scaled)
    if sampling.top_p is not None and sampling.top_p < 1:
        order = np.argsort(-scaled, axis=1, kind="stable")
        probabilities = np.take_along_axis(softmax(scaled), order, 1)
        before = np.cumsum(probabilities, axis=1) - probabilities
        kept = np.take_along_axis(scaled, order, 1)
        kept[before >= sampling.top_p] = -np.inf
        scaled = np.empty_like(scaled)
        np.put_along_axis(scaled, order, kept, 1)
    if sampling.min_p:
        floor = scaled.max(axis=1, keepdims=True) + math.log(sampling.min_p)
        scaled = np.where(scaled < floor, -np.inf, scaled)
    return scaled
