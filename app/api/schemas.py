"""The bodies of `/generate` and `/score`. Owns their fields and limits, and turns a request into sequences.

Knows nothing of HTTP or of the form of an answer.
"""

import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.settings import MAX_NEW_TOKENS
from model.errors import InputError
from model.generation.sequence import TextSequence, make_scored_sequence, make_sequences
from model.sampling.noise import SEED_LIMIT
from model.sampling.sampler import ALTERNATIVES, Sampling
from model.vocabulary import Vocabulary

MAX_PROMPT = 16_384
MAX_SAMPLES = 16
MAX_STOPS = 64
MAX_STOP_LENGTH = 256  # characters
MAX_ALTERNATIVES = 1000
# Characters and their alternatives, each about 50 bytes of JSON, in one answer:
MAX_BUFFERED_ENTRIES = 200_000  # that is held in memory until it is complete, about 10 MB
MAX_STREAMED_ENTRIES = 2_000_000  # that is sent while it is made


def _as_integer(value: Any) -> Any:
    """12 for 12.0, since JSON has one kind of number and some clients write integers so; else the value itself."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    return value


JsonInteger = Annotated[int, BeforeValidator(_as_integer)]


class SamplingFields(BaseModel):
    """A prompt, and how the characters after it are sampled; the defaults are nanoGPT's."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    prompt: str = Field("", max_length=MAX_PROMPT)
    """What the text follows; empty means a line break, or `default_prompt` of `/info` for a model that knows no
    line breaks. Only its last `block_size` characters are seen."""
    temperature: float = Field(0.8, ge=0, le=100)
    """Below 1 more certain, above 1 bolder; 0 always takes the likeliest character."""
    top_k: JsonInteger | None = Field(200, ge=1)
    """Choose among this many likeliest characters; clamped to the vocabulary, null for all."""
    top_p: float | None = Field(None, ge=0, le=1)
    """Choose among the likeliest characters that together have this probability; 0 leaves the likeliest alone."""
    min_p: float | None = Field(None, ge=0, le=1)
    """Choose among characters at least this fraction as likely as the likeliest."""

    def sampling(self) -> Sampling:
        """The settings of the sampler."""
        return Sampling(self.temperature, self.top_k, self.top_p, self.min_p)


class LogprobFields(SamplingFields):
    """The fields that `/generate` and `/score` have in common."""

    alternatives: JsonInteger = Field(ALTERNATIVES, ge=0, le=MAX_ALTERNATIVES)
    """How many of the likeliest characters to list for each character; clamped to the vocabulary."""

    def resolved(self, vocabulary: Vocabulary) -> Self:
        """The request with defaults filled in: an empty prompt replaced, counts clamped to the vocabulary."""
        top_k = None if self.top_k is None else min(self.top_k, len(vocabulary))
        alternatives = min(self.alternatives, len(vocabulary))
        prompt = self.prompt or vocabulary.default_prompt
        return self.model_copy(update={"prompt": prompt, "top_k": top_k, "alternatives": alternatives})


