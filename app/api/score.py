"""From a scored text's likelihoods to the JSON answer of `/score`, which goes out while the text is read."""

import asyncio
from collections.abc import AsyncIterator

from pydantic import BaseModel, ConfigDict

from app.api.logprobs import DetailsWriter, json_line
from app.api.report import bits_of
from app.api.schemas import ScoreRequest
from app.serving.model_card import ModelCard
from app.serving.request_handle import RequestHandle
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
    chars: list[Character]
    """Each of them."""
    bits_per_character: float
    """The mean surprise of those, by the model alone."""


async def score(
    job: RequestHandle, request: ScoreRequest, card: ModelCard, vocabulary: Vocabulary
) -> AsyncIterator[str]:
    """The answer to a request in force, in parts. It can be large, so none of it waits for the rest.

    Raises:
        SoliloquyError: the job was ended early.
    """
    writer = DetailsWriter(vocabulary)
    told = request.text[request.first :]
    head = {"checkpoint": card.checkpoint, "numerics": card.numerics, "characters": len(told)}
    before = f'{json_line(head)[:-1]},"chars":['
    read = 0
    bits = 0.0
    while pieces := await job.take():
        likelihoods = [one for _, piece in pieces for one in piece.logprobs]
        if likelihoods:
            chars = writer.write(told[read : read + len(likelihoods)], likelihoods)
            read += len(likelihoods)
            bits += bits_of(likelihoods)
            yield before + ",".join(chars)
            before = ","
        await asyncio.sleep(0)  # others' turn, however fast the text is read
    yield f'],"bits_per_character":{bits / len(told):.6g}}}'
