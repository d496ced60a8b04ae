"""How much of a text stands word for word in the training text: found by fingerprints, without that text.

A `CopyIndex` holds filters of the training text's substrings of several lengths, not their characters: it answers
whether a given text was there. It does not keep a secret: whoever guesses a passage can confirm it.
No run is missed. A run may be reported longer than it is, in two cases: where one copied passage goes over into
another and every substring across the joint is somewhere in the training text too; and where a filter errs, as it
does for one other substring in 256. Like Data Portraits (Marone and Van Durme 2023, arXiv:2303.03919), with several
lengths.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Lengths = NDArray[np.int32]
MAX_RUN = 1 << 10  # the greatest length and stride of a filter, in characters; copied runs may be longer
MAX_FILTERS = 64
MAX_CELLS = 1 << 28  # of one filter; a cell is a byte
FILTER_DTYPE = np.dtype(
    [
        ("length", np.int64),  # characters, of the substrings that were put in
        ("stride", np.int64),  # characters between their beginnings in the training text
        ("segment_length", np.int64),  # cells; a power of two
        ("segment_count", np.int64),  # two less than there are; 0 for an empty filter, which has no cells
        ("seed", np.int64),  # of the fingerprints' places in it
    ]
)


def code_points(text: str) -> NDArray[np.uint32]:
    """The code points of a text's characters (N,)."""
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
        salt: makes the fingerprints of this index different from those of others.
        rungs: (K, 5) int64, the filters by ascending length, as stored in the file: `FILTER_DTYPE` has the columns.
        cells: (M,) uint8, of all filters.

    Raises:
        ValueError: the parts do not belong together; says how.
    """

    salt: int
    rungs: NDArray[np.int64]
    cells: NDArray[np.uint8]

    def __post_init__(self) -> None:
        is_table = self.rungs.ndim == 2 and self.rungs.shape[1] == 5 and len(self.rungs) > 0
        if self.rungs.dtype != np.int64 or not is_table:
            raise ValueError(f"rungs are {self.rungs.dtype} {self.rungs.shape}, not int64 (K, 5)")
        lengths, strides, segment_lengths, segment_counts, _ = self.rungs.T
        if len(self.rungs) > MAX_FILTERS:
            raise ValueError(f"{len(self.rungs):,} filters are more than {MAX_FILTERS}")
        if lengths.min() < 1 or lengths.max() > MAX_RUN or (np.diff(lengths) <= 0).any():
            raise ValueError(f"lengths do not ascend from 1 or more to at most {MAX_RUN:,}")
        if (strides < 1).any() or (strides > MAX_RUN).any():
            raise ValueError(f"a stride is not from 1 to {MAX_RUN:,}")
        powers_of_two = (segment_lengths & (segment_lengths - 1)) == 0
        if (segment_counts < 0).any() or (segment_lengths < 1).any() or not powers_of_two.all():
            raise ValueError("a filter's segments are not powers of two")
        if segment_lengths.max() > MAX_CELLS or segment_counts.max() > MAX_CELLS:  # more would overflow below
            raise ValueError(f"a filter has more than {MAX_CELLS:,} cells")
        expected = int(np.where(segment_counts, (segment_counts + 2) * segment_lengths, 0).sum())
        if self.cells.dtype != np.uint8 or self.cells.shape != (expected,):
            raise ValueError(f"cells are {self.cells.dtype} {self.cells.shape}, not uint8 ({expected},)")

    @property
    def shortest(self) -> int:
        """The least length of a run that is reported; any two texts of a language share shorter ones.

        A run of length + stride - 1 holds a whole substring of the filter, wherever the run begins.
        """
        return int((self.filters["length"] + self.filters["stride"] - 1).min())

    @property
    def filters(self) -> NDArray[np.void]:
        """(K,) `FILTER_DTYPE`: the same as `rungs`, by names."""
        return np.ascontiguousarray(self.rungs).view(FILTER_DTYPE)[:, 0]

    def lengths(self, text: str) -> Lengths:
        """For each character, the length of the longest run that ends there (N,); 0 if below `shortest`."""
        return CopyScanner(self).feed(text)

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """The index as tensors, for `from_tensors`."""
        return {"salt": np.array([self.salt], np.uint64), "rungs": self.rungs, "cells": self.cells}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[np.generic]]) -> "CopyIndex":
        """The index whose `tensors` these are.

        Raises:
            KeyError: one is missing.
            ValueError: they do not belong together.
        """
        if tensors["salt"].shape != (1,) or tensors["salt"].dtype != np.uint64:
            raise ValueError("salt is not one uint64")
        rungs = np.asarray(tensors["rungs"])
        cells = np.asarray(tensors["cells"])
        return cls(int(tensors["salt"].item()), rungs, cells)

    @cached_property
    def scan_runs(self) -> Callable[..., None]:
        """`fuse_filter.scan_runs`, compiled."""
        from model.analysis.fuse_filter import scan_runs  # noqa: PLC0415
        from model.jit import compile_and_call  # noqa: PLC0415 - importing Numba takes a quarter of a second

        return compile_and_call(scan_runs, code_points(""), *CopyScanner(self).state, np.zeros(0, np.int32))


class ScanState(NamedTuple):
    """The arguments of `fuse_filter.scan_runs` from one part of a text to the next; its docstring explains them."""

    salt: np.uint64
    filters: NDArray[np.void]
    cells: NDArray[np.uint8]
    rolling_hashes: NDArray[np.uint64]
    recent: NDArray[np.uint64]
    misses: NDArray[np.int64]
    read: NDArray[np.int64]


class CopyScanner:
    """Measures the copied runs of a text that arrives in parts; the lengths are the same as for the whole text."""

    def __init__(self, index: CopyIndex) -> None:
        filters = index.filters
        misses = [_initial_misses(int(one["length"]), int(one["stride"])) for one in filters]
        self.state = ScanState(
            salt=np.uint64(index.salt),
            filters=filters,
            cells=index.cells,
            rolling_hashes=np.zeros(len(filters), np.uint64),
            recent=np.zeros(filters["length"].max(), np.uint64),
            misses=np.concatenate(misses),
            read=np.zeros(1, np.int64),
        )
        self._index = index

    def feed(self, text: str) -> Lengths:
        """The lengths at the characters of `text` (n,), which follows the texts fed before."""
        lengths = np.zeros(len(text), np.int32)
        self._index.scan_runs(code_points(text), *self.state, lengths)
        return lengths


def find_runs(lengths: Lengths, min_length: int) -> list[CopiedRun]:
    """The runs of `min_length` characters or more that are no part of a longer one, in the order of their ends."""
    continues = np.zeros(len(lengths), bool)  # whether the run that ends at a character goes on with the next
    continues[:-1] = lengths[1:] > lengths[:-1]
    ends = np.flatnonzero((lengths >= max(1, min_length)) & ~continues)
    return [CopiedRun(int(end - lengths[end] + 1), int(end + 1)) for end in ends]


def share_inside(lengths: Lengths, min_length: int) -> float:
    """The share of characters that are part of a run of `min_length` or more; 0 for an empty text."""
    if not len(lengths):
        return 0.0
    edges = np.zeros(len(lengths) + 1, np.int64)  # runs that begin, less runs that have ended; their sum: open runs
    for run in find_runs(lengths, min_length):
        edges[run.start] += 1
        edges[run.end] -= 1
    is_inside = np.cumsum(edges[:-1]) > 0
    return float(is_inside.mean())


def non_overlapping(runs: list[CopiedRun]) -> list[CopiedRun]:
    """The longest run, the longest of the rest that does not overlap it, and so on; in the order of the text."""
    kept: list[CopiedRun] = []
    covered = np.zeros(max((run.end for run in runs), default=0), bool)
    for run in sorted(runs, key=lambda run: (-run.length, run.start)):
        # The runs kept before are as long or longer: this one overlaps one of them only with its ends.
        if not covered[run.start] and not covered[run.end - 1]:
            kept.append(run)
            covered[run.start : run.end] = True
    return sorted(kept, key=lambda run: run.start)


def longest_run(lengths: Lengths) -> CopiedRun | None:
    """The first of the longest runs, if there is any."""
    if not len(lengths) or not lengths.max():
        return None
    end = int(lengths.argmax())
    return CopiedRun(end - int(lengths[end]) + 1, end + 1)


def _initial_misses(length: int, stride: int) -> NDArray[np.int64]:
    """For each residue modulo `stride`, the last position at which no substring of `length` can end yet."""
    positions = np.arange(length - 1 - stride, length - 1)
    misses = np.empty(stride, np.int64)
    misses[positions % stride] = positions
    return misses
