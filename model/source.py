"""The training text itself, where it is at hand: exact lengths of copies, and where they stand in it."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model.copies import Lengths, code_points


class Source:
    """A text that others may have been copied from, searched by a suffix array (Manber and Myers 1990)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._points = code_points(text)

    def find(self, passage: str) -> int | None:
        """The first place at which `passage` stands, in characters; None if it does not."""
        place = self.text.find(passage)
        return place if place >= 0 else None

    def lengths(self, text: str) -> Lengths:
        """(N,) For each character, the length of the longest run that ends there and stands in this text."""
        points = code_points(text)
        places = np.arange(len(points))
        ends = places + self._matches(points)  # never falls: what begins later ends no earlier
        first = np.searchsorted(ends, places, side="right")  # the first match that goes beyond this place
        lengths: Lengths = np.maximum(0, places - first + 1).astype(np.int32)
        return lengths

    def _matches(self, points: NDArray[np.uint32]) -> NDArray[np.int64]:
        """(N,) The length of the longest run that begins at each place: all suffixes are narrowed down at once."""
        matched = np.zeros(len(points), np.int64)
        active = np.arange(len(points))
        low, high = np.zeros(len(points), np.int64), np.full(len(points), len(self._points), np.int64)
        depth = 0
        while len(active):
            wanted = points[active + depth].astype(np.int64)
            low, high = self._bound(low, high, depth, wanted), self._bound(low, high, depth, wanted + 1)
            kept = low < high
            active, low, high, depth = active[kept], low[kept], high[kept], depth + 1
            matched[active] = depth
            inside = active + depth < len(points)
            active, low, high = active[inside], low[inside], high[inside]
        return matched

    def _bound(
        self, low: NDArray[np.int64], high: NDArray[np.int64], depth: int, wanted: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The first suffix of each interval whose character at `depth` is not below the one wanted."""
        low, high = low.copy(), high.copy()
        padded = self._padded
        while (low < high).any():
            middle = (low + high) // 2
            below = padded[self._suffixes[middle.clip(max=len(self._points) - 1)] + depth] < wanted
            below &= low < high
            low, high = np.where(below, middle + 1, low), np.where(below | (low >= high), high, middle)
        return low

    @cached_property
    def _padded(self) -> NDArray[np.int64]:
        """The characters, then -1 beyond the end for as long as any suffix could ask."""
        return np.concatenate([self._points.astype(np.int64), np.full(len(self._points) + 1, -1, np.int64)])

    @cached_property
    def _suffixes(self) -> NDArray[np.int64]:
        """Where each suffix begins, in their order: ordered by 1, 2, 4, … of their characters."""
        size = len(self._points)
        _, ranks = np.unique(self._points, return_inverse=True)
        length, different = 1, 0
        while different < size:
            following = np.zeros(size, np.int64)
            following[: size - length] = ranks[length:] + 1
            values, ranks = np.unique(ranks * (size + 1) + following, return_inverse=True)
            length, different = 2 * length, len(values)
        return np.argsort(ranks)
