"""Fingerprints of a text's substrings, and filters that know which were put in; compiled.

A substring's fingerprint is a polynomial of its characters modulo 2**64 (Karp and Rabin 1987), stirred. A filter is
a binary fuse filter of 8 bits (Graf and Lemire 2022, arXiv:2201.01174). It takes 9 bits for each fingerprint that
was put in, knows all of those, and takes one in 256 of the others for one of them. Knows nothing of files.
"""

import numba
import numpy as np
from numpy.typing import NDArray

U64 = np.uint64
_HALF = U64(32)


@numba.njit(nogil=True, error_model="numpy")
def mix(value: np.uint64) -> np.uint64:
    """SplitMix64's finaliser: every bit of the answer depends on every bit of the value."""
    value = (value ^ (value >> U64(30))) * U64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> U64(27))) * U64(0x94D049BB133111EB)
    return value ^ (value >> U64(31))


@numba.njit(nogil=True, error_model="numpy")
def _power(base: np.uint64, exponent: int) -> np.uint64:
    result = U64(1)
    for _ in range(exponent):
        result *= base
    return result


@numba.njit(nogil=True, error_model="numpy")
def _cells_of(
    fingerprint: np.uint64, seed: np.uint64, segment: int, segments: int
) -> tuple[int, int, int, np.uint8]:
    """The three cells whose contents, taken together, are the fourth: the fingerprint's own byte."""
    stirred = mix(fingerprint + seed)
    mask = U64(segment - 1)
    first = ((stirred >> _HALF) * U64(segment * segments)) >> _HALF
    second = (first + U64(segment)) ^ ((stirred >> U64(18)) & mask)
    third = (first + U64(2 * segment)) ^ (stirred & mask)
    return int(first), int(second), int(third), np.uint8((stirred ^ (stirred >> _HALF)) & U64(255))


def window_fingerprints(
    points: NDArray[np.uint32], salt: np.uint64, length: int, stride: int, found: NDArray[np.uint64]
) -> None:
    """Write the fingerprint of the `length` characters from each multiple of `stride` on to `found`."""
    base = mix(~salt) | U64(1)
    power = _power(base, length)
    fingerprint = U64(0)
    for i in range(len(points)):
        fingerprint = fingerprint * base + mix(salt + U64(points[i]))
        if i >= length:
            fingerprint -= power * mix(salt + U64(points[i - length]))
        start = i - length + 1
        if start >= 0 and start % stride == 0:
            found[start // stride] = mix(fingerprint)


def fill(
    fingerprints: NDArray[np.uint64],
    seed: np.uint64,
    segment: int,
    segments: int,
    cells: NDArray[np.uint8],
    left: NDArray[np.int64],
) -> None:
    """Put different fingerprints (N,) into the cells of an empty filter; write how many did not fit to `left` (1,).

    A cell that only one fingerprint needs is that one's own; without that one, others find a cell of their own.
    Then all are written in the opposite order.
    """
    needs, together = np.zeros(len(cells), np.int32), np.zeros(len(cells), np.uint64)
    for fingerprint in fingerprints:
        for cell in _cells_of(fingerprint, seed, segment, segments)[:3]:
            needs[cell] += 1
            together[cell] ^= fingerprint
    alone = np.empty(len(cells), np.int64)
    order, owned = np.empty(len(fingerprints), np.uint64), np.empty(len(fingerprints), np.int64)
    waiting = placed = 0
    for cell in range(len(cells)):
        if needs[cell] == 1:
            alone[waiting] = cell
            waiting += 1
    while waiting:
        waiting -= 1
        own = alone[waiting]
        if needs[own] != 1:
            continue
        fingerprint = together[own]
        order[placed], owned[placed] = fingerprint, own
        placed += 1
        for cell in _cells_of(fingerprint, seed, segment, segments)[:3]:
            needs[cell] -= 1
            together[cell] ^= fingerprint
            if needs[cell] == 1:
                alone[waiting] = cell
                waiting += 1
    left[0] = len(fingerprints) - placed
    for i in range(placed - 1, -1, -1):
        first, second, third, byte = _cells_of(order[i], seed, segment, segments)
        cells[owned[i]] = byte ^ cells[first] ^ cells[second] ^ cells[third]


def measure_runs(
    points: NDArray[np.uint32],
    salt: np.uint64,
    rungs: NDArray[np.int64],
    cells: NDArray[np.uint8],
    hashes: NDArray[np.uint64],
    places: NDArray[np.int64],
    lengths: NDArray[np.int32],
) -> None:
    """Write the length of the longest run that ends at each of `points` (n,) to `lengths` (n,).

    A run of `length + stride - 1` characters or more holds, every `stride` characters, a substring that was put
    in. So it begins after the last place of each residue where there was none, less `length`. Runs that are too
    short for every filter count as 0.

    Args:
        rungs: (K, 5) int64, length, stride, segment, segments and seed of each filter; ascending lengths.
        cells: of all filters, one after another.
        hashes: (K + longest length,) the fingerprints of the last characters, then a ring of their own hashes.
        places: the number of characters read, then for each filter and each residue modulo its stride the last
            place without a member; this and `hashes` move on.
    """
    base, fingerprints, recent = mix(~salt) | U64(1), hashes[: len(rungs)], hashes[len(rungs) :]
    powers, shortest = np.empty(len(rungs), np.uint64), rungs[0, 0] + rungs[0, 1] - 1
    for k in range(len(rungs)):
        powers[k] = _power(base, rungs[k, 0])
        shortest = min(shortest, rungs[k, 0] + rungs[k, 1] - 1)
    for i in range(len(points)):
        place, value = places[0], mix(salt + U64(points[i]))
        run, offset, row = place + 1, 0, 1
        for k in range(len(rungs)):
            length, stride, segment, segments = rungs[k, 0], rungs[k, 1], rungs[k, 2], rungs[k, 3]
            fingerprints[k] = fingerprints[k] * base + value
            if place >= length:
                fingerprints[k] -= powers[k] * recent[(place - length) % len(recent)]
            member = False
            if run >= length and segments > 0:  # else a shorter filter has ruled it out
                first, second, third, byte = _cells_of(mix(fingerprints[k]), U64(rungs[k, 4]), segment, segments)
                member = byte == cells[offset + first] ^ cells[offset + second] ^ cells[offset + third]
            if not member and place >= length - 1:
                places[row + place % stride] = place
            earliest = place
            for j in range(row, row + stride):
                earliest = min(earliest, places[j])
            run = min(run, length - 1 + place - earliest)
            row += stride
            if segments > 0:
                offset += (segments + 2) * segment
        recent[place % len(recent)] = value
        lengths[i] = run if run >= shortest else 0
        places[0] = place + 1
