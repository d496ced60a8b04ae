"""Makes the filters of a `CopyIndex` from a training text. Knows nothing of files."""

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from model.analysis.overlap import CopyIndex, code_points

# Least length of a run that a filter is sure to see, and its stride. What is told of 20, 30, 50 and 100 is to be
# right; the others keep runs from being told too long. With these, the lengths are right at 96 % of the characters
# of held-out and generated Shakespeare, and more than 2 too long at 0.6 %; the longest run in 1,000 characters is
# right in two texts of three, and 0.4 too long on average. Half of all characters end a run of 8: it says nothing.
RUNGS = ((11, 1), (15, 2), (20, 1), (25, 2), (30, 1), (50, 8), (100, 8))
MAX_COPY_INDEX_BYTES = 8_000_000
TRIES = 100

Fingerprints = NDArray[np.uint64]


def choose_rungs(characters: int) -> Sequence[tuple[int, int]]:
    """`RUNGS`, or for a long text wider strides and then fewer lengths, so that its index keeps to 8 MB."""
    rungs: Sequence[tuple[int, int]] = RUNGS
    while len(rungs) > 1 and sum(1.13 * characters / stride for _, stride in rungs) > MAX_COPY_INDEX_BYTES:
        wider = _widen(rungs)
        rungs = wider if wider != rungs else rungs[1:]
    return rungs


def _widen(rungs: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    """Strides up to twice as wide, at most half of a run; substrings still become longer from rung to rung."""
    wider: list[tuple[int, int]] = []
    before = 0  # characters in a substring of the rung before
    for least, stride in rungs:
        widest = min(least // 2, least - before)
        wider.append((least, min(2 * stride, widest)))
        before = least - wider[-1][1] + 1
    return tuple(wider)


def make_copies(text: str, rungs: Sequence[tuple[int, int]] | None = None) -> CopyIndex:
    """An index of the text; the same for the same text.

    Args:
        rungs: least length of a run that a filter is sure to see and its stride, for each; lengths less strides
            ascend.
    """
    salt = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "little")
    points = code_points(text)
    rows, cells = [], []
    for least, stride in choose_rungs(len(points)) if rungs is None else rungs:
        length = least - stride + 1
        fingerprints = _fingerprints(points, salt, length, stride)
        segment, segments, seed, filled = _make_filter(fingerprints)
        rows.append((length, stride, segment, segments, seed))
        cells.append(filled)
    return CopyIndex(salt, np.array(rows, np.int64), np.concatenate(cells))


def _fingerprints(points: NDArray[np.uint32], salt: int, length: int, stride: int) -> Fingerprints:
    """The different fingerprints, sorted, of the substrings of `length` at each multiple of `stride`."""
    found = np.zeros(max(0, (len(points) - length) // stride + 1), np.uint64)
    _compiled_windows()(points, np.uint64(salt), length, stride, found)
    return np.unique(found)


def _make_filter(fingerprints: Fingerprints) -> tuple[int, int, int, NDArray[np.uint8]]:
    """Segment, segments, seed and cells of a filter of these; sizes as in Graf and Lemire's own program."""
    if not len(fingerprints):
        return 1, 0, 0, np.zeros(0, np.uint8)
    count = max(2, len(fingerprints))
    segment = min(1 << 18, 1 << math.floor(math.log(count) / math.log(3.33) + 2.25))
    room = count * max(1.125, 0.875 + 0.25 * math.log(1_000_000) / math.log(count))
    segments = max(1, math.ceil(room / segment) - 2)
    left = np.zeros(1, np.int64)
    for seed in range(TRIES):
        cells = np.zeros((segments + 2) * segment, np.uint8)
        _compiled_fill()(fingerprints, np.uint64(seed), segment, segments, cells, left)
        if not left[0]:
            return segment, segments, seed, cells
    raise RuntimeError(f"no filter of {len(fingerprints)} fingerprints in {TRIES} tries")  # chance: below 1e-100


@cache
def _compiled_windows() -> Callable[..., None]:
    from model.analysis.fuse_filter import window_fingerprints  # noqa: PLC0415
    from model.jit import compile_and_call  # noqa: PLC0415 - Numba takes a quarter of a second

    return compile_and_call(window_fingerprints, code_points("a"), np.uint64(0), 1, 1, np.zeros(1, np.uint64))


@cache
def _compiled_fill() -> Callable[..., None]:
    from model.analysis.fuse_filter import fill  # noqa: PLC0415
    from model.jit import compile_and_call  # noqa: PLC0415

    left = np.zeros(1, np.int64)
    return compile_and_call(fill, np.zeros(0, np.uint64), np.uint64(0), 1, 1, np.zeros(3, np.uint8), left)
