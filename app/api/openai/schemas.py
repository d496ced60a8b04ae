"""The body of `/v1/completions`, and the sequences that it asks for. A token is one character.

Owns OpenAI's names and rules. Knows nothing of the form of an answer.
"""

import secrets
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from app.api.schemas import (
    MAX_BUFFERED_ENTRIES,
    MAX_PROMPT,
    MAX_SAMPLES,
    MAX_STOP_LENGTH,
    MAX_STOPS,
    JsonInteger,
    check_answer_size,
)
from app.settings import MAX_NEW_TOKENS
from model.errors import InputError
from model.generation.sequence import TextSequence, make_scored_sequence, make_sequences
from model.sampling.noise import SEED_LIMIT
from model.sampling.sampler import Sampling
from model.vocabulary import Vocabulary

MAX_LOGPROBS = 5


def _texts(value: Any) -> Any:
    """A list of strings; a single string becomes a list of one."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise PydanticCustomError("texts", "Input should be a string or a list of strings")
    return texts


Prompt = Annotated[str, Field(max_length=MAX_PROMPT)]
_PromptList = Annotated[list[Prompt], Field(min_length=1, max_length=MAX_SAMPLES)]
Prompts = Annotated[_PromptList, BeforeValidator(_texts, json_schema_input_type=Prompt | _PromptList)]
Stop = Annotated[str, Field(max_length=MAX_STOP_LENGTH)]
_StopList = Annotated[list[Stop], Field(max_length=MAX_STOPS)]
Zero = Annotated[float, Field(ge=0, le=0)]
Stops = Annotated[_StopList, BeforeValidator(_texts, json_schema_input_type=Stop | _StopList)]


def _nullable(schema: dict[str, Any]) -> None:
    """Say in the JSON schema, which is changed in place, that null stands for a field's default."""
    for name, described in schema["properties"].items():
        if name in schema.get("required", []):
            continue
        nullable = {"anyOf": [described, {"type": "null"}]}
        for key in ("description", "default", "title"):
            if key in described:
                nullable[key] = described.pop(key)
        schema["properties"][name] = nullable


