"""One text being written: its characters so far, its luck, its stop strings. Knows nothing of slots or devices."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.errors import InputError
from model.noise import gumbel_noise
from model.sampling import Likelihood, Logits, Sampling, likelihood
from model.vocabulary import Vocabulary

FinishReason = Literal["length", "stop"]
NOISE_AHEAD = 64  # places; fewer with a large vocabulary
NOISE_SIZE = 1 << 16


@dataclass(frozen=True)
class Piece:
    """What one step released: text (empty while it may be the beginning of a stop string), and the end if it was.

    `details` has one entry per character of `text`, if asked for.
    """

    text: str
    details: tuple[Likelihood, ...] = ()
    finish_reason: FinishReason | None = None


@dataclass(eq=False)
class Stream:
    """One sample of one request. The text does not contain the prompt, nor the stop string that ended it."""

    vocabulary: Vocabulary
    prompt: Sequence[int]
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 1337
    sample: int = 0
    max_new_tokens: int = 500
    stop: tuple[str, ...] = ()
    details: bool = False
    written: list[int] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._pending = ""
        self._pending_details: list[Likelihood] = []
        self._luck = np.zeros((0, len(self.vocabulary)))  # noise of the places from `_luck_from` on
        self._luck_from = 0

    @property
    def remaining(self) -> int:
        """Characters that may still be written."""
        return self.max_new_tokens - len(self.written)

    def context(self, length: int) -> list[int]:
        """The last `length` ids of the prompt and the text together."""
        missing = max(0, length - len(self.written))
        return [*(self.prompt[-missing:] if missing else ()), *(self.written[-length:] if length else ())]

    def accept(self, chosen: int, logits: Logits) -> Piece:
        """Write the id that was drawn from logits (V,) and return what can be shown of the text."""
        self.written.append(chosen)
        self._pending += self.vocabulary.characters[chosen]
        if self.details:
            self._pending_details.append(likelihood(logits, chosen))
        matched = max((len(s) for s in self.stop if self._pending.endswith(s)), default=0)
        if matched:
            return self._release(matched, "stop")
        if self.remaining <= 0:
            return self._release(0, "length")
        return self._release(max((_overlap(self._pending, s) for s in self.stop), default=0), None)

    def luck(self, count: int) -> tuple[NDArray[np.float64], float]:
        """Noise (`count`, V) of the next places, and the temperature; no noise at temperature 0."""
        if self.sampling.temperature == 0:
            return np.zeros((count, len(self.vocabulary))), 0.0
        first = len(self.written) - self._luck_from
        if first + count > len(self._luck):
            self._luck_from, first, size = len(self.written), 0, len(self.vocabulary)
            ahead = max(count, min(NOISE_AHEAD, NOISE_SIZE // size))
            self._luck = gumbel_noise(self.seed, self.sample, self._luck_from, ahead, size)
        return self._luck[first : first + count], self.sampling.temperature

    def _release(self, held: int, finish_reason: FinishReason | None) -> Piece:
        """Let go of all pending text but its last `held` characters."""
        end = len(self._pending) - held
        piece = Piece(self._pending[:end], tuple(self._pending_details[:end]), finish_reason)
        self._pending, self._pending_details = self._pending[end:], self._pending_details[end:]
        return piece


def make_streams(
    vocabulary: Vocabulary,
    sampling: Sampling,
    *,
    prompt: str,
    seed: int,
    num_samples: int,
    max_new_tokens: int,
    stop: Sequence[str],
    details: bool = False,
) -> list[Stream]:
    """One stream for each sample of a request.

    Raises:
        InputError: the prompt is empty.
        UnknownCharactersError: the prompt or a stop string has characters outside the vocabulary.
    """
    if not prompt:
        raise InputError("prompt", "is empty; a line break is the least to begin with")
    ids = vocabulary.encode(prompt, "prompt")
    for index, text in enumerate(stop):
        vocabulary.encode(text, f"stop[{index}]")
    return [
        Stream(vocabulary, ids, sampling, seed, sample, max_new_tokens, tuple(stop), details)
        for sample in range(num_samples)
    ]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    return next(n for n in range(min(len(text), len(stop) - 1), -1, -1) if text.endswith(stop[:n]))
