"""From a job's pieces to what the client reads: server-sent events, or one JSON answer. Owns their fields."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

from sse_starlette import ServerSentEvent

from app.api.logprobs import DetailsWriter, json_line
from app.api.report import LiveReport
from app.api.resume import Place
from app.api.schemas import GenerateRequest
from app.observability.exchange import Meter
from app.problems import to_problem
from app.serving.model_card import ModelCard
from app.serving.request_handle import RequestHandle
from app.serving.work import WorkQueue
from model.checkpoint import Checkpoint
from model.errors import SoliloquyError
from model.generation.receipt import Digest, Parameters, Receipt
from model.generation.sequence import Chunk, FinishReason, TextSequence
from model.sampling.sampler import Logprob


class Sample:
    """What has been written of one stream's text, and how much of it the client has: `sent` characters, perhaps
    from an answer before this one."""

    def __init__(self, index: int, sent: int, report: LiveReport | None) -> None:
        self.index, self.sent, self.report = index, sent, report
        self.characters = 0
        self.finish_reason: FinishReason | None = None
        self._digest = hashlib.sha256()

    def add(self, text: str) -> str:
        """Count text that has been written; return what of it the client does not have yet."""
        new = text[max(0, self.sent - self.characters) :]
        self.characters += len(text)
        self.sent += len(new)
        self._digest.update(text.encode())
        return new

    def summary(self) -> dict[str, Any]:
        """Counts, end and SHA-256 of the text."""
        return {
            "index": self.index,
            "characters": self.characters,
            "finish_reason": self.finish_reason,
            "sha256": self._digest.hexdigest(),
        }


class Answer:
    """One request's answer, in either form: all after `place`."""

    def __init__(
        self,
        job: RequestHandle,
        request: GenerateRequest,
        card: ModelCard,
        checkpoint: Checkpoint,
        place: Place,
        reports: WorkQueue,
        meter: Meter | None = None,
    ) -> None:
        self._job, self._request, self._card, self._place = job, request, card, place
        self._meter = meter or Meter()
        self._details = DetailsWriter(checkpoint.vocabulary)
        self._head = {
            "id": job.id,
            "checkpoint": card.checkpoint,
            "seed": request.seed,
            "parameters": request.parameters(),
        }
        self._samples = [
            Sample(index, sent, LiveReport(checkpoint, reports) if request.report else None)
            for index, sent in enumerate(place.sent)
        ]

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        """`start`, then `text` and `end` as they come, then `done`; or `error`.

        The first character goes out at once, then all that has come, about every 25 ms or rarer
        (`RequestHandle.pause`).
        """
        try:
            yield _event("start", json_line(self._head))
            while pieces := await self._job.take():
                for event in self._frames(pieces):
                    yield event
                await self._job.pause()
            samples = {"samples": [sample.summary() for sample in self._samples]}
            reports = await self._reports()
            data = json_line(samples | self._tail(), **reports)
            yield _event("done", data, str(self._reached(done=True)))
        except SoliloquyError as error:
            self._meter.failed(error)
            yield _event("error", json_line(to_problem(error).content()))

    async def whole(self) -> str:
        """The JSON answer, when all of it is written."""
        texts: list[list[str]] = [[] for _ in self._samples]
        details: list[list[str]] = [[] for _ in self._samples]
        while pieces := await self._job.take():
            for sample, text, likelihoods, _ in self._merge(pieces):
                texts[sample.index].append(text)
                if self._request.details:
                    details[sample.index] += self._details.write(text, likelihoods)
            await asyncio.sleep(0)  # others' turn, however fast the text comes
        samples = []
        for sample, parts, chars in zip(self._samples, texts, details, strict=True):
            summary = sample.summary()
            del summary["characters"]
            content = summary | {"text": "".join(parts)}
            samples.append(json_line(content, chars=chars) if self._request.details else json_line(content))
        reports = await self._reports()
        return json_line(self._head | self._tail(), **reports, samples=samples)

    def _frames(self, pieces: list[tuple[TextSequence, Chunk]]) -> list[ServerSentEvent]:
        frames = []
        for sample, text, likelihoods, marks in self._merge(pieces):
            if text:
                data = {"sample": sample.index, "index": sample.sent - len(text), "text": text} | marks
                chars = {"chars": self._details.write(text, likelihoods)} if self._request.details else {}
                frames.append(_event("text", json_line(data, **chars), str(self._reached())))
            if sample.finish_reason is not None:
                end = {"sample": sample.index, "finish_reason": sample.finish_reason}
                frames.append(_event("end", json_line(end)))
        return frames

    def _reached(self, done: bool = False) -> Place:
        """How far the client has come with what has been sent."""
        return replace(self._place, sent=tuple(one.sent for one in self._samples), done=done)

    def _merge(
        self, pieces: list[tuple[TextSequence, Chunk]]
    ) -> Iterator[tuple[Sample, str, list[Logprob], dict[str, Any]]]:
        """Per sample: its text that the client does not have, its likelihoods and marks; counted as sent."""
        self._meter.wrote(sum(len(piece.text) for _, piece in pieces))
        by_sample: dict[int, list[Chunk]] = {}
        for stream, piece in pieces:
            by_sample.setdefault(stream.sample, []).append(piece)
        for index, parts in sorted(by_sample.items()):
            sample, whole = self._samples[index], "".join(part.text for part in parts)
            likelihoods, marks = [one for part in parts for one in part.logprobs], {}
            text = sample.add(whole)
            sample.finish_reason = parts[-1].finish_reason
            if sample.report is not None:
                copied, invented = sample.report.add(whole, likelihoods, sample.finish_reason is not None)
                marks = {"copied": copied[len(whole) - len(text) :], "invented": invented}
                likelihoods = likelihoods[len(whole) - len(text) :]
            yield sample, text, likelihoods, marks

    async def _reports(self) -> dict[str, list[str]]:
        """The JSON of each sample's report, if they are asked for."""
        if not self._request.report:
            return {}
        return {"reports": [await sample.report.finish() for sample in self._samples if sample.report]}

    def _tail(self) -> dict[str, Any]:
        return {"timing": self._timing(), "receipt": self._receipt()}

    def _receipt(self) -> dict[str, Any]:
        """All that `python -m model.verify` needs to write the same text again."""
        samples = [Digest(index=one.index, sha256=one.summary()["sha256"]) for one in self._samples]
        return Receipt(
            checkpoint=self._card.identity,
            numerics=self._card.numerics,
            seed=self._request.seed or 0,
            parameters=Parameters.model_validate(self._request.parameters()),
            samples=samples,
        ).model_dump(mode="json", exclude={"samples": {"__all__": {"text"}}})

    def _timing(self) -> dict[str, Any]:
        """Seconds from the request to its first and to its last character, and characters a second between."""
        job, now = self._job, time.monotonic()
        first = job.first_character or now
        written = sum(sample.characters for sample in self._samples)
        return {
            "first_character_seconds": round(first - job.submitted, 4),
            "total_seconds": round(now - job.submitted, 4),
            "characters_per_second": round(written / max(now - job.submitted, 1e-6), 1),
        }


def _event(name: str, data: str, event_id: str | None = None) -> ServerSentEvent:
    """A frame; `data` is one line of ASCII, whatever characters are in it."""
    return ServerSentEvent(data, event=name, id=event_id, sep="\n")
