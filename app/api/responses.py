"""From the chunks of a request to the answer of `/generate`: server-sent events, or one JSON object."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from sse_starlette import ServerSentEvent

from app.api.answers import Done, End, GeneratedSample, GenerationHead, Start, Summary, Text, Timing, Waiting
from app.api.logprobs import DetailsWriter, json_line
from app.api.report import LiveReport
from app.api.resume import ResumeToken
from app.api.schemas import GenerateRequest
from app.observability.exchange import RequestRecord
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
    """One sample's progress: how much has been generated, and how much of it the client has.

    `sent` counts the characters that the client has, those of an answer before this one included; `characters`
    those that have been generated for this answer, from the beginning of the text.
    """

    def __init__(self, index: int, sent: int, report: LiveReport | None) -> None:
        self.index = index
        self.sent = sent
        self.report = report
        self.characters = 0
        self.finish_reason: FinishReason | None = None
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The SHA-256 of the text so far, in hex."""
        return self._digest.hexdigest()

    def add(self, text: str) -> str:
        """Count text that has been generated; returns the part of it that the client does not have yet."""
        new = text[max(0, self.sent - self.characters) :]
        self.characters += len(text)
        self.sent += len(new)
        self._digest.update(text.encode())
        return new

    def summary(self) -> Summary:
        """Counts, end and SHA-256 of a text that is complete."""
        assert self.finish_reason is not None
        return Summary(
            index=self.index, characters=self.characters, finish_reason=self.finish_reason, sha256=self.sha256
        )


@dataclass(frozen=True)
class SampleUpdate:
    """New text of one sample, with what goes out beside it.

    Attributes:
        sample: whose text it is.
        text: characters that the client does not have; empty if it has all of them.
        logprobs: one for each character of `text`, if they were asked for.
        marks: the fields `copied` and `invented` of a `Text`, if a report was asked for.
    """

    sample: Sample
    text: str
    logprobs: list[Logprob]
    marks: dict[str, Any] = field(default_factory=dict)


