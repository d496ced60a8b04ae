"""A small n-gram model that guesses what the network will write, for speculative decoding.

A guess is drawn with the very noise that the network's own character will be drawn with, so it is often the same,
and where it is not the network's stands: a draft changes the speed, never the text. Leviathan et al. 2023
(arXiv:2211.17192), with one shared noise instead of acceptance by chance. Knows nothing of networks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from model.atomic_files import NO_SUCH_TYPE, check_file
from model.errors import CheckpointError

MAX_DRAFT_BYTES = 1 << 30  # of a file
UNITS = 24  # of surprise in a nat: a byte holds up to 10.6 nats
MAX_CHANCE = 0.9  # where a guess would have to be surer, none is asked for
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
        ids, chances = np.empty(len(noise), dtype=np.int64), np.empty(len(noise))
        self._write_guesses(
            self.keys, self.surprise, context, noise, 1 / UNITS, temperature, CERTAINTY, ids, chances
        )
        return ids.tolist(), chances.tolist()

    def bits(self, ids: Sequence[int]) -> NDArray[np.float64]:
        """(N,) The surprise in bits of each of `ids` after those before it: this n-gram's view of a text."""
        text, size = np.asarray(ids, dtype=np.int64), self.surprise.shape[1]
        rows = np.zeros(len(text), np.int64)
        for length in range(1, min(self.longest, len(text) - 1) + 1):
            keys = context_keys(sliding_window_view(text[:-1], length), size)
            found = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
            rows[length:] = np.where(self.keys[found] == keys, found, rows[length:])
        bits: NDArray[np.float64] = self.surprise[rows, text] / (UNITS * np.log(2))
        return bits

    @cached_property
    def _write_guesses(self) -> Callable[..., None]:
        from model.jit import compile_and_call  # noqa: PLC0415 - Numba takes a quarter of a second
        from model.sampling.ngram_kernels import guess  # noqa: PLC0415

        context, noise = np.full(self.longest, -1, dtype=np.int64), np.zeros((1, self.surprise.shape[1]))
        ids, chances = np.zeros(1, dtype=np.int64), np.zeros(1)
        return compile_and_call(guess, self.keys, self.surprise, context, noise, 1.0, 1.0, 1.0, ids, chances)

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
            check_file(path, MAX_DRAFT_BYTES)
            tensors = load_file(path)
            keys, surprise = tensors["keys"], tensors["surprise"]
        except (OSError, SafetensorError, KeyError, *NO_SUCH_TYPE) as error:
            raise CheckpointError(f"{path}: cannot be read ({error}); is it truncated?") from error
        typed = keys.dtype == np.int64 and surprise.dtype == np.uint8 and keys.ndim == 1 and len(keys) > 0
        if not typed or surprise.shape != (len(keys), vocab_size) or keys[0] != 0 or (keys[1:] <= keys[:-1]).any():
            raise CheckpointError(f"{path}: is not a table of contexts for {vocab_size} characters")
        draft = cls(keys, surprise)
        if (vocab_size + 1) ** draft.longest >= 1 << 63:  # a GPU computes with that number
            raise CheckpointError(f"{path}: has contexts of {draft.longest} characters, which are too many")
        return draft


def context_keys(contexts: NDArray[np.int64], vocab_size: int) -> NDArray[np.int64]:
    """(N,) A number for each context (N, L), whose digits to the base `vocab_size` + 1 are the ids plus 1."""
    keys = np.zeros(len(contexts), dtype=np.int64)
    for column in contexts.T:
        keys = keys * (vocab_size + 1) + column + 1
    return keys