class OpenAIModel(BaseModel):
    """Fields as OpenAI's clients send them: null is the same as absent."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        json_schema_extra=_nullable,
    )

    @model_validator(mode="before")
    @classmethod
    def drop_nulls(cls, fields: Any) -> Any:
        """Leave out fields that are null, but not unknown ones, which are refused."""
        if not isinstance(fields, dict):
            return fields
        return {name: value for name, value in fields.items() if value is not None or name not in cls.model_fields}


class StreamOptions(OpenAIModel):
    """What a stream has besides text."""

    include_usage: bool = False
    """Send the counts in a chunk of their own, before the end."""
    include_obfuscation: Literal[False] = False
    """Padding against eavesdroppers; there is none here."""


class CompletionRequest(OpenAIModel):
    """The body of `POST /v1/completions`; the defaults are OpenAI's."""

    model: str = Field(max_length=256)
    """A name that `/v1/models` lists."""
    prompt: Prompts = [""]
    """What the text follows, or several, each with texts of its own; empty means a line break, or `default_prompt`
    of `/info` for a model that knows no line breaks."""
    max_tokens: JsonInteger = Field(16, ge=0, le=MAX_NEW_TOKENS)
    """Characters to write; 0 with `echo`, to score the prompt alone."""
    temperature: float = Field(1, ge=0, le=100)
    """Below 1 more certain, above 1 bolder; 0 always takes the likeliest character."""
    top_p: float = Field(1, ge=0, le=1)
    """Choose among the likeliest characters that together have this probability; 0 leaves the likeliest alone."""
    top_k: JsonInteger = Field(0, ge=-1)
    """Choose among this many likeliest characters; 0 or -1 for all. Not OpenAI's."""
    min_p: float = Field(0, ge=0, le=1)
    """Choose among characters at least this fraction as likely as the likeliest. Not OpenAI's."""
    n: JsonInteger = Field(1, ge=1, le=MAX_SAMPLES)
    """Texts for each prompt."""
    best_of: JsonInteger | None = None
    """The same as `n`: all texts are returned."""
    seed: JsonInteger | None = Field(None, ge=-(2**63), lt=2**63)
    """The same seed gives the same text; drawn and returned when absent. One that is not from 0 to 2**53 - 1 counts
    modulo 2**53: what was used is in the answer."""
    stop: Stops = []
    """End a text before any of these strings; an empty one, or one that the model cannot write, ends none."""
    echo: bool = False
    """Begin each text with its prompt."""
    logprobs: JsonInteger | None = Field(None, ge=0, le=MAX_LOGPROBS)
    """Send the log-probability of each character and of so many of the likeliest, by the model alone."""
    stream: bool = False
    """Server-sent events, ended by `[DONE]`."""
    stream_options: StreamOptions | None = None
    """What a stream has besides text."""
    user: str = ""
    """Ignored."""
    metadata: dict[str, str] = {}
    """Ignored."""
    service_tier: str = ""
    """Ignored."""
    safety_identifier: str = ""
    """Ignored."""
    prompt_cache_key: str = ""
    """Ignored."""
    store: Literal[False] = False
    """Nothing is kept here: only false."""
    presence_penalty: Zero = 0
    """Not supported: only 0."""
    frequency_penalty: Zero = 0
    """Not supported: only 0."""
    logit_bias: dict[str, Zero] = {}
    """Not supported: only empty, or 0."""
    suffix: Literal[""] = ""
    """Not supported: only empty."""

    def check(self, max_new_tokens: int) -> None:
        """Refuse fields that do not go together, or that ask for too much of a server that writes `max_new_tokens`.

        Raises:
            InputError: names one of the fields.
        """
        if self.max_tokens > max_new_tokens and "max_tokens" in self.model_fields_set:
            raise InputError("max_tokens", f"this server writes {max_new_tokens} at most, not {self.max_tokens}")
        if self.max_tokens == 0 and not self.echo:
            raise InputError("max_tokens", "0 writes nothing; use 1 or more, or echo")
        choices = len(self.prompt) * self.n
        if choices > MAX_SAMPLES:
            raise InputError("n", f"{choices} texts in all are more than {MAX_SAMPLES}")
        if self.best_of not in (None, self.n):
            raise InputError("best_of", f"must be n, {self.n} here: all texts are returned")
        if self.stream_options is not None and self.stream_options.include_usage and not self.stream:
            raise InputError("stream_options", "include_usage goes only with stream: true")
        if self.logprobs is not None and not self.stream:
            characters = choices * self.max_tokens
            if self.echo:
                characters += self.n * sum(len(prompt) for prompt in self.prompt)
            check_answer_size("logprobs", characters * (self.logprobs + 1), MAX_BUFFERED_ENTRIES, "stream them")

    def resolved(self, max_new_tokens: int, vocabulary: Vocabulary) -> Self:
        """The request with defaults filled in, on a server that writes at most `max_new_tokens` characters.

        Empty prompts are replaced, and a seed is drawn if there is none.

        Raises:
            InputError: fields that do not go together, or that ask for too much; names one of them.
        """
        self.check(max_new_tokens)
        seed = secrets.randbits(32) if self.seed is None else self.seed % SEED_LIMIT
        prompts = [prompt or vocabulary.default_prompt for prompt in self.prompt]
        return self.model_copy(
            update={"seed": seed, "prompt": prompts, "max_tokens": min(self.max_tokens, max_new_tokens)}
        )

    def sequences(self, vocabulary: Vocabulary) -> list[list[TextSequence]]:
        """For each choice of a resolved request, the sequences that its text is made of, in their order.

        The last is the one that `/generate` writes. With `echo` and `logprobs`, one before it scores the prompt
        from its second character on, and is shared by the choices of that prompt.

        Raises:
            UnknownCharactersError: a prompt has characters outside the vocabulary.
        """
        choices: list[list[TextSequence]] = []
        for index, prompt in enumerate(self.prompt):
            vocabulary.encode(prompt, "prompt" if len(self.prompt) == 1 else f"prompt[{index}]")
            scored = self._scored(vocabulary, prompt)
            if self.max_tokens > 0:
                choices += [[*scored, sequence] for sequence in self._written(vocabulary, prompt)]
            else:
                choices += [scored] * self.n
        return choices

    def _sampling(self) -> Sampling:
        """The settings of the sampler."""
        return Sampling(self.temperature, self.top_k if self.top_k > 0 else None, self.top_p, self.min_p)

    def _written(self, vocabulary: Vocabulary, prompt: str) -> list[TextSequence]:
        """The sequences that are generated after a prompt."""
        return make_sequences(
            vocabulary,
            self._sampling(),
            prompt=prompt,
            seed=self.seed or 0,
            num_samples=self.n,
            max_new_tokens=self.max_tokens,
            stop=self.stop,
            logprobs_from=None if self.logprobs is None else [0] * self.n,
            alternatives=self.logprobs or 0,
        )

    def _scored(self, vocabulary: Vocabulary, prompt: str) -> list[TextSequence]:
        """A list of the sequence that scores a prompt; empty if that is not asked for."""
        if not self.echo or self.logprobs is None or len(prompt) == 1:
            return []
        sequence = make_scored_sequence(
            vocabulary, self._sampling(), prompt=prompt[0], text=prompt[1:], first=0, alternatives=self.logprobs
        )
        return [sequence]
