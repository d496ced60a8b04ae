"""Fingerprints of a text's substrings, and filters that answer whether one was put in; compiled.

A substring's fingerprint is its rolling hash (a polynomial of its characters modulo 2**64; Karp and Rabin 1987),
its bits mixed. A filter is a binary fuse filter of 8 bits (Graf and Lemire 2022, arXiv:2201.01174): an array of
bytes ("cells"), in which each fingerprint has three. It takes 9 bits for each fingerprint that was put in. The
answer is always yes for those, and falsely yes for one in 256 of the others. Knows nothing of files.
"""

import numpy as np
from numpy.typing import NDArray

from model.jit import kernel_jit

U64 = np.uint64
_HALF = U64(32)


@kernel_jit(allocates=True)
def mix64(value: np.uint64) -> np.uint64:
    """SplitMix64's finaliser: every bit of the result depends on every bit of the value."""
    value = (value ^ (value >> U64(30))) * U64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> U64(27))) * U64(0x94D049BB133111EB)
    return value ^ (value >> U64(31))


@kernel_jit(allocates=True)
def _power(base: np.uint64, exponent: int) -> np.uint64:
    result = U64(1)
    for _ in range(exponent):
        result *= base
    return result


@kernel_jit(allocates=True)
def _cells_of(hashed: np.uint64, segment_length: int, segment_count: int) -> tuple[int, int, int]:
    """The three cells of a fingerprint, which lie in consecutive segments; `hashed` is it mixed with the seed."""
    mask = U64(segment_length - 1)
    first = ((hashed >> _HALF) * U64(segment_length * segment_count)) >> _HALF
    second = (first + U64(segment_length)) ^ ((hashed >> U64(18)) & mask)
    third = (first + U64(2 * segment_length)) ^ (hashed & mask)
    return int(first), int(second), int(third)


@kernel_jit(allocates=True)
def _check_byte(hashed: np.uint64) -> np.uint8:
    """What the exclusive or of a fingerprint's three cells is, if it was put in."""
    return np.uint8((hashed ^ (hashed >> _HALF)) & U64(255))


