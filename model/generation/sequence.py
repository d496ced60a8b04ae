"""One text being generated: its characters so far, its noise, its stop strings. Knows nothing of slots."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.errors import InputError
from model.sampling.noise import GumbelNoise
from model.sampling.sampler import ALTERNATIVES, Logprob, Sampling
from model.vocabulary import Vocabulary

FinishReason = Literal["length", "stop"]


class Chunk(NamedTuple):
    """What one step released: text (empty while it may be the beginning of a stop string), and the end if it was.

    `logprobs` has one entry per character of `text`, from the sequence's `logprobs_from` on.
    """

    text: str
    logprobs: tuple[Logprob, ...] = ()
    finish_reason: FinishReason | None = None

    @classmethod
    def joined(cls, chunks: Sequence["Chunk"]) -> "Chunk":
        """One or more that follow each other, as one."""
        if len(chunks) == 1:
            return chunks[0]
        text = "".join([chunk.text for chunk in chunks])
        logprobs: list[Logprob] = []
        for chunk in chunks:
            logprobs += chunk.logprobs
        return cls(text, tuple(logprobs), chunks[-1].finish_reason)


@dataclass(eq=False)
class TextSequence:
    """One sample of one request. The text does not contain the prompt, nor the stop string that ended it.

    Attributes:
        vocabulary: of the prompt and the text.
        prompt: ids, at least one.
        sampling: how characters are chosen.
        seed, sample: which Gumbel noise is drawn with.
        max_new_tokens: characters that are written at most.
        stop: strings that end the text, before the first character of them.
        logprobs_from: the first character of which log-probabilities are computed; None for none.
        alternatives: likeliest characters that are listed with each of these.
        given: ids of a text, at most `max_new_tokens`, that is not drawn but read, to learn its log-probabilities.
        written: ids drawn (or given) so far, those of a stop string included.
    """

    vocabulary: Vocabulary
    prompt: Sequence[int]
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 1337
    sample: int = 0
    max_new_tokens: int = 500
    stop: tuple[str, ...] = ()
    logprobs_from: int | None = None
    alternatives: int = ALTERNATIVES
    given: Sequence[int] | None = None
    written: list[int] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        prefixes: set[str] = set()
        for text in self.stop:
            prefixes.update(text[:end] for end in range(1, len(text)))
        self._stop_prefixes = frozenset(prefixes)
        self._max_prefix = max((len(text) - 1 for text in self.stop), default=0)
        self._pending = ""  # text that is written but not released: a stop string may have begun in it
        self._pending_logprobs: list[Logprob] = []  # of the last characters of it
        self._unfiltered = self.sampling.temperature == 0 or self.sampling.keeps_all(len(self.vocabulary))
        self.gumbel_noise = GumbelNoise(self.seed, self.sample, len(self.vocabulary))

    @property
    def remaining(self) -> int:
        """Characters that may still be written."""
        return self.max_new_tokens - len(self.written)

    @property
    def draws_unfiltered(self) -> bool:
        """True if the text is drawn, and no filter stands between the logits and the draw."""
        return self._unfiltered and self.given is None

    def context(self, length: int) -> list[int]:
        """The last `length` ids of the prompt and the text together."""
        if length == 0:
            return []
        of_prompt = max(0, length - len(self.written))
        context = list(self.prompt[-of_prompt:]) if of_prompt else []
        context += self.written[-length:]
        return context

    def next_given(self, count: int) -> list[int]:
        """The next `count` ids of a text that is given."""
        if self.given is None:
            return []
        first = len(self.written)
        return list(self.given[first : first + count])

    def count_without_logprobs(self, count: int) -> int:
        """How many of the next `count` characters come before `logprobs_from`."""
        if self.logprobs_from is None:
            return count
        return min(count, max(0, self.logprobs_from - len(self.written)))

    def noise(self, count: int) -> NDArray[np.float64]:
        """Gumbel noise (`count`, V) of the next positions; zeros at temperature 0."""
        if self.sampling.temperature == 0:
            return np.zeros((count, len(self.vocabulary)))
        return self.gumbel_noise.at(len(self.written), count)

    def accept(self, chosen: Sequence[int], logprobs: Sequence[Logprob | None]) -> Chunk:
        """Write ids that were chosen, up to the end of the text; return what can be shown.

        Args:
            chosen: at most as many as remain.
            logprobs: one for each id, None where none was computed.
        """
        if not self.stop:  # nothing has to be held back
            self.written += chosen
            text = "".join([self.vocabulary.characters[id_] for id_ in chosen])
            computed = tuple([one for one in logprobs if one is not None])
            return Chunk(text, computed, None if self.remaining > 0 else "length")
        chunks = []
        for id_, logprob in zip(chosen, logprobs, strict=True):
            chunks.append(self._accept_one(id_, logprob))
            if chunks[-1].finish_reason is not None:
                break
        return Chunk.joined(chunks)

    def _accept_one(self, chosen: int, logprob: Logprob | None) -> Chunk:
        """Write one id; release the pending text that no stop string can begin in any more."""
        self.written.append(chosen)
        self._pending += self.vocabulary.characters[chosen]
        if logprob is not None:
            self._pending_logprobs.append(logprob)
        if self._pending.endswith(self.stop):
            complete = [text for text in self.stop if self._pending.endswith(text)]
            return self._release(max(map(len, complete)), "stop")
        if self.remaining <= 0:
            return self._release(0, "length")
        return self._release(self._stop_prefix_length(), None)

    def _stop_prefix_length(self) -> int:
        """The length of the longest end of the pending text that a stop string begins with; 0 if none does."""
        for length in range(min(len(self._pending), self._max_prefix), 0, -1):
            if self._pending[-length:] in self._stop_prefixes:
                return length
        return 0

    def _release(self, held: int, finish_reason: FinishReason | None) -> Chunk:
        """A chunk of all pending text but its last `held` characters, which stay pending."""
        end = len(self._pending) - held
        # They are of the last pending characters: with `logprobs_from` they can be fewer than these.
        logprobs_end = max(0, len(self._pending_logprobs) - held)
        chunk = Chunk(self._pending[:end], tuple(self._pending_logprobs[:logprobs_end]), finish_reason)
        self._pending = self._pending[end:]
        self._pending_logprobs = self._pending_logprobs[logprobs_end:]
        return chunk


def make_sequences(
    vocabulary: Vocabulary,
    sampling: Sampling,
    *,
    prompt: str,
    seed: int,
    num_samples: int,
    max_new_tokens: int,
    stop: Sequence[str],
    logprobs_from: Sequence[int] | None = None,
    alternatives: int = ALTERNATIVES,
) -> list[TextSequence]:
    """One sequence for each sample of a request, each with its own `logprobs_from` if given.

    Raises:
        InputError: the prompt is empty.
        UnknownCharactersError: the prompt has characters outside the vocabulary.
    """
    if not prompt:
        raise InputError("prompt", f"is empty; {vocabulary.default_prompt!r} is the least to begin with")
    ids = vocabulary.encode(prompt, "prompt")
    # A stop string that this vocabulary cannot write never ends a text, so it is left out.
    stop_strings = tuple(text for text in stop if text and vocabulary.can_write(text))
    sequences = []
    for sample in range(num_samples):
        sequences.append(
            TextSequence(
                vocabulary,
                ids,
                sampling,
                seed,
                sample,
                max_new_tokens,
                stop_strings,
                logprobs_from=None if logprobs_from is None else logprobs_from[sample],
                alternatives=alternatives,
            )
        )
    return sequences


def make_scored_sequence(
    vocabulary: Vocabulary, sampling: Sampling, *, prompt: str, text: str, first: int, alternatives: int
) -> TextSequence:
    """A sequence whose text is given, with the log-probabilities of its characters from `first` on.

    Raises:
        InputError: the prompt is empty, or `first` is not in the text.
        UnknownCharactersError: the prompt or the text has characters outside the vocabulary.
    """
    [sequence] = make_sequences(
        vocabulary,
        sampling,
        prompt=prompt,
        seed=0,
        num_samples=1,
        max_new_tokens=len(text),
        stop=(),
        logprobs_from=[first],
        alternatives=alternatives,
    )
    sequence.given = vocabulary.encode(text, "text")
    if first >= len(text):
        raise InputError("first", f"{first} is beyond the text; its last character is {len(text) - 1}")
    return sequence
