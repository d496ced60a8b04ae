"""How much a text repeats itself: distinct n-grams of its words, and loops."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from model.analysis.overlap import code_points

MIN_REPEATED = 16  # characters that a loop repeats; a shorter repetition is a figure of speech
MAX_PERIOD = 2000  # characters; what comes again later is a refrain
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd: 2**64 by the golden ratio (Fibonacci hashing)


@dataclass(frozen=True)
class Loop:
    """Characters from `start` up to `end` that repeat the first `period` of them."""

    start: int
    end: int
    period: int

    @property
    def count(self) -> float:
        """How many times they stand there, the first included; not a whole number if the last is cut off."""
        return (self.end - self.start) / self.period


def distinct(words: Sequence[str], n: int) -> float | None:
    """The number of different word n-grams of a text over the number of all (Li et al. 2016, arXiv:1510.03055).

    None for a text of fewer than `n` words.
    """
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def find_loops(text: str) -> list[Loop]:
    """Passages of 16 characters or more that are repeated at once and whole, in their order, without overlaps.

    A stretch in which each position's next 16 characters stood last at the same distance before is a loop with that
    distance as its period.
    """
    fingerprints = _fingerprints(code_points(text))
    by_fingerprint = np.argsort(fingerprints, kind="stable")  # positions; equal fingerprints in the text's order
    earlier = by_fingerprint[:-1]
    later = by_fingerprint[1:]
    is_same = fingerprints[later] == fingerprints[earlier]
    distances = np.zeros(len(fingerprints), np.int64)  # back to where the next 16 characters stood last; or 0
    distances[later[is_same]] = (later - earlier)[is_same]
    distances[distances > MAX_PERIOD] = 0
    edges = np.flatnonzero(np.diff(distances, prepend=0, append=0))
    loops: list[Loop] = []
    for first, last in pairwise(edges.tolist()):
        period = int(distances[first])
        start = first - period
        end = last - 1 + MIN_REPEATED
        if period and end - first >= period and (not loops or start >= loops[-1].end):
            loops.append(Loop(start, end, period))
    return loops


def _fingerprints(points: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Fingerprints of the 16 characters from each position on (N - 15,), by doubling: of 1, 2, 4, 8, 16."""
    found = points.astype(np.uint64) + np.uint64(1)
    factor = FACTOR
    length = 1
    while length < MIN_REPEATED:
        found = found[:-length] * factor + found[length:]
        with np.errstate(over="ignore"):
            factor = factor * factor
        length *= 2
    return found
