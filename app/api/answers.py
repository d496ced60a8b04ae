"""The wire format of `/generate`: the data of each event but `error` (`app/problems.py`), and the one JSON object.

One model each, from which answers are serialised (`app/api/responses.py`) and described (`app/api/openapi.py`).
Lists that are JSON already, such as `chars`, are put in by `app.api.logprobs.json_line`.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from app.api.logprobs import AnswerModel, Character
from app.api.report_answer import InventedWord, ReportAnswer
from model.generation.receipt import Receipt
from model.generation.sequence import FinishReason


class Start(AnswerModel):
    """The data of `start`."""

    id: str
    """Of this request, as in the log."""
    checkpoint: str
    """The first 12 hex digits of the checkpoint's identity; the receipt has all 64."""
    seed: int
    parameters: dict[str, Any]
    """All of the request, with defaults filled in."""


class Waiting(AnswerModel):
    """The data of `waiting`."""

    place: int
    """In the queue for a slot; 1 is the next."""


class Text(AnswerModel):
    """The data of `text`."""

    sample: int
    index: int
    """How many characters of this sample came before."""
    text: str
    chars: list[Character] = Field(default=[])
    """With `details`: what is known of each character."""
    copied: list[int] = Field(default=[])
    """With `report`: for each character, the length of the run of the training text that ends there."""
    invented: list[InventedWord] = Field(default=[])
    """With `report`: the words completed here that the training text does not have."""

    @staticmethod
    def content(sample: int, index: int, text: str, marks: Mapping[str, Any]) -> dict[str, Any]:
        """The fields but `chars`, as what `json.dumps` takes; `marks` are `copied` and `invented`, or empty.

        A dict at once: thousands of these events are sent in a second, and to make a model of each and take it
        apart again costs twice as much as its JSON.
        """
        return {"sample": sample, "index": index, "text": text, **marks}


class End(AnswerModel):
    """The data of `end`."""

    sample: int
    finish_reason: FinishReason


class Summary(AnswerModel):
    """One sample, without its text."""

    index: int
    """Which sample: the `sample` of its events."""
    characters: int
    finish_reason: FinishReason
    sha256: str


class Timing(AnswerModel):
    """Since the request has come."""

    first_character_seconds: float
    total_seconds: float
    characters_per_second: float


class Done(AnswerModel):
    """The data of `done`."""

    samples: list[Summary]
    timing: Timing
    receipt: Receipt
    reports: list[ReportAnswer] = Field(default=[])
    """With `report`: one of each sample."""


class GeneratedSample(AnswerModel):
    """One sample."""

    index: int
    """Which sample, from 0."""
    finish_reason: FinishReason
    sha256: str
    text: str
    """What the model wrote, without the prompt."""
    chars: list[Character] = Field(default=[])
    """With `details`: what is known of each character."""


class GenerationHead(Start):
    """The answer of `/generate` as one object, but for its lists."""

    timing: Timing
    receipt: Receipt


class Generation(GenerationHead):
    """The answer of `/generate` as one object."""

    samples: list[GeneratedSample]
    reports: list[ReportAnswer] = Field(default=[])
    """With `report`: one of each sample."""
