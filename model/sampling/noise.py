"""Gumbel noise as a pure function of (seed, sample, position, character id).

There is no state to lose, so a text can be resumed, replayed with other settings, or drawn many characters
at a time, on any machine and in any language. Knows nothing of logits.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

SEED_LIMIT = 1 << 53  # what a JSON number holds exactly in every client

POSITIONS_AHEAD = 64  # that noise is computed for at once
NUMBERS_AHEAD = 1 << 16  # at most, so that a large vocabulary has fewer positions


def philox4x32(counter: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Philox4x32-10, a counter-based random generator (Salmon et al., SC 2011, doi:10.1145/2063384.2063405).

    Args:
        counter: (4, …) words below 2³².
        key: two words below 2³².
    Returns:
        (4, …) random words below 2³².
    """
    words = counter.reshape(4, -1).copy()
    _compiled_philox()(words, np.uint64(key[0]), np.uint64(key[1]))
    return words.reshape(counter.shape)


@cache
def _compiled_philox() -> Callable[..., None]:
    """`philox.philox4x32`: many times as fast as NumPy, which passes over all counters for each operation."""
    from model.jit import compile_and_call  # noqa: PLC0415
    from model.sampling import philox  # noqa: PLC0415 - Numba takes a quarter of a second

    return compile_and_call(philox.philox4x32, np.zeros((4, 1), np.uint64), np.uint64(0), np.uint64(0))


def gumbel_noise(seed: int, sample: int, position: int, count: int, vocab_size: int) -> NDArray[np.float64]:
    """Standard Gumbel noise for `count` draws from `position` on; adding it to logits makes argmax a draw.

    Character id i takes word i mod 4 of the counter (i div 4, position, sample, 0) under the key `seed`.

    Returns:
        (count, vocab_size) float64.
    """
    groups = (vocab_size + 3) // 4
    counter = np.zeros((4, count, groups), dtype=np.uint64)
    counter[0] = np.arange(groups, dtype=np.uint64)
    counter[1] = np.arange(position, position + count, dtype=np.uint64)[:, None]
    counter[2] = sample
    words = philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32))  # (4, count, groups)
    by_id = np.moveaxis(words, 0, -1).reshape(count, -1)[:, :vocab_size]  # (count, V)
    # uniform numbers strictly between 0 and 1: both logarithms are finite
    noise = np.ascontiguousarray((by_id + 0.5) / 2.0**32, dtype=np.float64)
    _compiled_gumbel_noise()(noise.reshape(-1))
    return noise


@cache
def _compiled_gumbel_noise() -> Callable[..., None]:
    """`arithmetic.replace_by_gumbel_noise`: NumPy's logarithms are not the same on every CPU."""
    from model import arithmetic  # noqa: PLC0415
    from model.jit import compile_and_call  # noqa: PLC0415

    return compile_and_call(arithmetic.replace_by_gumbel_noise, np.full(1, 0.5))


class GumbelNoise:
    """The noise of one text's draws, computed for some positions at once: most calls follow each other."""

    def __init__(self, seed: int, sample: int, vocab_size: int) -> None:
        self.seed = seed
        self.sample = sample
        self._vocab_size = vocab_size
        self._first = 0  # the position of the first row of `_computed`
        self._computed = np.zeros((0, vocab_size))

    def at(self, position: int, count: int) -> NDArray[np.float64]:
        """`gumbel_noise` (`count`, V) from a position on.

        What was computed for positions before it is dropped when more is needed; after a jump, all of it.
        """
        end = self._first + len(self._computed)
        if not self._first <= position <= end:
            self._computed = self._computed[:0]
            self._first = position
            end = position
        missing = position + count - end
        if missing > 0:
            ahead = max(missing, min(POSITIONS_AHEAD, NUMBERS_AHEAD // self._vocab_size))
            further = gumbel_noise(self.seed, self.sample, end, ahead, self._vocab_size)
            self._computed = np.concatenate((self._computed[position - self._first :], further))
            self._first = position
        start = position - self._first
        return self._computed[start : start + count]
