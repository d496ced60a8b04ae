"""Reports: of a text that someone sends, and of texts while they are written. Owns the fields of both."""

import asyncio
import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.details import json_line
from app.job import Job
from model.checkpoint import Checkpoint
from model.report import LiveMarks, index_of, make_report, mark_content
from model.sampling import Likelihood, Sampling
from model.stream import Stream, make_scored_stream

MAX_TEXT = 100_000


class ReportRequest(BaseModel):
    """The body of `POST /report`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    text: str = Field(max_length=MAX_TEXT)
    """What is looked at: by anyone, in any characters."""
    prompt: str = Field("", max_length=MAX_TEXT)
    """What the text follows: the model's own surprise at it depends on that. Empty as in `/generate`."""

    def stream(self, checkpoint: Checkpoint) -> Stream | None:
        """A stream that scores the text; None if it is empty or has characters that the model cannot read."""
        known = set(checkpoint.vocabulary.characters)
        if not self.text or not known.issuperset(self.text) or not known.issuperset(self.prompt):
            return None
        prompt = self.prompt or checkpoint.vocabulary.default_prompt
        return make_scored_stream(
            checkpoint.vocabulary, Sampling(), prompt=prompt, text=self.text, first=0, alternatives=0
        )


class LiveReport:
    """What is known of one sample while it is written.

    Raises:
        InputError: the checkpoint has no index of its training text.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._marks = LiveMarks(index_of(checkpoint))
        self._parts: list[str] = []
        self._bits = 0.0

    def add(
        self, text: str, likelihoods: Sequence[Likelihood], ended: bool
    ) -> tuple[list[int], list[dict[str, Any]]]:
        """Goes on with `text`: the length of the run of the training text that ends at each of its characters, and
        the words that it completes."""
        self._parts.append(text)
        self._bits += bits_of(likelihoods)
        update = self._marks.append(text)
        words = [*update.words, *(self._marks.finish().words if ended else ())]
        return update.lengths.tolist(), [mark_content(word) for word in words if not word.real]

    async def finish(self) -> dict[str, Any]:
        """The report of the whole, made beside the event loop."""
        text = "".join(self._parts)
        bits = self._bits / len(text) if self._bits else None
        report = await asyncio.to_thread(make_report, text, self._checkpoint, bits)
        return report.content()


async def report_on(text: str, checkpoint: Checkpoint, job: Job | None) -> str:
    """The report, as JSON, of a text that `job` scores if the model can read it."""
    bits = 0.0
    while job is not None and (pieces := await job.take()):
        bits += sum(bits_of(piece.details) for _, piece in pieces)
    mean = bits / len(text) if job is not None else None
    return json_line((await asyncio.to_thread(make_report, text, checkpoint, mean)).content())


def bits_of(likelihoods: Iterable[Likelihood]) -> float:
    """The summed surprise, by the model alone."""
    return -sum(math.log2(max(one.probability, sys.float_info.min)) for one in likelihoods)
