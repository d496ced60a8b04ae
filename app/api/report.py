"""Reports: of a text that someone sends, and of texts while they are written. Owns the fields of both."""

import asyncio
import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.api.logprobs import json_parts
from app.serving.request_handle import RequestHandle
from app.serving.work import WorkQueue
from model.analysis.report import LiveMarks, make_report, mark_content
from model.cancellation import CancelCheck
from model.checkpoint import Checkpoint
from model.generation.sequence import TextSequence, make_scored_sequence
from model.sampling.sampler import Logprob, Sampling

MAX_REPORTED_TEXT = 100_000


class ReportRequest(BaseModel):
    """The body of `POST /report`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    text: str = Field(max_length=MAX_REPORTED_TEXT)
    """What is looked at: by anyone, in any characters."""
    prompt: str = Field("", max_length=MAX_REPORTED_TEXT)
    """What the text follows: the model's own surprise at it depends on that. Empty as in `/generate`."""

    def stream(self, checkpoint: Checkpoint) -> TextSequence | None:
        """A stream that scores the text; None if it is empty or has characters that the model cannot read."""
        known = set(checkpoint.vocabulary.characters)
        if not self.text or not known.issuperset(self.text) or not known.issuperset(self.prompt):
            return None
        prompt = self.prompt or checkpoint.vocabulary.default_prompt
        return make_scored_sequence(
            checkpoint.vocabulary, Sampling(), prompt=prompt, text=self.text, first=0, alternatives=0
        )


class LiveReport:
    """What is known of one sample while it is written.

    Raises:
        InputError: the checkpoint has no index of its training text.
    """

    def __init__(self, checkpoint: Checkpoint, reports: WorkQueue) -> None:
        self._checkpoint = checkpoint
        self._reports = reports
        self._marks = LiveMarks(checkpoint.require_index())
        self._parts: list[str] = []
        self._bits = 0.0

    def add(self, text: str, likelihoods: Sequence[Logprob], ended: bool) -> tuple[list[int], list[dict[str, Any]]]:
        """Goes on with `text`: the length of the run of the training text that ends at each of its characters, and
        the words that it completes."""
        self._parts.append(text)
        self._bits += bits_of(likelihoods)
        update = self._marks.append(text)
        words = [*update.words, *(self._marks.finish().words if ended else ())]
        return update.lengths.tolist(), [mark_content(word) for word in words if not word.real]

    async def finish(self) -> str:
        """The report of the whole, as JSON. It waits for its turn but is never refused: its text is written, and
        the engine bounds how many are.

        Raises:
            DeadlineError: it took too long.
        """
        text = "".join(self._parts)
        bits = self._bits / len(text) if self._bits else None
        return await self._reports.run(
            lambda check_cancelled: write_report(text, self._checkpoint, bits, check_cancelled)
        )


async def report_on(text: str, checkpoint: Checkpoint, job: RequestHandle | None, reports: WorkQueue) -> str:
    """The report, as JSON, of a text that `job` scores if the model can read it.

    Raises:
        DeadlineError: it took too long.
    """
    bits = 0.0
    while job is not None and (pieces := await job.take()):
        bits += sum(bits_of(piece.logprobs) for _, piece in pieces)
        await asyncio.sleep(0)  # others' turn, however fast the text is read
    mean = bits / len(text) if job is not None else None
    return await reports.run(lambda check_cancelled: write_report(text, checkpoint, mean, check_cancelled))


def write_report(text: str, checkpoint: Checkpoint, bits: float | None, check_cancelled: CancelCheck) -> str:
    """The report of a text as JSON; in a thread beside the event loop."""
    report = make_report(
        text,
        checkpoint.require_index(),
        checkpoint.draft,
        checkpoint.vocabulary,
        bits=bits,
        val_loss=checkpoint.training.get("val_loss"),
        check_cancelled=check_cancelled,
    )
    parts = []
    for part in json_parts(report.content()):
        check_cancelled()
        parts.append(part)
    return "".join(parts)


def bits_of(likelihoods: Iterable[Logprob]) -> float:
    """The summed surprise, by the model alone."""
    return -sum(math.log2(max(one.probability, sys.float_info.min)) for one in likelihoods)
