"""The bodies of answers and events, as models: what OpenAPI shows of them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from app.api.score import Character
from model.generation.receipt import Receipt


class _Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class FieldError(_Answer):
    """One field that cannot be used."""

    field: str
    message: str


class ProblemObject(_Answer):
    """A refusal (RFC 9457); `errors`, `characters` and `retry_after` where they say more."""

    type: Literal["about:blank"]
    title: str
    status: int
    detail: str
    errors: list[FieldError] = []


class OpenAIErrorDetail(_Answer):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(_Answer):
    """A refusal as OpenAI's clients expect it."""

    error: OpenAIErrorDetail


class Start(_Answer):
    """The data of `start`."""

    id: str
    """Of this request."""
    checkpoint: str
    seed: int
    parameters: dict[str, Any]
    """All that are in force."""


class Text(_Answer):
    """The data of `text`."""

    sample: int
    index: int
    """How many characters of this sample came before."""
    text: str
    chars: list[Character] = []
    """With `details`: what is known of each character."""
    copied: list[int] = []
    """With `report`: for each character, the length of the run of the training text that ends there."""
    invented: list[dict[str, Any]] = []
    """With `report`: the words completed here that the training text does not have."""


class End(_Answer):
    """The data of `end`."""

    sample: int
    finish_reason: Literal["length", "stop"]


class Summary(_Answer):
    """One text, in numbers."""

    index: int
    characters: int
    finish_reason: Literal["length", "stop"]
    sha256: str


class Timing(_Answer):
    """From the request on."""

    first_character_seconds: float
    total_seconds: float
    characters_per_second: float


class Done(_Answer):
    """The data of `done`; with `report`, it has `reports` too."""

    samples: list[Summary]
    timing: Timing
    receipt: Receipt


class GeneratedSample(_Answer):
    """One text."""

    index: int
    text: str
    """What the model wrote, without the prompt."""
    finish_reason: Literal["length", "stop"]
    sha256: str
    chars: list[Character] = []
    """With `details`: what is known of each character."""


class Generation(Start):
    """The answer of `/generate` as one object; with `report`, it has `reports` too."""

    timing: Timing
    receipt: Receipt
    samples: list[GeneratedSample]
