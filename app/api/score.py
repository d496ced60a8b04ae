"""The answer of `/score`: from a sequence's log-probabilities to JSON, which is sent while the text is read."""

import asyncio
from collections.abc import AsyncIterator

from app.api.logprobs import AnswerModel, Character, DetailsWriter, json_line
from app.api.report import bits_of
from app.api.schemas import ScoreRequest
from app.serving.model_card import ModelCard
from app.serving.request_handle import RequestHandle
from model.sampling.sampler import Logprob
from model.vocabulary import Vocabulary


class ScoreHead(AnswerModel):
    """What is known before any character is scored."""

    checkpoint: str
    """First 12 hex digits of the checkpoint's identity."""
    numerics: str
    """Device and number format."""
    characters: int
    """How many characters are scored."""


class Score(ScoreHead):
    """The answer of `POST /score`."""

    chars: list[Character]
    """Each of them."""
    bits_per_character: float
    """The mean surprise of those, by the model alone."""


async def write_score(
    handle: RequestHandle, request: ScoreRequest, card: ModelCard, vocabulary: Vocabulary
) -> AsyncIterator[str]:
    """The JSON of a `Score`, part by part: it can be large, so what is ready does not wait for the rest.

    Args:
        handle: of the sequence that scores the text.
        request: a resolved request.
        card: of the model that scores.
        vocabulary: of that model.

    Raises:
        SoliloquyError: the engine has ended the request early.
    """
    writer = DetailsWriter(vocabulary)
    scored = request.text[request.first :]
    head = ScoreHead(checkpoint=card.checkpoint, numerics=card.numerics, characters=len(scored))
    before = f'{json_line(head.fields())[:-1]},"chars":['
    read = 0
    bits = 0.0
    while chunks := await handle.take():
        logprobs: list[Logprob] = []
        for _, chunk in chunks:
            logprobs += chunk.logprobs
        if logprobs:
            chars = writer.write(scored[read : read + len(logprobs)], logprobs)
            read += len(logprobs)
            bits += bits_of(logprobs)
            yield before + ",".join(chars)
            before = ","
        await asyncio.sleep(0)  # let others run, however fast the text is read
    yield f'],"bits_per_character":{bits / len(scored):.6g}}}'
