"""From a scored text's likelihoods to the JSON answer of `/score`."""

import asyncio

from pydantic import BaseModel, ConfigDict

from app.card import ModelCard
from app.details import DetailsWriter, json_line
from app.job import Job
from app.report import bits_of
from app.schemas import ScoreRequest
from model.vocabulary import Vocabulary


class _Told(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class Alternative(_Told):
    """A character that could have come instead, or the one that came."""

    char: str
    """The character."""
    prob: float
    """Its probability by the model alone."""
    final: float
    """Its probability after temperature and filters."""


class Character(Alternative):
    """How likely the model found one character; the same that `/generate` tells with `details`."""

    rank: int
    """1 for the likeliest."""
    entropy: float
    """How open the model held the choice, in bits."""
    alternatives: list[Alternative]
    """The likeliest characters, the likeliest first."""


class Score(_Told):
    """The answer of `POST /score`."""

    checkpoint: str
    """First 12 hex digits of the checkpoint's identity."""
    numerics: str
    """Device and number format."""
    characters: int
    """How many characters are told of."""
    bits_per_character: float
    """The mean surprise of those, by the model alone."""
    chars: list[Character]
    """Each of them."""


async def score(job: Job, request: ScoreRequest, card: ModelCard, vocabulary: Vocabulary) -> str:
    """The answer to a request in force, once its text is read."""
    writer, told = DetailsWriter(vocabulary), request.text[request.first :]
    chars: list[str] = []
    bits = 0.0
    while pieces := await job.take():
        likelihoods = [one for _, piece in pieces for one in piece.details]
        chars += writer.write(told[len(chars) : len(chars) + len(likelihoods)], likelihoods)
        bits += bits_of(likelihoods)
        await asyncio.sleep(0)  # others' turn, however fast the text is read
    head = {
        "checkpoint": card.checkpoint,
        "numerics": card.numerics,
        "characters": len(chars),
        "bits_per_character": float(f"{bits / len(chars):.6g}"),
    }
    return json_line(head, chars=chars)
