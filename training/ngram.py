"""Interpolated, modified Kneser–Ney n-gram models over token ids: baselines to compare a network with.

Chen and Goodman 1999, "An empirical study of smoothing techniques for language modeling", section 3.
Knows nothing of networks or files.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.dataset import Ids

Counts = NDArray[np.int64]
BASELINES = (1, 2, 3, 5)
MAX_COUNTED_CHARACTERS = 5_000_000  # of a text, where time and memory matter more than the last digit


@dataclass(frozen=True)
class Level:
    """All k-grams of one length: sorted keys, their counts, and per context the sum and number of its grams."""

    keys: Counts  # (G,) context number × vocabulary size + last id
    counts: Counts  # (G,) occurrences; below the highest order: how many different ids come before
    context_sum: Counts  # (contexts,)
    context_discounted: NDArray[np.float64]  # (contexts,) what discounting takes from the sum, for the lower order
    discounts: NDArray[np.float64]  # (4,) taken from a count of 0, 1, 2, and 3 or more

    def find(self, keys: Counts) -> Counts:
        """The number of each key's gram, or -1 where it never occurred."""
        numbers = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        return np.where(self.keys[numbers] == keys, numbers, -1)


class KneserNey:
    """Predicts each id from the `order - 1` before it; fitted to `ids` when made.

    Raises:
        ValueError: `ids` is shorter than `order`.
    """

    def __init__(self, ids: Ids, order: int, vocab_size: int) -> None:
        if len(ids) < order:
            raise ValueError(f"{len(ids)} ids are too few for order {order}")
        self.vocab_size = vocab_size
        text = ids.astype(np.int64)
        keys: list[Counts] = []  # per order: each distinct gram's key
        ends: list[Counts] = []  # and where it first ends in the text
        occurrences: Counts = np.zeros(0, np.int64)
        gram = np.zeros(len(text) + 1, np.int64)  # gram[i]: number of the (k-1)-gram that ends before text[i]
        grams: list[Counts] = []
        for k in range(1, order + 1):
            distinct, first, inverse, occurrences = np.unique(
                gram[k - 1 : len(text)] * vocab_size + text[k - 1 :],
                return_index=True,
                return_inverse=True,
                return_counts=True,
            )
            keys.append(distinct)
            ends.append(first + k - 1)
            gram = np.zeros(len(text) + 1, np.int64)
            gram[k:] = inverse
            grams.append(gram)
        self.levels = []
        for k in range(1, order + 1):
            counts = occurrences
            if k < order:  # how many different (k+1)-grams end in each k-gram
                counts = np.bincount(grams[k - 1][ends[k] + 1], minlength=len(keys[k - 1]))
            self.levels.append(_level(keys[k - 1], counts, vocab_size))

    def loss(self, ids: Ids) -> float:
        """The mean negative log-probability in nats of each id, given those before it in `ids`."""
        return float(-np.log(self.probabilities(ids)).mean())

    def probabilities(self, ids: Ids) -> NDArray[np.float64]:
        """The probability of each id (N,), given those before it in `ids`."""
        text = ids.astype(np.int64)
        probability = np.full(len(text), 1 / self.vocab_size)
        context = np.zeros(len(text), np.int64)  # number of the (k-1)-gram before each position, or -1
        for k, level in enumerate(self.levels, start=1):
            probability, found = self._interpolate(level, context, text, probability)
            following = np.full(len(text), -1, np.int64)
            following[k:] = found[k - 1 : -1]
            context = following
        return probability

    def distribution(self, contexts: Counts) -> NDArray[np.float64]:
        """The probability of every id (N, V) after each of `contexts` (N, L), L below the order."""
        every = np.arange(self.vocab_size)
        probability = np.full((len(contexts), self.vocab_size), 1 / self.vocab_size)
        for k, level in enumerate(self.levels[: contexts.shape[1] + 1], start=1):
            number = self._number(contexts[:, contexts.shape[1] - (k - 1) :])[:, None]  # (N, 1)
            probability, _ = self._interpolate(level, number, every, probability)
        return probability

    def _interpolate(
        self, level: Level, context: Counts, ids: Counts, lower: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], Counts]:
        """Probabilities of `ids` after contexts (numbers or -1), from the `lower` order's; their grams' numbers."""
        known = context >= 0
        found = np.where(known, level.find(context * self.vocab_size + ids), -1)
        total = np.where(known, level.context_sum[context], 0)
        count = np.where(found >= 0, level.counts[found], 0)
        share = (count - level.discounts[count.clip(max=3)]) / total.clip(min=1)
        lower_share = np.where(total > 0, level.context_discounted[context] / total.clip(min=1), 1.0)
        return share + lower_share * lower, found

    def _number(self, grams: Counts) -> Counts:
        """The numbers of grams (N, k), or -1 where one never occurred."""
        number = np.zeros(len(grams), np.int64)
        for level, ids in zip(self.levels, grams.T, strict=False):
            number = np.where(number >= 0, level.find(number * self.vocab_size + ids), -1)
        return number


def losses(train: Ids, val: Ids, vocab_size: int, orders: Iterable[int]) -> dict[int, float]:
    """The loss on `val`, in nats per id, of a model of each order that `train` is long enough for."""
    return {n: KneserNey(train, n, vocab_size).loss(val) for n in orders if n <= len(train)}


def baselines(train: Ids, val: Ids, vocab_size: int) -> dict[str, float]:
    """Losses to compare a run's validation loss with: of a uniform distribution and of n-gram models."""
    counted = losses(train[:MAX_COUNTED_CHARACTERS], val[:MAX_COUNTED_CHARACTERS], vocab_size, BASELINES)
    return {"uniform": math.log(vocab_size)} | {f"{order}-gram": loss for order, loss in counted.items()}


def _level(keys: Counts, counts: Counts, vocab_size: int) -> Level:
    contexts = keys // vocab_size
    size = int(contexts.max()) + 2  # one more, for the context at the end of the text
    discounts = _discounts(counts)
    total = np.bincount(contexts, weights=counts, minlength=size).astype(np.int64)
    taken = discounts[counts.clip(max=3)]
    discounted = np.bincount(contexts, weights=taken, minlength=size).astype(np.float64)
    return Level(keys, counts, total, discounted, discounts)


def _discounts(counts: Counts) -> NDArray[np.float64]:
    """Chen and Goodman's estimates of the discounts; a half each if there are too few counts for them."""
    ones = (counts == 1).sum()
    twos = (counts == 2).sum()
    threes = (counts == 3).sum()
    fours = (counts == 4).sum()
    if not ones or not twos or not threes:
        return np.array([0.0, 0.5, 0.5, 0.5])
    ratio = ones / (ones + 2 * twos)
    estimates = np.array(
        [1 - 2 * ratio * twos / ones, 2 - 3 * ratio * threes / twos, 3 - 4 * ratio * fours / threes]
    )
    return np.concatenate([[0.0], estimates.clip(0.05, [0.95, 1.95, 2.95])])
