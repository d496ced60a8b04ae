"""The wire format of reports: the answer of `/report`, and what `/generate` sends with `report`.

The content is made by `model.analysis.report`, which is sent without these models, since it can be large. A test
holds the two together. Positions are in characters from the beginning of the text.
"""

from typing import Literal

from pydantic import ConfigDict, Field

from app.api.logprobs import AnswerModel
from model.analysis.structure import Form


class ReportPart(AnswerModel):
    """A part of a report, which has no other fields than these."""

    model_config = ConfigDict(extra="forbid")


class WordLikeness(ReportPart):
    """A word of the training text that an invented word is like."""

    word: str
    shared: int
    """How many letters they share."""


class InventedWord(ReportPart):
    """A word that the training text does not have."""

    start: int
    end: int
    word: str
    real: Literal[False]
    begins_like: WordLikeness | None
    ends_like: WordLikeness | None


class ReportedWords(ReportPart):
    """The words of the text."""

    count: int
    invented: list[InventedWord]


class HeldOutRange(ReportPart):
    """A figure in pieces of real text that the model was not trained on."""

    mean: float | None
    low: float | None
    """5 % of the pieces are below."""
    high: float | None
    """5 % of the pieces are above."""


class Figure(ReportPart):
    """One measure of the text, and the same of real text."""

    value: float | None
    held_out: HeldOutRange | None
    verdict: Literal["below", "within", "above"] | None
    """Where the value lies relative to the middle nine tenths of real text."""


class HeldOutText(ReportPart):
    """The real text of comparison: so many pieces of so many characters."""

    characters: int
    pieces: int


class ReportSentence(ReportPart):
    """What was found, in words: the key of a sentence that can be translated, its values, and it in English."""

    key: str
    values: dict[str, float | str]
    english: str


class CopiedPassage(ReportPart):
    """A passage that stands word for word in the training text."""

    start: int
    end: int
    place: int | None
    """Where in the training text, if that was given."""


class ReportedCopies(ReportPart):
    """What is copied from the training text."""

    shortest: int
    """The shortest run that `lengths` reports."""
    lengths: list[int]
    """For each character, the length of the run of the training text that ends there."""
    runs: list[CopiedPassage]


class ReportedSpeaker(ReportPart):
    """A speaker of a play, and how much the text gives them to say."""

    name: str
    known: bool
    """Whether the training text has the name."""
    speeches: int
    characters: int


class ReportedStructure(ReportPart):
    """The form of the text."""

    speakers: list[ReportedSpeaker]
    speeches: int
    lines: int
    form: Form | None
    matched: int
    """Pairs of brackets and quotes."""
    unmatched: list[int]
    """Where a bracket or quote has no partner."""


class RepeatedPassage(ReportPart):
    """A passage that repeats itself."""

    start: int
    end: int
    period: int
    """Characters until it repeats."""
    count: float | None
    """How often it stands there."""


class ReportAnswer(ReportPart):
    """What in a text is copied, what is invented, how it is built, and how good it is."""

    characters: int
    held_out: HeldOutText | None
    figures: dict[str, Figure] = Field(description="By name, as far as the text or the real text has them.")
    sentences: dict[str, ReportSentence] = Field(description="On copies, words, structure and quality.")
    copies: ReportedCopies
    words: ReportedWords
    structure: ReportedStructure
    loops: list[RepeatedPassage]
