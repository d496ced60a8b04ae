"""The answer of `/report`, and reports of texts while they are generated. Owns the fields of the request.

The report itself, and the fields of its JSON, are made by `model.analysis.report`.
"""

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

MAX_REPORTED_TEXT = 100_000  # characters


class ReportRequest(BaseModel):
    """The body of `POST /report`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    text: str = Field(max_length=MAX_REPORTED_TEXT)
    """What is looked at: by anyone, in any characters."""
    prompt: str = Field("", max_length=MAX_REPORTED_TEXT)
    """What the text follows: the model's own surprise at it depends on that. Empty as in `/generate`."""

    def sequence(self, checkpoint: Checkpoint) -> TextSequence | None:
        """A sequence that scores the text; None if it is empty or has characters outside the vocabulary."""
        known = set(checkpoint.vocabulary.characters)
        if not self.text or not known.issuperset(self.text) or not known.issuperset(self.prompt):
            return None
        prompt = self.prompt or checkpoint.vocabulary.default_prompt
        return make_scored_sequence(
            checkpoint.vocabulary, Sampling(), prompt=prompt, text=self.text, first=0, alternatives=0
        )


class LiveReport:
    """The report of one sample, made while the sample is generated.

    Raises:
        InputError: the checkpoint has no index of its training text.
    """

    def __init__(self, checkpoint: Checkpoint, reports: WorkQueue) -> None:
        self._checkpoint = checkpoint
        self._reports = reports
        self._marks = LiveMarks(checkpoint.require_index())
        self._parts: list[str] = []
        self._bits = 0.0

    def add(self, text: str, logprobs: Sequence[Logprob], ended: bool) -> tuple[list[int], list[dict[str, Any]]]:
        """Append `text`, with the log-probabilities of its characters or none.

        Returns:
            For each of its characters, the length of the run of the training text that ends there; and the words
            completed by it that the training text does not have.
        """
        self._parts.append(text)
        self._bits += bits_of(logprobs)
        update = self._marks.append(text)
        words = list(update.words)
        if ended:
            words += self._marks.finish().words
        invented = [mark_content(word) for word in words if not word.real]
        return update.lengths.tolist(), invented

    async def finish(self) -> str:
        """The JSON of the report of the whole text.

        It waits in the queue of reports, but is never refused: its text has been generated already, and the engine
        bounds how many there are.

        Raises:
            DeadlineError: it took too long.
        """
        text = "".join(self._parts)
        bits = self._bits / len(text) if self._bits else None

        def write(check_cancelled: CancelCheck) -> str:
            return write_report(text, self._checkpoint, bits, check_cancelled)

        return await self._reports.run(write)


async def report_on(text: str, checkpoint: Checkpoint, handle: RequestHandle | None, reports: WorkQueue) -> str:
    """The JSON of the report of a text; `handle` is of the sequence that scores it, None if there is none.

    Raises:
        DeadlineError: it took too long.
    """
    mean: float | None = None
    if handle is not None:
        bits = 0.0
        while chunks := await handle.take():
            bits += sum(bits_of(chunk.logprobs) for _, chunk in chunks)
            await asyncio.sleep(0)  # let others run, however fast the text is read
        mean = bits / len(text)

    def write(check_cancelled: CancelCheck) -> str:
        return write_report(text, checkpoint, mean, check_cancelled)

    return await reports.run(write)


def write_report(text: str, checkpoint: Checkpoint, bits: float | None, check_cancelled: CancelCheck) -> str:
    """The JSON of the report of a text.

    It runs in a thread of its own. `bits` is the model's mean surprise in bits per character, if known;
    `check_cancelled` is called often, and raises when the work is to end.
    """
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


def bits_of(logprobs: Iterable[Logprob]) -> float:
    """The surprise of these characters in bits, summed, by the model alone."""
    return -sum(math.log2(max(one.probability, sys.float_info.min)) for one in logprobs)