class Answer:
    """One request's answer, in either form: all that comes after `token`."""

    def __init__(
        self,
        handle: RequestHandle,
        request: GenerateRequest,
        card: ModelCard,
        checkpoint: Checkpoint,
        token: ResumeToken,
        reports: WorkQueue,
        record: RequestRecord | None = None,
    ) -> None:
        self._handle = handle
        self._request = request
        self._card = card
        self._token = token
        self._record = record or RequestRecord()
        self._details = DetailsWriter(checkpoint.vocabulary)
        self._start = Start(
            id=handle.id, checkpoint=card.checkpoint, seed=request.seed or 0, parameters=request.parameters()
        )
        self._samples: list[Sample] = []
        for index, sent in enumerate(token.sent):
            report = LiveReport(checkpoint, reports) if request.report else None
            self._samples.append(Sample(index, sent, report))

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        """`start`, `waiting` until there is a slot, `text` and `end` as they come, then `done`; or `error`.

        The first character is sent at once, then all that has come, about every 25 ms or rarer
        (`RequestHandle.pause`).
        """
        try:
            yield _event("start", json_line(self._start.fields()))
            place = 0
            while place := await self._handle.next_place(place):
                yield _event("waiting", json_line(Waiting(place=place).fields()))
            while chunks := await self._handle.take():
                for event in self._events_of(chunks):
                    yield event
                await self._handle.pause()
            summaries = [sample.summary() for sample in self._samples]
            reports = await self._reports()
            done = Done(samples=summaries, timing=self._timing(), receipt=self._receipt())
            yield _event("done", json_line(done.fields(), **reports), str(self._reached(done=True)))
        except SoliloquyError as error:
            self._record.failed(error)
            yield _event("error", json_line(to_problem(error).content()))

    async def as_json(self) -> str:
        """The one JSON object, once all of it has been generated."""
        texts: list[list[str]] = [[] for _ in self._samples]
        details: list[list[str]] = [[] for _ in self._samples]
        while chunks := await self._handle.take():
            for update in self._merge(chunks):
                texts[update.sample.index].append(update.text)
                if self._request.details:
                    details[update.sample.index] += self._details.write(update.text, update.logprobs)
            await asyncio.sleep(0)  # let others run, however fast the text comes
        samples: list[str] = []
        for sample, parts, chars in zip(self._samples, texts, details, strict=True):
            summary = sample.summary()
            generated = GeneratedSample(
                index=summary.index,
                finish_reason=summary.finish_reason,
                sha256=summary.sha256,
                text="".join(parts),
            )
            lists = {"chars": chars} if self._request.details else {}
            samples.append(json_line(generated.fields(), **lists))
        reports = await self._reports()
        head = GenerationHead(**dict(self._start), timing=self._timing(), receipt=self._receipt())
        return json_line(head.fields(), **reports, samples=samples)

    def _events_of(self, chunks: list[tuple[TextSequence, Chunk]]) -> list[ServerSentEvent]:
        """The `text` and `end` events of chunks that have come."""
        events: list[ServerSentEvent] = []
        for update in self._merge(chunks):
            sample = update.sample
            if update.text:
                index = sample.sent - len(update.text)
                data = Text.content(sample.index, index, update.text, update.marks)
                lists: dict[str, list[str]] = {}
                if self._request.details:
                    lists["chars"] = self._details.write(update.text, update.logprobs)
                events.append(_event("text", json_line(data, **lists), str(self._reached())))
            if sample.finish_reason is not None:
                end = End(sample=sample.index, finish_reason=sample.finish_reason)
                events.append(_event("end", json_line(end.fields())))
        return events

    def _reached(self, done: bool = False) -> ResumeToken:
        """The token of what has been sent so far."""
        return replace(self._token, sent=tuple(one.sent for one in self._samples), done=done)

    def _merge(self, chunks: list[tuple[TextSequence, Chunk]]) -> Iterator[SampleUpdate]:
        """One update for each sample that has new chunks; they count as sent."""
        self._record.wrote(sum(len(chunk.text) for _, chunk in chunks))
        by_sample: dict[int, list[Chunk]] = {}
        for sequence, chunk in chunks:
            by_sample.setdefault(sequence.sample, []).append(chunk)
        for index, parts in sorted(by_sample.items()):
            sample = self._samples[index]
            text = "".join(part.text for part in parts)
            logprobs: list[Logprob] = []
            for part in parts:
                logprobs += part.logprobs
            new = sample.add(text)
            sample.finish_reason = parts[-1].finish_reason
            if sample.report is None:
                yield SampleUpdate(sample, new, logprobs)
                continue
            # A report needs the whole text: its marks and log-probabilities begin before what is new to the client.
            copied, invented = sample.report.add(text, logprobs, sample.finish_reason is not None)
            known = len(text) - len(new)
            marks = {"copied": copied[known:], "invented": invented}
            yield SampleUpdate(sample, new, logprobs[known:], marks)

    async def _reports(self) -> dict[str, list[str]]:
        """The JSON of each sample's report, if they are asked for."""
        if not self._request.report:
            return {}
        return {"reports": [await sample.report.finish() for sample in self._samples if sample.report]}

    def _receipt(self) -> Receipt:
        """All that `python -m model.verify` needs to write the same text again."""
        return Receipt(
            checkpoint=self._card.identity,
            numerics=self._card.numerics,
            seed=self._request.seed or 0,
            parameters=Parameters.model_validate(self._request.parameters()),
            samples=[Digest(index=sample.index, sha256=sample.sha256) for sample in self._samples],
        )

    def _timing(self) -> Timing:
        """Seconds from the request to its first and to its last character, and the mean characters a second."""
        submitted = self._handle.submitted
        now = time.monotonic()
        first = self._handle.first_character or now
        characters = sum(sample.characters for sample in self._samples)
        return Timing(
            first_character_seconds=round(first - submitted, 4),
            total_seconds=round(now - submitted, 4),
            characters_per_second=round(characters / max(now - submitted, 1e-6), 1),
        )


def _event(name: str, data: str, event_id: str | None = None) -> ServerSentEvent:
    """A frame; `data` is one line of ASCII, whatever characters are in it."""
    return ServerSentEvent(data, event=name, id=event_id, sep="\n")
