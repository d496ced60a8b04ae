"""A small n-gram model that guesses what the network will write, for speculative decoding.

A guess is drawn with the very noise that the network's own character will be drawn with, so it is often the same,
and where it is not the network's stands: a draft changes the speed, never the text. Leviathan et al. 2023
(arXiv:2211.17192), with one shared noise instead of acceptance by chance. Knows nothing of networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numba
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from model.errors import CheckpointError

UNITS = 24  # of surprise in a nat: a byte holds up to 10.6 nats
CERTAINTY = 0.85  # per nat of margin: what the bundled model's own characters agreed with at temperatures 0.5 to 1


@dataclass(frozen=True)
class Draft:
    """How surprising each character would be after some contexts, the commonest of the training text.

    Attributes:
        keys: (N,) int64, ascending, of `context_keys`; the empty context's, 0, is the first.
        surprise: (N, V) uint8, in 1/24 nats.
    """

    keys: NDArray[np.int64]
    surprise: NDArray[np.uint8]

    @cached_property
    def longest(self) -> int:
        """Characters in the longest context."""
        length, key = 0, int(self.keys[-1])
        while key:
            length, key = length + 1, key // (self.surprise.shape[1] + 1)
        return length

    def guess(
        self, recent: Sequence[int], noise: NDArray[np.float64], temperature: float
    ) -> tuple[list[int], list[float]]:
        """The ids likely to come, one for each row of `noise`, and the chance of each to be what the network draws.

        Args:
            recent: the last ids of the text, at most `longest` of them.
            noise: (n, V) of the places to come; zeros at temperature 0.
        """
        context = np.full(self.longest, -1, dtype=np.int64)
        context[self.longest - len(recent) :] = recent
        ids = np.empty(len(noise), dtype=np.int64)
        chances = np.empty(len(noise))
        _guess(self.keys, self.surprise, context, noise, temperature or 1.0, ids, chances)
        return ids.tolist(), chances.tolist()

    def save(self, path: Path) -> None:
        """Write the table to a safetensors file."""
        path.write_bytes(save({"keys": self.keys, "surprise": self.surprise}))

    @classmethod
    def load(cls, path: Path, vocab_size: int) -> "Draft":
        """Read a table.

        Raises:
            CheckpointError: the file cannot be read, or is of another vocabulary.
        """
        try:
            tensors = load_file(path)
            keys, surprise = tensors["keys"], tensors["surprise"]
        except (OSError, SafetensorError, KeyError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error}); is it truncated?") from error
        typed = keys.dtype == np.int64 and surprise.dtype == np.uint8 and keys.ndim == 1 and len(keys) > 0
        if not typed or surprise.shape != (len(keys), vocab_size) or keys[0] != 0 or (np.diff(keys) <= 0).any():
            raise CheckpointError(f"{path}: is not a table of contexts for {vocab_size} characters")
        return cls(keys, surprise)


def context_keys(contexts: NDArray[np.int64], vocab_size: int) -> NDArray[np.int64]:
    """(N,) A number for each context (N, L), whose digits to the base `vocab_size` + 1 are the ids plus 1."""
    keys = np.zeros(len(contexts), dtype=np.int64)
    for column in contexts.T:
        keys = keys * (vocab_size + 1) + column + 1
    return keys


@numba.njit(nogil=True, cache=True)
def _guess(
    keys: NDArray[np.int64],
    surprise: NDArray[np.uint8],
    context: NDArray[np.int64],
    noise: NDArray[np.float64],
    temperature: float,
    ids: NDArray[np.int64],
    chances: NDArray[np.float64],
) -> None:
    """As `Draft.guess`; `context` (L,) begins with -1 where the text is shorter, and moves on with each guess."""
    base = surprise.shape[1] + 1
    for row in range(len(noise)):
        place = 0
        for start in range(len(context)):  # the longest context that the table has
            key = 0
            for i in range(start, len(context)):
                key = key * base + context[i] + 1
            found = int(np.searchsorted(keys, key))
            if context[start] >= 0 and found < len(keys) and keys[found] == key:
                place = found
                break
        best, first, second = 0, -np.inf, -np.inf
        for i in range(base - 1):
            score = noise[row, i] - surprise[place, i] / (UNITS * temperature)
            if score > first:
                best, first, second = i, score, first
            elif score > second:
                second = score
        ids[row] = best
        chances[row] = 1 - 0.5 * np.exp(-CERTAINTY * (first - second) * temperature)
        for i in range(len(context) - 1):
            context[i] = context[i + 1]
        if len(context):
            context[-1] = best
