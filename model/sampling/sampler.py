"""From logits to one character: pure functions of logits, parameters and noise."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from model.errors import InputError

Logits = NDArray[np.float32]
ALTERNATIVES = 5  # likeliest characters that are listed with each, by default
MIN_TOP_P = 1e-30  # a number above 0 in float32 too
LN2 = math.log(2)  # nats in a bit


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
        limited = self.top_k is not None and self.top_k < vocab_size
        return self.temperature > 0 and not limited and self.top_p in (None, 1) and not self.min_p


@dataclass(frozen=True)
class Logprob:
    """How sure the model was of one character: probabilities, since the page and the API show these.

    Attributes:
        probability: the model's own, before temperature and filters.
        final: the one after them, with which the character was drawn.
        rank: 1 for the likeliest character, by the model's own probabilities.
        entropy: of the model's own probabilities, in bits.
        alternatives: (id, probability, final) of the likeliest candidates, the likeliest first. The character is
            among them only if its rank is within their number.
    """

    probability: float
    final: float
    rank: int
    entropy: float
    alternatives: tuple[tuple[int, float, float], ...]


def draw(logits: Logits, samplings: Sequence[Sampling], noise: NDArray[np.float64]) -> list[int]:
    """The id of each row with the highest logit / temperature + Gumbel noise, among those that the filters keep.

    Args:
        logits: (n, V).
        samplings: how each row's character is chosen.
        noise: (n, V); rows of temperature 0 ignore theirs.
    """
    temperatures = np.array([sampling.temperature for sampling in samplings], dtype=np.float64)
    ids = np.empty(len(logits), dtype=np.int64)
    _compiled_draw()(np.ascontiguousarray(logits), temperatures, np.ascontiguousarray(noise), ids)
    filtered = []
    for row, sampling in enumerate(samplings):
        if sampling.temperature and not sampling.keeps_all(logits.shape[1]):
            filtered.append(row)
    if filtered:
        rows = logits[filtered]
        adjusted = _adjust(_relative(rows), rows, [samplings[row] for row in filtered])
        ids[filtered] = (adjusted + noise[filtered]).argmax(axis=1)
    chosen: list[int] = ids.tolist()
    return chosen


@cache
def _compiled_draw() -> Callable[..., None]:
    """`kernels.draw`: ten times as fast as NumPy where few rows are drawn between long computations."""
    from model.jit import compile_and_call  # noqa: PLC0415
    from model.sampling import kernels  # noqa: PLC0415 - Numba takes a quarter of a second

    numbers = np.zeros((1, 1))
    ids = np.zeros(1, dtype=np.int64)
    return compile_and_call(kernels.draw, numbers.astype(np.float32), numbers[0], numbers, ids)


def compute_logprobs(
    logits: Logits, chosen: Sequence[int], samplings: Sequence[Sampling], alternatives: Sequence[int]
) -> list[Logprob]:
    """The `Logprob` of each row's `chosen` id.

    Args:
        logits: (n, V).
        chosen: an id for each row.
        samplings: how each row's character was chosen.
        alternatives: how many to list for each row, as far as the vocabulary has so many.
    """
    ids = np.asarray(chosen)
    rows = np.arange(len(ids))
    relative = _relative(logits)
    exponentials = _exponentials(relative)
    sums = exponentials.sum(axis=1, keepdims=True)  # in NumPy's order: nothing is drawn by them
    probabilities = exponentials / sums
    finals = softmax(_adjust(relative, logits, samplings))
    entropies = np.log(sums[:, 0]) - (probabilities * relative).sum(axis=1)  # nats
    order = np.argsort(-logits, axis=1, kind="stable")  # (n, V), likeliest first
    listed = order[:, : max(alternatives)]  # (n, K), of which each row takes as many as it wants

    # Whole columns become lists at once: many times as fast as a NumPy scalar for each number.
    of_chosen = probabilities[rows, ids].tolist()
    final_of_chosen = finals[rows, ids].tolist()
    ranks = ((order == ids[:, None]).argmax(axis=1) + 1).tolist()
    bits = np.maximum(entropies / LN2, 0).tolist()
    listed_ids = listed.tolist()
    of_listed = probabilities[rows[:, None], listed].tolist()
    final_of_listed = finals[rows[:, None], listed].tolist()
    result = []
    for row, count in enumerate(alternatives):
        candidates = zip(listed_ids[row][:count], of_listed[row][:count], final_of_listed[row][:count], strict=True)
        result.append(Logprob(of_chosen[row], final_of_chosen[row], ranks[row], bits[row], tuple(candidates)))
    return result


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probabilities (…, V) in float64."""
    exponentials = _exponentials(_relative(logits))
    # One after another: `sum` adds in an order of its own.
    sums = np.cumsum(exponentials, axis=-1)[..., -1:]
    probabilities: NDArray[np.float64] = exponentials / sums
    return probabilities


def _exponentials(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The exponentials of numbers up to 0: `arithmetic.exponential`, since NumPy's differ from CPU to CPU."""
    exponentials = np.array(values, order="C")
    _compiled_exponentials()(exponentials.reshape(-1))
    return exponentials


@cache
def _compiled_exponentials() -> Callable[..., None]:
    from model import arithmetic  # noqa: PLC0415
    from model.jit import compile_and_call  # noqa: PLC0415

    return compile_and_call(arithmetic.replace_by_exponentials, np.zeros(1))


def _logarithm(value: float) -> float:
    """The logarithm of a number above 0, by `arithmetic.logarithm`."""
    values = np.array([value])
    _compiled_logarithms()(values)
    return float(values[0])


@cache
def _compiled_logarithms() -> Callable[..., None]:
    from model import arithmetic  # noqa: PLC0415
    from model.jit import compile_and_call  # noqa: PLC0415

    return compile_and_call(arithmetic.replace_by_logarithms, np.ones(1))


def _relative(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Logits (…, V) in float64, less the highest of each row."""
    relative: NDArray[np.float64] = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return relative


def _adjust(relative: NDArray[np.float64], logits: Logits, samplings: Sequence[Sampling]) -> NDArray[np.float64]:
    """Relative logits (n, V) after temperature and filters, -inf where a character is left out."""
    temperatures = np.array([sampling.temperature or 1.0 for sampling in samplings])
    with np.errstate(over="ignore"):  # the lowest temperatures leave all but the highest at -inf
        scaled: NDArray[np.float64] = relative / temperatures[:, None]
    rows_of: dict[Sampling, list[int]] = {}
    for row, sampling in enumerate(samplings):
        rows_of.setdefault(sampling, []).append(row)
    for sampling, rows in rows_of.items():
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
        floor = scaled.max(axis=1, keepdims=True) + _logarithm(sampling.min_p)
        scaled = np.where(scaled < floor, -np.inf, scaled)
    return scaled
