"""How much of a text stands word for word in the training text: told from fingerprints, without that text.

A `CopyIndex` holds filters of the training text's substrings of several lengths, not their characters: it answers
whether a given text was there. Whoever guesses a text right learns that it was, so it does not keep a secret.
No run is missed; one may be told longer than it is, where two passages of the training text share what joins them
or a filter errs, once in 256 times. Like Data Portraits (Marone and Van Durme 2023, arXiv:2303.03919), with lengths
in steps.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Lengths = NDArray[np.int32]
MAX_RUN = 1 << 10  # of a filter, in characters
MAX_RUNGS = 64
MAX_CELLS = 1 << 28


def code_points(text: str) -> NDArray[np.uint32]:
    """(N,) The numbers of a text's characters."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


@dataclass(frozen=True)
class CopiedRun:
    """Characters of a text, from `start` up to `end`, that stand word for word in the training text."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """In characters."""
        return self.end - self.start


@dataclass(frozen=True)
class CopyIndex:
    """Which substrings the training text has.

    Attributes:
        salt: what the fingerprints begin with.
        rungs: (K, 5) int64: a filter's length and stride in characters, and the segment, segments and seed of its
            cells; ascending.
        cells: (M,) uint8, of all filters.

    Raises:
        ValueError: the parts do not belong together; says how.
    """

    salt: int
    rungs: NDArray[np.int64]
    cells: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if self.rungs.dtype != np.int64 or self.rungs.ndim != 2 or self.rungs.shape[1] != 5 or not len(self.rungs):
            raise ValueError(f"rungs are {self.rungs.dtype} {self.rungs.shape}, not int64 (K, 5)")
        lengths, strides, segment, segments, _ = self.rungs.T
        if len(self.rungs) > MAX_RUNGS:
            raise ValueError(f"{len(self.rungs):,} filters are more than {MAX_RUNGS}")
        if lengths.min() < 1 or lengths.max() > MAX_RUN or (np.diff(lengths) <= 0).any():
            raise ValueError(f"lengths do not ascend from 1 or more to at most {MAX_RUN:,}")
        if (strides < 1).any() or (strides > MAX_RUN).any():
            raise ValueError(f"a stride is not from 1 to {MAX_RUN:,}")
        if (segments < 0).any() or (segment < 1).any() or (segment & (segment - 1)).any():
            raise ValueError("a filter's segments are not powers of two")
        if segment.max() > MAX_CELLS or segments.max() > MAX_CELLS:  # more would overflow below
            raise ValueError(f"a filter has more than {MAX_CELLS:,} cells")
        expected = int(np.where(segments, (segments + 2) * segment, 0).sum())
        if self.cells.dtype != np.uint8 or self.cells.shape != (expected,):
            raise ValueError(f"cells are {self.cells.dtype} {self.cells.shape}, not uint8 ({expected},)")

    @property
    def shortest(self) -> int:
        """The least length of a run that is told of; shorter ones are in any two texts of a language."""
        return int((self.rungs[:, 0] + self.rungs[:, 1] - 1).min())

    def lengths(self, text: str) -> Lengths:
        """(N,) For each character, the length of the longest run that ends there; 0 if below `shortest`."""
        return CopyMeter(self).extend(text)

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """What `from_tensors` needs."""
        return {"salt": np.array([self.salt], np.uint64), "rungs": self.rungs, "cells": self.cells}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[np.generic]]) -> "CopyIndex":
        """An index of what `tensors` gave.

        Raises:
            KeyError: one is missing.
            ValueError: they do not belong together.
        """
        if tensors["salt"].shape != (1,) or tensors["salt"].dtype != np.uint64:
            raise ValueError("salt is not one uint64")
        rungs, cells = np.asarray(tensors["rungs"]), np.asarray(tensors["cells"])
        return cls(int(tensors["salt"].item()), rungs, cells)

    @cached_property
    def measure(self) -> Callable[..., None]:
        """`fuse_filter.measure_runs`, compiled."""
        from model.analysis.fuse_filter import measure_runs  # noqa: PLC0415
        from model.jit import compile_and_call  # noqa: PLC0415 - Numba takes a quarter of a second

        return compile_and_call(measure_runs, code_points(""), *CopyMeter(self).state, np.zeros(0, np.int32))


class CopyMeter:
    """Measures a text that comes in pieces; the same lengths as for the whole."""

    def __init__(self, index: CopyIndex) -> None:
        lengths, strides = index.rungs[:, 0].tolist(), index.rungs[:, 1].tolist()
        hashes = np.zeros(len(lengths) + max(lengths), np.uint64)
        places = np.concatenate([[0], *map(_before, lengths, strides)])
        self.state = (np.uint64(index.salt), index.rungs, index.cells, hashes, places)
        self._index = index

    def extend(self, text: str) -> Lengths:
        """(n,) The lengths at the characters of `text`, which follows what came before."""
        lengths = np.zeros(len(text), np.int32)
        self._index.measure(code_points(text), *self.state, lengths)
        return lengths


def find_runs(lengths: Lengths, least: int) -> list[CopiedRun]:
    """The runs of `least` characters or more that are no part of a longer one, by their ends."""
    going_on = np.zeros(len(lengths), bool)
    going_on[:-1] = lengths[1:] > lengths[:-1]
    ends = np.flatnonzero((lengths >= max(1, least)) & ~going_on)
    return [CopiedRun(int(end - lengths[end] + 1), int(end + 1)) for end in ends]


def share_inside(lengths: Lengths, least: int) -> float:
    """The share of characters that are part of a run of `least` or more; 0 for an empty text."""
    edges = np.zeros(len(lengths) + 1, np.int64)
    for run in find_runs(lengths, least):
        edges[run.start] += 1
        edges[run.end] -= 1
    return float((np.cumsum(edges[:-1]) > 0).mean()) if len(lengths) else 0.0


def apart(runs: list[CopiedRun]) -> list[CopiedRun]:
    """Of runs that overlap the longest only, and of what is left the longest again; in the order of the text.

    A run that is no longer than those kept before it overlaps one of them only if one of its own ends lies inside.
    """
    kept: list[CopiedRun] = []
    taken = np.zeros(max((run.end for run in runs), default=0), bool)
    for run in sorted(runs, key=lambda one: (-one.length, one.start)):
        if not taken[run.start] and not taken[run.end - 1]:
            kept.append(run)
            taken[run.start : run.end] = True
    return sorted(kept, key=lambda one: one.start)


def longest_run(lengths: Lengths) -> CopiedRun | None:
    """The first of the longest runs, if there is any."""
    if not len(lengths) or not lengths.max():
        return None
    end = int(lengths.argmax())
    return CopiedRun(end - int(lengths[end]) + 1, end + 1)


def _before(length: int, stride: int) -> NDArray[np.int64]:
    """The last place of each residue at which a text has too few characters to be a member of a filter."""
    places = np.arange(length - 1 - stride, length - 1)
    misses = np.empty(stride, np.int64)
    misses[places % stride] = places
    return misses
