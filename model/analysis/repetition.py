"""How much a text repeats itself: distinct n-grams of its words, and loops."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.analysis.overlap import code_points

MIN_REPEATED = 16  # characters that a loop says again, at least; a shorter one is a figure of speech
MAX_DISTANCE = 2000  # characters back; what comes again later is a refrain
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd: 2**64 by the golden ratio (Fibonacci hashing)


@dataclass(frozen=True)
class Loop:
    """Characters from `start` up to `end` that say the first `period` of them again and again."""

    start: int
    end: int
    period: int

    @property
    def count(self) -> float:
        """How many times they are said, the first included; not whole if the last is cut off."""
        return (self.end - self.start) / self.period


def distinct(words: Sequence[str], n: int) -> float | None:
    """How many of a text's word n-grams are different, as a share of all (Li et al. 2016, arXiv:1510.03055).

    None for a text of fewer than `n` words.
    """
    grams = list(zip(*(words[i:] for i in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else None


def find_loops(text: str) -> list[Loop]:
    """Passages that come again at once, whole and 16 characters or more, in their order; none overlaps another."""
    fingerprints = _fingerprints(code_points(text))
    places = np.argsort(fingerprints, kind="stable")
    same = fingerprints[places[1:]] == fingerprints[places[:-1]]
    back = np.zeros(len(fingerprints), np.int64)  # to the last place where the next 16 characters stood; or 0
    back[places[1:][same]] = (places[1:] - places[:-1])[same]
    back[back > MAX_DISTANCE] = 0
    edges = np.flatnonzero(np.diff(back, prepend=0, append=0))
    loops: list[Loop] = []
    for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        period, end = int(back[first]), last - 1 + MIN_REPEATED
        start = first - period
        if period and end - first >= period and (not loops or start >= loops[-1].end):
            loops.append(Loop(start, end, period))
    return loops


def _fingerprints(points: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """(N - 15,) Of the 16 characters from each place on, by doubling: 1, 2, 4, 8, 16."""
    found, factor, length = points.astype(np.uint64) + np.uint64(1), FACTOR, 1
    while length < MIN_REPEATED:
        found = found[:-length] * factor + found[length:]
        with np.errstate(over="ignore"):
            factor, length = factor * factor, 2 * length
    return found
