"""The training text itself, where it is given: exact lengths of copied runs, and their positions in it."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model.analysis.overlap import Lengths, code_points


class Source:
    """A text that others may have been copied from, with a suffix array to search it (Manber and Myers 1990)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._points = code_points(text)

    def find(self, passage: str) -> int | None:
        """The first position at which `passage` stands, in characters; None if it does not."""
        position = self.text.find(passage)
        return position if position >= 0 else None

    def lengths(self, text: str) -> Lengths:
        """For each character, the length of the longest run that ends there and stands in this text (N,)."""
        points = code_points(text)
        positions = np.arange(len(points))
        ends = positions + self._matches(points)  # ascend: a match that begins later ends no earlier
        first = np.searchsorted(ends, positions, side="right")  # the first match that includes this position
        lengths: Lengths = np.maximum(0, positions - first + 1).astype(np.int32)
        return lengths

    def _matches(self, points: NDArray[np.uint32]) -> NDArray[np.int64]:
        """The length of the longest run that begins at each position (N,), in O(N log N) steps.

        Blocks of 1, 2, 4, … characters have ranks by which they are compared (Karp, Miller and Rosenberg 1972). A
        match is the concatenation of some of them, the longest first: for all positions at once, the interval of
        suffixes that begin with the match so far is narrowed to those that go on with the text's next block.
        """
        blocks = self._rank_blocks(points)
        matched = np.zeros(len(points), np.int64)
        low = np.zeros(len(points), np.int64)
        high = np.full(len(points), len(self._points), np.int64)
        for level in reversed(range(len(blocks))):
            starts = np.flatnonzero(np.arange(len(points)) + matched < len(points))
            wanted = blocks[level][starts + matched[starts]]
            starts = starts[wanted >= 0]
            wanted = wanted[wanted >= 0]
            first, last = self._narrow(level, low[starts], high[starts], matched[starts], wanted)
            found = first < last
            starts = starts[found]
            low[starts] = first[found]
            high[starts] = last[found]
            matched[starts] += 1 << level
        return matched

    def _rank_blocks(self, points: NDArray[np.uint32]) -> list[NDArray[np.int64]]:
        """The ranks of another text's blocks among this text's.

        Returns:
            For each level, up to the highest with a block that this text has: the rank of the block of 2**level
            characters at each position (N,), or -1 where this text has no such block.
        """
        if not len(self._points) or not len(points):
            return []
        characters = np.unique(self._points)
        ranks = np.searchsorted(characters, points).clip(max=len(characters) - 1)
        ranks = np.where(characters[ranks] == points, ranks, -1)
        blocks = []
        while (ranks >= 0).any():
            blocks.append(ranks)
            level = len(blocks) - 1
            length = 1 << level
            following = np.full(len(ranks), -1, np.int64)
            following[:-length] = ranks[length:]
            starts = np.flatnonzero((ranks >= 0) & (following >= 0))
            low = np.searchsorted(self._sorted_ranks(level), ranks[starts], side="left")
            high = np.searchsorted(self._sorted_ranks(level), ranks[starts], side="right")
            depth = np.full(len(starts), length, np.int64)
            low, high = self._narrow(level, low, high, depth, following[starts])
            found = low < high
            ranks = np.full(len(points), -1, np.int64)
            ranks[starts[found]] = self._ranks(level + 1)[self._suffixes[low[found]]]
        return blocks

    def _narrow(
        self,
        level: int,
        low: NDArray[np.int64],
        high: NDArray[np.int64],
        depth: NDArray[np.int64],
        wanted: NDArray[np.int64],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Within each interval of suffixes, those that have the block of rank `wanted` at `depth`."""
        return self._bound(level, low, high, depth, wanted), self._bound(level, low, high, depth, wanted + 1)

    def _bound(
        self,
        level: int,
        low: NDArray[np.int64],
        high: NDArray[np.int64],
        depth: NDArray[np.int64],
        wanted: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """The first suffix of each interval whose block at `depth` ranks `wanted` or higher, by binary search."""
        ranks = self._ranks(level)
        end = len(self._points)
        while (low < high).any():
            middle = (low + high) // 2
            positions = self._suffixes[middle.clip(max=end - 1)] + depth
            found = np.where(positions < end, ranks[positions.clip(max=end - 1)], -1)
            below = (found < wanted) & (low < high)
            high = np.where(below | (low >= high), high, middle)
            low = np.where(below, middle + 1, low)
        return low

    def _ranks(self, level: int) -> NDArray[np.int64]:
        """The rank of the block of 2**level characters at each position; from some level on, all are different."""
        return self._levels[min(level, len(self._levels) - 1)]

    def _sorted_ranks(self, level: int) -> NDArray[np.int64]:
        """The same in the order of the suffixes, in which ranks ascend."""
        return self._ranks(level)[self._suffixes]

    @cached_property
    def _levels(self) -> list[NDArray[np.int64]]:
        """The ranks of blocks of 1, 2, 4, … characters, until no two are the same."""
        size = len(self._points)
        _, ranks = np.unique(self._points, return_inverse=True)
        levels = [ranks]
        different = 0
        length = 1
        while different < size:
            following = np.zeros(size, np.int64)
            following[: size - length] = ranks[length:] + 1
            values, ranks = np.unique(ranks * (size + 1) + following, return_inverse=True)
            levels.append(ranks)
            different = len(values)
            length *= 2
        return levels

    @cached_property
    def _suffixes(self) -> NDArray[np.int64]:
        """Where each suffix begins, in their order."""
        return np.argsort(self._levels[-1])