class GenerateRequest(LogprobFields):
    """The body of `POST /generate`."""

    max_new_tokens: JsonInteger = Field(500, ge=1, le=MAX_NEW_TOKENS)
    """Characters to write, per sample."""
    seed: JsonInteger | None = Field(None, ge=0, lt=SEED_LIMIT)
    """The same seed gives the same text; drawn and returned when absent."""
    num_samples: JsonInteger = Field(1, ge=1, le=MAX_SAMPLES)
    """Texts to write side by side."""
    stop: list[Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]] = Field(
        default=[], max_length=MAX_STOPS
    )
    """End a sample before any of these strings; one that the model cannot write ends none."""
    details: bool = False
    """Send each character's probability (the model's own, and the final one after temperature and filters), rank,
    entropy in bits, and likeliest alternatives."""
    report: bool = False
    """Mark while the text is written what is copied from the training text (`copied`: the length of the run that
    ends at each character) and which words are `invented`; and add at the end what `/report` answers: with
    `details` the model's own surprise too, which costs more than the rest."""
    stream: bool = True
    """Server-sent events; false for one JSON object."""

    def resolved(self, vocabulary: Vocabulary) -> Self:
        """The request with defaults filled in, and a random seed if it has none."""
        seed = secrets.randbits(32) if self.seed is None else self.seed
        return super().resolved(vocabulary).model_copy(update={"seed": seed})

    def parameters(self) -> dict[str, Any]:
        """The `parameters` of an answer: all fields but `seed`, which is beside them, and `stream`."""
        return self.model_dump(exclude={"seed", "stream"})

    def sequences(self, vocabulary: Vocabulary, sent: Sequence[int]) -> list[TextSequence]:
        """One sequence for each sample of a resolved request.

        The first `sent[i]` characters of sample i get no log-probabilities: its client has them already. A report
        needs those of all characters.

        Raises:
            UnknownCharactersError: the prompt has characters outside the vocabulary.
        """
        logprobs_from: Sequence[int] | None = None
        if self.details:
            logprobs_from = [0] * self.num_samples if self.report else sent
        return make_sequences(
            vocabulary,
            self.sampling(),
            prompt=self.prompt,
            seed=self.seed or 0,
            num_samples=self.num_samples,
            max_new_tokens=self.max_new_tokens,
            stop=self.stop,
            logprobs_from=logprobs_from,
            alternatives=self.alternatives,
        )

    def check_size(self) -> None:
        """Refuse an answer as one JSON object that would take too much memory.

        Raises:
            InputError: it would; names `alternatives`, or `details` if no alternatives are asked for.
        """
        if self.details:
            field = "alternatives" if self.alternatives else "details"
            count = self.num_samples * self.max_new_tokens * (self.alternatives + 1)
            check_answer_size(field, count, MAX_BUFFERED_ENTRIES, "stream them")


class ScoreRequest(LogprobFields):
    """The body of `POST /score`."""

    text: str = Field(min_length=1, max_length=MAX_PROMPT)
    """What is scored: how likely the model finds each of its characters after all that comes before."""
    first: JsonInteger = Field(0, ge=0)
    """Answer for the text's characters from this one on."""

    def sequence(self, vocabulary: Vocabulary) -> TextSequence:
        """The sequence that scores the text of a resolved request.

        Raises:
            UnknownCharactersError: the prompt or the text has characters outside the vocabulary.
            InputError: `first` is beyond the text, or too many alternatives are asked for.
        """
        count = (len(self.text) - self.first) * self.alternatives
        check_answer_size("alternatives", count, MAX_STREAMED_ENTRIES, "score a part of the text")
        return make_scored_sequence(
            vocabulary,
            self.sampling(),
            prompt=self.prompt,
            text=self.text,
            first=self.first,
            alternatives=self.alternatives,
        )


class GenerateQuery(GenerateRequest):
    """The same fields in a URL, where every value is text; unknown ones, such as `_=1`, are ignored."""

    model_config = ConfigDict(strict=False, extra="ignore")


def check_answer_size(field: str, count: int, limit: int, remedy: str) -> None:
    """Refuse an answer with more characters and alternatives than one JSON object may have.

    Raises:
        InputError: `count` is over `limit`; names `field`.
    """
    if count > limit:
        raise InputError(field, f"{count:,} in all are more than {limit:,}; ask for fewer, or {remedy}")


def limit_length(request: GenerateRequest, limit: int) -> GenerateRequest:
    """The request, with a default `max_new_tokens` lowered to the most that this server writes.

    Raises:
        InputError: the client's own `max_new_tokens` is over the limit.
    """
    if request.max_new_tokens <= limit:
        return request
    if "max_new_tokens" in request.model_fields_set:
        raise InputError("max_new_tokens", f"this server writes {limit} at most, not {request.max_new_tokens}")
    return request.model_copy(update={"max_new_tokens": limit})
