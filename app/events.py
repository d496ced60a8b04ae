"""From a job's pieces to what the client reads: server-sent events, or one JSON answer. Owns their fields."""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from sse_starlette import ServerSentEvent

from app.card import ModelCard
from app.job import Job
from app.problems import to_problem
from app.schemas import GenerateRequest
from model.errors import SoliloquyError
from model.receipt import Digest, Parameters, Receipt
from model.sampling import Likelihood
from model.stream import FinishReason, Piece, Stream
from model.vocabulary import Vocabulary

FLUSH_SECONDS = 0.025


class Sample:
    """What has been sent of one stream's text."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.characters = 0
        self.finish_reason: FinishReason | None = None
        self._digest = hashlib.sha256()

    def add(self, text: str) -> None:
        """Count text that goes out."""
        self.characters += len(text)
        self._digest.update(text.encode())

    def summary(self) -> dict[str, Any]:
        """Counts, end and SHA-256 of the text."""
        return {
            "index": self.index,
            "characters": self.characters,
            "finish_reason": self.finish_reason,
            "sha256": self._digest.hexdigest(),
        }


class Answer:
    """One request's answer, in either form."""

    def __init__(self, job: Job, request: GenerateRequest, card: ModelCard, vocabulary: Vocabulary) -> None:
        self._job, self._request, self._card, self._vocabulary = job, request, card, vocabulary
        self._head = {
            "id": job.id,
            "checkpoint": card.checkpoint,
            "seed": request.seed,
            "parameters": request.parameters(),
        }
        self._samples = [Sample(stream.sample) for stream in job.streams]

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        """`start`, then `text` and `end` as they come, then `done`; or `error`.

        The first character goes out at once, then all that has come every 25 ms.
        """
        try:
            yield _event("start", self._head)
            while pieces := await self._job.take():
                for event in self._frames(pieces):
                    yield event
                await asyncio.sleep(FLUSH_SECONDS)
            samples = [sample.summary() for sample in self._samples]
            yield _event("done", {"samples": samples, "timing": self._timing(), "receipt": self._receipt()})
        except SoliloquyError as error:
            yield _event("error", to_problem(error).content())

    async def whole(self) -> dict[str, Any]:
        """The JSON answer, when all of it is written."""
        texts = ["" for _ in self._samples]
        details: list[list[dict[str, Any]]] = [[] for _ in self._samples]
        while pieces := await self._job.take():
            for sample, text, likelihoods, _ in self._merge(pieces):
                texts[sample.index] += text
                details[sample.index] += self._chars(text, likelihoods)
        samples = []
        for sample, text, chars in zip(self._samples, texts, details, strict=True):
            summary = sample.summary()
            del summary["characters"]
            samples.append(summary | {"text": text} | ({"chars": chars} if self._request.details else {}))
        return self._head | {"samples": samples, "timing": self._timing(), "receipt": self._receipt()}

    def _frames(self, pieces: list[tuple[Stream, Piece]]) -> list[ServerSentEvent]:
        frames = []
        for sample, text, likelihoods, before in self._merge(pieces):
            if text:
                data: dict[str, Any] = {"sample": sample.index, "index": before, "text": text}
                if self._request.details:
                    data["chars"] = self._chars(text, likelihoods)
                come = ",".join(str(s.characters) for s in self._samples)
                frames.append(_event("text", data, f"{self._request.seed}:{come}"))
            if sample.finish_reason is not None:
                frames.append(_event("end", {"sample": sample.index, "finish_reason": sample.finish_reason}))
        return frames

    def _merge(self, pieces: list[tuple[Stream, Piece]]) -> list[tuple[Sample, str, list[Likelihood], int]]:
        """Per sample: its new text, the likelihoods, and how many characters went before; counted as sent."""
        by_sample: dict[int, list[Piece]] = {}
        for stream, piece in pieces:
            by_sample.setdefault(stream.sample, []).append(piece)
        merged = []
        for index, parts in sorted(by_sample.items()):
            sample, before = self._samples[index], self._samples[index].characters
            text = "".join(part.text for part in parts)
            sample.add(text)
            sample.finish_reason = parts[-1].finish_reason
            merged.append((sample, text, [one for part in parts for one in part.details], before))
        return merged

    def _chars(self, text: str, likelihoods: list[Likelihood]) -> list[dict[str, Any]]:
        """Probability, rank (from 1), entropy (bits) and likeliest alternatives of each character."""
        characters = self._vocabulary.characters
        return [
            {
                "char": character,
                "prob": round(one.probability, 6),
                "rank": one.rank,
                "entropy": round(one.entropy, 4),
                "alternatives": [{"char": characters[i], "prob": round(p, 6)} for i, p in one.alternatives],
            }
            for character, one in zip(text, likelihoods, strict=False)
        ]

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


def _event(name: str, data: dict[str, Any], event_id: str | None = None) -> ServerSentEvent:
    """A frame whose data is one line of ASCII, whatever characters are in it."""
    return ServerSentEvent(json.dumps(data, separators=(",", ":")), event=name, id=event_id, sep="\n")
