"""What a client may ask for. Turns a checked request into streams to write."""

import secrets
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from model.noise import SEED_LIMIT
from model.sampling import Sampling
from model.stream import Stream, make_streams
from model.vocabulary import Vocabulary

MAX_PROMPT = 16_384
MAX_NEW_TOKENS = 100_000
MAX_SAMPLES = 16


class GenerateRequest(BaseModel):
    """The body of `POST /generate`; the defaults are nanoGPT's."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    prompt: str = Field("\n", max_length=MAX_PROMPT)
    """Text to continue; empty means a line break. Only its last `block_size` characters are seen."""
    max_new_tokens: int = Field(500, ge=1, le=MAX_NEW_TOKENS)
    """Characters to write, per sample."""
    temperature: float = Field(0.8, ge=0, le=100)
    """Below 1 more certain, above 1 bolder; 0 always takes the likeliest character."""
    top_k: int | None = Field(200, ge=1)
    """Choose among this many likeliest characters; clamped to the vocabulary, null for all."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Choose among the likeliest characters that together have this probability."""
    min_p: float | None = Field(None, ge=0, le=1)
    """Choose among characters at least this fraction as likely as the likeliest."""
    seed: int | None = Field(None, ge=0, lt=SEED_LIMIT)
    """The same seed gives the same text; drawn and returned when absent."""
    num_samples: int = Field(1, ge=1, le=MAX_SAMPLES)
    """Texts to write side by side."""
    stop: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(default=[], max_length=4)
    """End a sample before any of these strings."""
    details: bool = False
    """Send each character's probability, rank, entropy and likeliest alternatives."""
    stream: bool = True
    """Server-sent events; false for one JSON object."""

    def in_force(self, vocabulary: Vocabulary) -> "GenerateRequest":
        """The request with its blanks filled: a seed drawn, an empty prompt replaced, top_k clamped."""
        top_k = None if self.top_k is None else min(self.top_k, len(vocabulary))
        seed = secrets.randbits(32) if self.seed is None else self.seed
        return self.model_copy(update={"prompt": self.prompt or "\n", "top_k": top_k, "seed": seed})

    def parameters(self) -> dict[str, Any]:
        """All fields but those that are told apart from the parameters, or do not change the text."""
        return self.model_dump(exclude={"seed", "stream"})

    def streams(self, vocabulary: Vocabulary) -> list[Stream]:
        """One stream per sample.

        Raises:
            UnknownCharactersError: the prompt or a stop string has characters outside the vocabulary.
        """
        return make_streams(
            vocabulary,
            Sampling(self.temperature, self.top_k, self.top_p, self.min_p),
            prompt=self.prompt,
            seed=self.seed or 0,
            num_samples=self.num_samples,
            max_new_tokens=self.max_new_tokens,
            stop=self.stop,
            details=self.details,
        )


class GenerateQuery(GenerateRequest):
    """The same fields in a URL, where every value is text."""

    model_config = ConfigDict(strict=False)
