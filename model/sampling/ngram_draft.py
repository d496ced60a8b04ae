"""A small n-gram model that proposes what the network will write, for speculative decoding.

A draft token is drawn with the very noise that the network's own character will be drawn with, so it is often the
same; where it is not, the network's stands. So a draft changes the speed, never the text. Leviathan et al. 2023
(arXiv:2211.17192), with one shared noise instead of acceptance by chance. Knows nothing of networks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from model.atomic_files import NO_SUCH_TYPE, check_file
from model.errors import CheckpointError

MAX_DRAFT_BYTES = 1 << 30  # of a file
UNITS_PER_NAT = 24  # of surprisal: a byte holds up to 10.6 nats
MAX_BREAK_EVEN = 0.9  # where a draft token would have to be accepted more often to pay, none is proposed
# How fast the doubt in a draft token shrinks with its margin, per nat: what the bundled model's own characters
# agreed with at temperatures 0.5 to 1.
MARGIN_SLOPE = 0.85


class Proposal(NamedTuple):
    """Draft tokens that follow each other, and for each the probability that the network draws the same."""

    ids: list[int]
    probabilities: list[float]


@dataclass(frozen=True)
class Draft:
    """The surprisal (-log probability) of each character after some contexts, the commonest of the training text.

    Attributes:
        keys: (N,) int64, ascending, of `context_keys`; the empty context's, 0, is the first.
        surprisal: (N, V) uint8, in units of 1/24 nat.
    """

    keys: NDArray[np.int64]
    surprisal: NDArray[np.uint8]

    @cached_property
    def max_context(self) -> int:
        """Characters in the longest context."""
        length = 0
        key = int(self.keys[-1])
        while key:
            length += 1
            key //= self.surprisal.shape[1] + 1
        return length

    def propose(self, context: Sequence[int], noise: NDArray[np.float64], temperature: float) -> Proposal:
        """One draft token for each row of `noise`, each after those before it.

        Args:
            context: the last ids of the text, at most `max_context` of them.
            noise: (n, V) of the positions to come; zeros at temperature 0.
            temperature: the one that the network's characters are drawn with.
        """
        padded = np.full(self.max_context, -1, dtype=np.int64)
        padded[self.max_context - len(context) :] = context
        ids = np.empty(len(noise), dtype=np.int64)
        probabilities = np.empty(len(noise))
        self._compiled_propose(
            self.keys,
            self.surprisal,
            padded,
            noise,
            1 / UNITS_PER_NAT,
            float(temperature),
            MARGIN_SLOPE,
            ids,
            probabilities,
        )
        return Proposal(ids.tolist(), probabilities.tolist())

    def bits(self, ids: Sequence[int]) -> NDArray[np.float64]:
        """(N,) The surprisal in bits of each of `ids` after those before it: this n-gram's view of a text."""
        text = np.asarray(ids, dtype=np.int64)
        vocab_size = self.surprisal.shape[1]
        rows = np.zeros(len(text), np.int64)  # of the longest context found so far: at first the empty one's
        for length in range(1, min(self.max_context, len(text) - 1) + 1):
            keys = context_keys(sliding_window_view(text[:-1], length), vocab_size)
            found = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
            rows[length:] = np.where(self.keys[found] == keys, found, rows[length:])
        bits: NDArray[np.float64] = self.surprisal[rows, text] / (UNITS_PER_NAT * np.log(2))
        return bits

    @cached_property
    def _compiled_propose(self) -> Callable[..., None]:
        from model.jit import compile_and_call  # noqa: PLC0415 - Numba takes a quarter of a second
        from model.sampling.ngram_kernels import propose  # noqa: PLC0415

        context = np.full(self.max_context, -1, dtype=np.int64)
        noise = np.zeros((1, self.surprisal.shape[1]))
        ids = np.zeros(1, dtype=np.int64)
        probabilities = np.zeros(1)
        return compile_and_call(
            propose, self.keys, self.surprisal, context, noise, 1.0, 1.0, 1.0, ids, probabilities
        )

    def save(self, path: Path) -> None:
        """Write the table to a safetensors file."""
        path.write_bytes(save({"keys": self.keys, "surprise": self.surprisal}))

    @classmethod
    def load(cls, path: Path, vocab_size: int) -> "Draft":
        """Read a table.

        Raises:
            CheckpointError: the file cannot be read, or is of another vocabulary.
        """
        try:
            check_file(path, MAX_DRAFT_BYTES)
            tensors = load_file(path)
            keys = tensors["keys"]
            surprisal = tensors["surprise"]
        except (OSError, SafetensorError, KeyError, *NO_SUCH_TYPE) as error:
            raise CheckpointError(f"{path}: cannot be read ({error}); is it truncated?") from error
        typed = keys.dtype == np.int64 and surprisal.dtype == np.uint8 and keys.ndim == 1 and len(keys) > 0
        if not typed or surprisal.shape != (len(keys), vocab_size) or keys[0] != 0 or (keys[1:] <= keys[:-1]).any():
            raise CheckpointError(f"{path}: is not a table of contexts for {vocab_size} characters")
        draft = cls(keys, surprisal)
        if (vocab_size + 1) ** draft.max_context >= 1 << 63:  # a GPU computes with that number
            raise CheckpointError(f"{path}: has contexts of {draft.max_context} characters, which are too many")
        return draft


def context_keys(contexts: NDArray[np.int64], vocab_size: int) -> NDArray[np.int64]:
    """(N,) A number for each context (N, L), whose digits to the base `vocab_size` + 1 are the ids plus 1."""
    keys = np.zeros(len(contexts), dtype=np.int64)
    for column in contexts.T:
        keys = keys * (vocab_size + 1) + column + 1
    return keys
