"""Makes the `CopyIndex` of a training text. Knows nothing of files."""

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.analysis.overlap import CopyIndex, code_points


class FilterSpec(NamedTuple):
    """A filter to make: the least length of a run that it is sure to find, and its stride."""

    min_run: int
    stride: int


# Reports count runs of 20, 30, 50 and 100 characters: those must be right. The other filters keep runs from being
# reported too long. With these, the lengths are right at 96 % of the characters of held-out and generated
# Shakespeare, and more than 2 too long at 0.6 %; the longest run in 1,000 characters is right in two texts of
# three, and 0.4 too long on average. Shorter runs say nothing: half of all characters end a run of 8.
FILTER_SPECS = (
    FilterSpec(11, 1),
    FilterSpec(15, 2),
    FilterSpec(20, 1),
    FilterSpec(25, 2),
    FilterSpec(30, 1),
    FilterSpec(50, 8),
    FilterSpec(100, 8),
)
MAX_COPY_INDEX_BYTES = 8_000_000
BYTES_PER_SUBSTRING = 1.13  # of a filter
MAX_SEEDS = 100  # to try for one filter

Fingerprints = NDArray[np.uint64]


def choose_filter_specs(characters: int) -> Sequence[FilterSpec]:
    """`FILTER_SPECS`, or for a long text wider strides and then fewer filters, so that its index keeps to 8 MB."""
    specs: Sequence[FilterSpec] = FILTER_SPECS
    while len(specs) > 1 and _estimated_bytes(specs, characters) > MAX_COPY_INDEX_BYTES:
        wider = _widen(specs)
        specs = wider if wider != specs else specs[1:]
    return specs


def _estimated_bytes(specs: Sequence[FilterSpec], characters: int) -> float:
    return sum(BYTES_PER_SUBSTRING * characters / spec.stride for spec in specs)


def _widen(specs: Sequence[FilterSpec]) -> Sequence[FilterSpec]:
    """Strides up to twice as wide, at most half of a run; the filters' substrings still ascend in length."""
    wider: list[FilterSpec] = []
    length_before = 0  # characters in a substring of the filter before
    for spec in specs:
        widest = min(spec.min_run // 2, spec.min_run - length_before)
        stride = min(2 * spec.stride, widest)
        wider.append(FilterSpec(spec.min_run, stride))
        length_before = spec.min_run - stride + 1
    return tuple(wider)


def make_copy_index(text: str, specs: Sequence[tuple[int, int]] | None = None) -> CopyIndex:
    """An index of the text; the same for the same text.

    Args:
        specs: `FilterSpec`s, by ascending length less stride; those that suit the text's length if None.
    """
    salt = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "little")
    points = code_points(text)
    rows: list[tuple[int, ...]] = []
    cells: list[NDArray[np.uint8]] = []
    for min_run, stride in choose_filter_specs(len(points)) if specs is None else specs:
        length = min_run - stride + 1
        made = _make_filter(_fingerprints(points, salt, length, stride))
        rows.append((length, stride, made.segment_length, made.segment_count, made.seed))
        cells.append(made.cells)
    return CopyIndex(salt, np.array(rows, np.int64), np.concatenate(cells))


def _fingerprints(points: NDArray[np.uint32], salt: int, length: int, stride: int) -> Fingerprints:
    """The different fingerprints, sorted, of the substrings of `length` at each multiple of `stride`."""
    found = np.zeros(max(0, (len(points) - length) // stride + 1), np.uint64)
    _compiled_window_fingerprints()(points, np.uint64(salt), length, stride, found)
    return np.unique(found)


class _Filter(NamedTuple):
    """A filter's own fields of `FILTER_DTYPE`, and its cells."""

    segment_length: int
    segment_count: int
    seed: int
    cells: NDArray[np.uint8]


def _make_filter(fingerprints: Fingerprints) -> _Filter:
    """A filter of these fingerprints, with the sizes of Graf and Lemire's own program."""
    if not len(fingerprints):
        return _Filter(segment_length=1, segment_count=0, seed=0, cells=np.zeros(0, np.uint8))
    count = max(2, len(fingerprints))
    segment_length = min(1 << 18, 1 << math.floor(math.log(count) / math.log(3.33) + 2.25))
    capacity = count * max(1.125, 0.875 + 0.25 * math.log(1_000_000) / math.log(count))
    segment_count = max(1, math.ceil(capacity / segment_length) - 2)
    left_over = np.zeros(1, np.int64)
    for seed in range(MAX_SEEDS):
        cells = np.zeros((segment_count + 2) * segment_length, np.uint8)
        _compiled_fill()(fingerprints, np.uint64(seed), segment_length, segment_count, cells, left_over)
        if not left_over[0]:
            return _Filter(segment_length, segment_count, seed, cells)
    # The probability of this is below 1e-100.
    raise RuntimeError(f"no filter of {len(fingerprints)} fingerprints by {MAX_SEEDS} seeds")


@cache
def _compiled_window_fingerprints() -> Callable[..., None]:
    from model.analysis.fuse_filter import window_fingerprints  # noqa: PLC0415
    from model.jit import compile_and_call  # noqa: PLC0415 - importing Numba takes a quarter of a second

    return compile_and_call(window_fingerprints, code_points("a"), np.uint64(0), 1, 1, np.zeros(1, np.uint64))


@cache
def _compiled_fill() -> Callable[..., None]:
    from model.analysis.fuse_filter import fill_filter  # noqa: PLC0415
    from model.jit import compile_and_call  # noqa: PLC0415

    cells = np.zeros(3, np.uint8)
    left_over = np.zeros(1, np.int64)
    return compile_and_call(fill_filter, np.zeros(0, np.uint64), np.uint64(0), 1, 1, cells, left_over)
