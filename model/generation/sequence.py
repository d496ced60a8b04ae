"""One text being written: its characters so far, its luck, its stop strings. Knows nothing of slots or devices."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.errors import InputError
from model.sampling.noise import GumbelNoise
from model.sampling.sampler import ALTERNATIVES, Likelihood, Sampling
from model.vocabulary import Vocabulary

FinishReason = Literal["length", "stop"]


class Chunk(NamedTuple):
    """What one step released: text (empty while it may be the beginning of a stop string), and the end if it was.

    `details` has one entry per character of `text`, from the stream's `details_from` on.
    """

    text: str
    details: tuple[Likelihood, ...] = ()
    finish_reason: FinishReason | None = None

    @classmethod
    def joined(cls, pieces: Sequence["Chunk"]) -> "Chunk":
        """One or more that follow each other, as one."""
        if len(pieces) == 1:
            return pieces[0]
        text = "".join([piece.text for piece in pieces])
        details = tuple(one for piece in pieces for one in piece.details)
        return cls(text, details, pieces[-1].finish_reason)


@dataclass(eq=False)
class TextSequence:
    """One sample of one request. The text does not contain the prompt, nor the stop string that ended it.

    From the character `details_from` on, each one's likelihood is told, with so many `alternatives`; None for no
    character's. A text that is `given`, of at most `max_new_tokens`, is not drawn, but written out and told of.
    """

    vocabulary: Vocabulary
    prompt: Sequence[int]
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 1337
    sample: int = 0
    max_new_tokens: int = 500
    stop: tuple[str, ...] = ()
    details_from: int | None = None
    alternatives: int = ALTERNATIVES
    given: Sequence[int] | None = None
    written: list[int] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._beginnings = frozenset(text[:end] for text in self.stop for end in range(1, len(text)))
        self._longest_beginning = max((len(text) - 1 for text in self.stop), default=0)
        self._pending = ""
        self._pending_details: list[Likelihood] = []
        self._plain = self.sampling.temperature == 0 or self.sampling.keeps_all(len(self.vocabulary))
        self.luck = GumbelNoise(self.seed, self.sample, len(self.vocabulary))

    @property
    def remaining(self) -> int:
        """Characters that may still be written."""
        return self.max_new_tokens - len(self.written)

    @property
    def draws_plainly(self) -> bool:
        """True if no filter is between the logits and the draw."""
        return self._plain and self.given is None

    def context(self, length: int) -> list[int]:
        """The last `length` ids of the prompt and the text together."""
        missing = max(0, length - len(self.written))
        return [*(self.prompt[-missing:] if missing else ()), *(self.written[-length:] if length else ())]

    def next_given(self, count: int) -> list[int]:
        """The next `count` ids of a text that is given."""
        return list((self.given or ())[len(self.written) : len(self.written) + count])

    def untold(self, count: int) -> int:
        """How many of the next `count` characters come before the first whose likelihood is told."""
        return count if self.details_from is None else min(count, max(0, self.details_from - len(self.written)))

    def accept(self, chosen: Sequence[int], details: Sequence[Likelihood | None]) -> Chunk:
        """Write ids that were drawn, up to the end, with what is told of each; return what can be shown."""
        if not self.stop:  # all of it
            self.written += chosen
            text = "".join([self.vocabulary.characters[id_] for id_ in chosen])
            told = tuple([one for one in details if one is not None])
            return Chunk(text, told, None if self.remaining > 0 else "length")
        pieces = []
        for id_, likelihood in zip(chosen, details, strict=True):
            pieces.append(self._accept(id_, likelihood))
            if pieces[-1].finish_reason is not None:
                break
        return Chunk.joined(pieces)

    def _accept(self, chosen: int, likelihood: Likelihood | None) -> Chunk:
        """Write one id."""
        self.written.append(chosen)
        self._pending += self.vocabulary.characters[chosen]
        if likelihood is not None:
            self._pending_details.append(likelihood)
        if self._pending.endswith(self.stop):
            return self._release(max(len(text) for text in self.stop if self._pending.endswith(text)), "stop")
        if self.remaining <= 0:
            return self._release(0, "length")
        return self._release(self._begun(), None)

    def _begun(self) -> int:
        """Length of the longest end of the pending text that a stop string begins with, however many there are."""
        most = min(len(self._pending), self._longest_beginning)
        return next((n for n in range(most, 0, -1) if self._pending[-n:] in self._beginnings), 0)

    def noise(self, count: int) -> tuple[NDArray[np.float64], float]:
        """Noise (`count`, V) of the next places, and the temperature; no noise at temperature 0."""
        if self.sampling.temperature == 0:
            return np.zeros((count, len(self.vocabulary))), 0.0
        return self.luck.at(len(self.written), count), self.sampling.temperature

    def _release(self, held: int, finish_reason: FinishReason | None) -> Chunk:
        """Let go of all pending text but its last `held` characters."""
        end, told = len(self._pending) - held, max(0, len(self._pending_details) - held)
        piece = Chunk(self._pending[:end], tuple(self._pending_details[:told]), finish_reason)
        self._pending, self._pending_details = self._pending[end:], self._pending_details[told:]
        return piece


def make_sequences(
    vocabulary: Vocabulary,
    sampling: Sampling,
    *,
    prompt: str,
    seed: int,
    num_samples: int,
    max_new_tokens: int,
    stop: Sequence[str],
    details_from: Sequence[int] | None = None,
    alternatives: int = ALTERNATIVES,
) -> list[TextSequence]:
    """One stream for each sample of a request, each with its own `details_from` if given.

    Raises:
        InputError: the prompt is empty.
        UnknownCharactersError: the prompt has characters outside the vocabulary.
    """
    if not prompt:
        raise InputError("prompt", f"is empty; {vocabulary.default_prompt!r} is the least to begin with")
    ids = vocabulary.encode(prompt, "prompt")
    written = tuple(text for text in stop if text and vocabulary.can_write(text))  # others never are
    places: Sequence[int | None] = [None] * num_samples if details_from is None else details_from
    return [
        TextSequence(vocabulary, ids, sampling, seed, sample, max_new_tokens, written, place, alternatives)
        for sample, place in enumerate(places)
    ]


def make_scored_sequence(
    vocabulary: Vocabulary, sampling: Sampling, *, prompt: str, text: str, first: int, alternatives: int
) -> TextSequence:
    """A stream that writes a given text and tells the likelihoods of its characters from `first` on.

    Raises:
        InputError: the prompt is empty, or `first` is not in the text.
        UnknownCharactersError: the prompt or the text has characters outside the vocabulary.
    """
    stream = make_sequences(
        vocabulary,
        sampling,
        prompt=prompt,
        seed=0,
        num_samples=1,
        max_new_tokens=len(text),
        stop=(),
        details_from=[first],
        alternatives=alternatives,
    )[0]
    stream.given = vocabulary.encode(text, "text")
    if first >= len(text):
        raise InputError("first", f"{first} is beyond the text; its last character is {len(text) - 1}")
    return stream