def window_fingerprints(
    code_points: NDArray[np.uint32], salt: np.uint64, length: int, stride: int, found: NDArray[np.uint64]
) -> None:
    """Write the fingerprints of the substrings of `length` characters at each multiple of `stride` to `found`."""
    base = mix64(~salt) | U64(1)
    power = _power(base, length)
    rolling_hash = U64(0)
    for i in range(len(code_points)):
        rolling_hash = rolling_hash * base + mix64(salt + U64(code_points[i]))
        if i >= length:
            rolling_hash -= power * mix64(salt + U64(code_points[i - length]))
        start = i - length + 1
        if start >= 0 and start % stride == 0:
            found[start // stride] = mix64(rolling_hash)


def fill_filter(
    fingerprints: NDArray[np.uint64],
    seed: np.uint64,
    segment_length: int,
    segment_count: int,
    cells: NDArray[np.uint8],
    left_over: NDArray[np.int64],
) -> None:
    """Put different fingerprints (N,) into the cells of an empty filter; write how many did not fit to `left_over`.

    The three cells of a fingerprint must make its check byte. A cell that only one fingerprint uses can be set for
    that one last, whatever the other two are. So such fingerprints are taken out one after another ("peeling"),
    which leaves other cells with one fingerprint; then the cells are set in the opposite order.

    Args:
        cells: (M,) zeros.
        left_over: (1,)
    """
    uses = np.zeros(len(cells), np.int32)  # how many fingerprints use each cell
    combined = np.zeros(len(cells), np.uint64)  # the exclusive or of these fingerprints
    for fingerprint in fingerprints:
        for cell in _cells_of(mix64(fingerprint + seed), segment_length, segment_count):
            uses[cell] += 1
            combined[cell] ^= fingerprint
    single = np.empty(len(cells), np.int64)  # a stack of cells that one fingerprint uses
    single_count = 0
    for cell in range(len(cells)):
        if uses[cell] == 1:
            single[single_count] = cell
            single_count += 1
    order = np.empty(len(fingerprints), np.uint64)  # fingerprints as they were taken out
    own_cell = np.empty(len(fingerprints), np.int64)  # the cell that each then had for itself
    taken = 0
    while single_count:
        single_count -= 1
        own = single[single_count]
        if uses[own] != 1:
            continue
        fingerprint = combined[own]
        order[taken] = fingerprint
        own_cell[taken] = own
        taken += 1
        for cell in _cells_of(mix64(fingerprint + seed), segment_length, segment_count):
            uses[cell] -= 1
            combined[cell] ^= fingerprint
            if uses[cell] == 1:
                single[single_count] = cell
                single_count += 1
    left_over[0] = len(fingerprints) - taken
    for i in range(taken - 1, -1, -1):
        hashed = mix64(order[i] + seed)
        first, second, third = _cells_of(hashed, segment_length, segment_count)
        cells[own_cell[i]] = _check_byte(hashed) ^ cells[first] ^ cells[second] ^ cells[third]


def scan_runs(
    code_points: NDArray[np.uint32],
    salt: np.uint64,
    filters: NDArray[np.void],
    cells: NDArray[np.uint8],
    rolling_hashes: NDArray[np.uint64],
    recent: NDArray[np.uint64],
    misses: NDArray[np.int64],
    read: NDArray[np.int64],
    lengths: NDArray[np.int32],
) -> None:
    """Write the length of the longest copied run that ends at each of `code_points` (n,) to `lengths` (n,).

    A filter holds the substrings of its `length` at every multiple of its `stride` in the training text. So the
    substrings of a copied run that end at the positions of one residue modulo the stride are all members. A run
    therefore begins after the beginning of the last substring that was no member, for the residue where that lies
    furthest back. The longest run is the shortest of what the filters allow. Runs that are too short for every
    filter count as 0.

    Args:
        filters: (K,) `FILTER_DTYPE`, by ascending length.
        cells: of all filters, one after another.
        rolling_hashes: (K,) of the last `length` characters; updated.
        recent: (longest length,) a ring of the last characters' hashes; updated.
        misses: for each filter and each residue modulo its stride, the last position whose substring was no member;
            updated.
        read: (1,) the number of characters read before; updated.
    """
    base = mix64(~salt) | U64(1)
    powers = np.empty(len(filters), np.uint64)
    shortest = filters[0].length + filters[0].stride - 1
    for k in range(len(filters)):
        powers[k] = _power(base, filters[k].length)
        shortest = min(shortest, filters[k].length + filters[k].stride - 1)
    for i in range(len(code_points)):
        position = read[0]
        character_hash = mix64(salt + U64(code_points[i]))
        run = position + 1
        first_cell = 0  # of the filter
        first_miss = 0
        for k in range(len(filters)):
            length = filters[k].length
            stride = filters[k].stride
            segment_length = filters[k].segment_length
            segment_count = filters[k].segment_count
            rolling_hashes[k] = rolling_hashes[k] * base + character_hash
            if position >= length:
                rolling_hashes[k] -= powers[k] * recent[(position - length) % len(recent)]
            is_member = False
            if run >= length and segment_count > 0:  # else a shorter filter has ruled it out
                hashed = mix64(mix64(rolling_hashes[k]) + U64(filters[k].seed))
                first, second, third = _cells_of(hashed, segment_length, segment_count)
                found = cells[first_cell + first] ^ cells[first_cell + second] ^ cells[first_cell + third]
                is_member = _check_byte(hashed) == found
            if not is_member and position >= length - 1:
                misses[first_miss + position % stride] = position
            earliest = position
            for j in range(first_miss, first_miss + stride):
                earliest = min(earliest, misses[j])
            run = min(run, length - 1 + position - earliest)
            first_miss += stride
            if segment_count > 0:
                first_cell += (segment_count + 2) * segment_length
        recent[position % len(recent)] = character_hash
        lengths[i] = run if run >= shortest else 0
        read[0] = position + 1
