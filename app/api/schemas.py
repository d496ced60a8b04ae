"""What a client may ask for. Turns a checked request into streams to write."""

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
MAX_STOP = 256  # characters
MAX_ALTERNATIVES = 1000
MAX_TOLD = 200_000  # characters and alternatives in one JSON object that waits for its reader: about 10 MB
MAX_SCORED = 2_000_000  # in one that goes out while it is made


def _whole(value: Any) -> Any:
    """12.0 as 12: JSON has one kind of number, and some clients write it so."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**63 else value


Whole = Annotated[int, BeforeValidator(_whole)]


class Asked(BaseModel):
    """A prompt and how characters are chosen after it; the defaults are nanoGPT's."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    prompt: str = Field("", max_length=MAX_PROMPT)
    """What the text follows; empty means a line break, or what `default_prompt` in `/info` tells for a model that
    knows none. Only its last `block_size` characters are seen."""
    temperature: float = Field(0.8, ge=0, le=100)
    """Below 1 more certain, above 1 bolder; 0 always takes the likeliest character."""
    top_k: Whole | None = Field(200, ge=1)
    """Choose among this many likeliest characters; clamped to the vocabulary, null for all."""
    top_p: float | None = Field(None, ge=0, le=1)
    """Choose among the likeliest characters that together have this probability; 0 leaves the likeliest alone."""
    min_p: float | None = Field(None, ge=0, le=1)
    """Choose among characters at least this fraction as likely as the likeliest."""

    def sampling(self) -> Sampling:
        """How a character is chosen."""
        return Sampling(self.temperature, self.top_k, self.top_p, self.min_p)


class Told(Asked):
    """What texts that are written and texts that are scored have in common."""

    alternatives: Whole = Field(ALTERNATIVES, ge=0, le=MAX_ALTERNATIVES)
    """How many of the likeliest characters are told of for each character; clamped to the vocabulary."""

    def in_force(self, vocabulary: Vocabulary) -> Self:
        """The request with its blanks filled: an empty prompt replaced, numbers clamped to the vocabulary."""
        top_k = None if self.top_k is None else min(self.top_k, len(vocabulary))
        alternatives = min(self.alternatives, len(vocabulary))
        prompt = self.prompt or vocabulary.default_prompt
        return self.model_copy(update={"prompt": prompt, "top_k": top_k, "alternatives": alternatives})


class GenerateRequest(Told):
    """The body of `POST /generate`."""

    max_new_tokens: Whole = Field(500, ge=1, le=MAX_NEW_TOKENS)
    """Characters to write, per sample."""
    seed: Whole | None = Field(None, ge=0, lt=SEED_LIMIT)
    """The same seed gives the same text; drawn and returned when absent."""
    num_samples: Whole = Field(1, ge=1, le=MAX_SAMPLES)
    """Texts to write side by side."""
    stop: list[Annotated[str, Field(min_length=1, max_length=MAX_STOP)]] = Field(default=[], max_length=MAX_STOPS)
    """End a sample before any of these strings; one that the model cannot write ends none."""
    details: bool = False
    """Send each character's probability (the model's own, and the final one after temperature and filters), rank,
    entropy in bits, and likeliest alternatives."""
    report: bool = False
    """Tell while it is written what is copied from the training text (`copied`: the length of the run that ends at
    each character) and which words are `invented`; and at the end all that `/report` tells: with `details` the
    model's own surprise too, which costs more than the rest."""
    stream: bool = True
    """Server-sent events; false for one JSON object."""

    def in_force(self, vocabulary: Vocabulary) -> Self:
        """As above, and a seed drawn."""
        seed = secrets.randbits(32) if self.seed is None else self.seed
        return super().in_force(vocabulary).model_copy(update={"seed": seed})

    def parameters(self) -> dict[str, Any]:
        """All fields but those that are told apart from the parameters, or are of the answer's form."""
        return self.model_dump(exclude={"seed", "stream"})

    def streams(self, vocabulary: Vocabulary, sent: Sequence[int]) -> list[TextSequence]:
        """One stream per sample; `sent` characters of each need no details.

        Raises:
            UnknownCharactersError: the prompt has characters outside the vocabulary.
        """
        return make_sequences(
            vocabulary,
            self.sampling(),
            prompt=self.prompt,
            seed=self.seed or 0,
            num_samples=self.num_samples,
            max_new_tokens=self.max_new_tokens,
            stop=self.stop,
            logprobs_from=None if not self.details else [0] * self.num_samples if self.report else sent,
            alternatives=self.alternatives,
        )

    def check_size(self) -> None:
        """Refuse an answer in one piece that would take too much memory.

        Raises:
            InputError: names `alternatives`, or `details` where there are none.
        """
        if self.details:
            field = "alternatives" if self.alternatives else "details"
            count = self.num_samples * self.max_new_tokens * (self.alternatives + 1)
            check_told(field, count, MAX_TOLD, "stream them")


class ScoreRequest(Told):
    """The body of `POST /score`."""

    text: str = Field(min_length=1, max_length=MAX_PROMPT)
    """What is scored: how likely the model finds each of its characters after all that comes before."""
    first: Whole = Field(0, ge=0)
    """Tell of the text's characters from this one on."""

    def stream(self, vocabulary: Vocabulary) -> TextSequence:
        """The stream that reads the text.

        Raises:
            UnknownCharactersError: the prompt or the text has characters outside the vocabulary.
            InputError: `first` is beyond the text, or too many alternatives are asked for.
        """
        count = (len(self.text) - self.first) * self.alternatives
        check_told("alternatives", count, MAX_SCORED, "score a part of the text")
        return make_scored_sequence(
            vocabulary,
            self.sampling(),
            prompt=self.prompt,
            text=self.text,
            first=self.first,
            alternatives=self.alternatives,
        )


class GenerateQuery(GenerateRequest):
    """The same fields in a URL, where every value is text; what else is there, such as `_=1`, is not for us."""

    model_config = ConfigDict(strict=False, extra="ignore")


def check_told(field: str, count: int, most: int, remedy: str) -> None:
    """Refuse to tell of more characters and alternatives than one JSON answer may hold.

    Raises:
        InputError: names `field`.
    """
    if count > most:
        raise InputError(field, f"{count:,} in all are more than {most:,}; ask for fewer, or {remedy}")


def limit_length(asked: GenerateRequest, longest: int) -> GenerateRequest:
    """The request, with a length that was not given no longer than this server writes.

    Raises:
        InputError: the length that was given is.
    """
    if asked.max_new_tokens <= longest:
        return asked
    if "max_new_tokens" in asked.model_fields_set:
        raise InputError("max_new_tokens", f"this server writes {longest} at most, not {asked.max_new_tokens}")
    return asked.model_copy(update={"max_new_tokens": longest})
