"""From a job's pieces to what OpenAI's clients read of `/v1/completions`: chunks of a stream, or one object."""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

from sse_starlette import ServerSentEvent

from app.api.logprobs import json_line
from app.api.openai.schemas import CompletionRequest
from app.observability.exchange import Meter
from app.problems import to_problem
from app.serving.request_handle import RequestHandle
from model.errors import SoliloquyError
from model.generation.sequence import Chunk, TextSequence
from model.sampling.sampler import Logprob
from model.vocabulary import Vocabulary

MIN_LOGPROB = -9999.0  # OpenAI's own, for JSON has no infinity

Row = tuple[str, str, str, str]  # the JSON of one character in each of `LOGPROB_COLUMNS`
LOGPROB_COLUMNS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


class LogprobsWriter:
    """Writes the JSON of OpenAI's `logprobs`; a character's offset counts from the beginning of its prompt."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._characters = vocabulary.characters
        self._quoted = [json.dumps(character) for character in vocabulary.characters]

    def rows(self, text: str, likelihoods: Sequence[Logprob], offset: int) -> list[Row]:
        """One row for each character of `text`."""
        return [self._row(*one, offset + i) for i, one in enumerate(zip(text, likelihoods, strict=True))]

    @staticmethod
    def first_row(character: str) -> Row:
        """The row of a prompt's first character, of which the model has no opinion."""
        return json.dumps(character), "null", "null", "0"

    @staticmethod
    def object(rows: Sequence[Row]) -> str:
        """The object that these rows make."""
        lists = (f'"{name}":[{",".join(row[i] for row in rows)}]' for i, name in enumerate(LOGPROB_COLUMNS))
        return f"{{{','.join(lists)}}}"

    def _row(self, character: str, one: Logprob, offset: int) -> Row:
        token, logprob = json.dumps(character), _logprob(one.probability)
        top = [f"{self._quoted[i]}:{_logprob(probability)}" for i, probability, _ in one.alternatives]
        if all(self._characters[i] != character for i, _, _ in one.alternatives):
            top.append(f"{token}:{logprob}")
        return token, logprob, f"{{{','.join(top)}}}", str(offset)


class Choice:
    """One text of an answer, made of the texts of its streams one after another, whichever comes first."""

    def __init__(self, index: int, prompt: str, streams: Sequence[TextSequence]) -> None:
        self.index, self.prompt = index, prompt
        self.written = 0
        self._come: dict[TextSequence, list[Chunk]] = {stream: [] for stream in streams}

    @property
    def ended(self) -> bool:
        """True once all of it has been taken."""
        return not self._come

    def add(self, stream: TextSequence, piece: Chunk) -> None:
        """Count and keep a piece that has come."""
        self._come[stream].append(piece)
        self.written += len(piece.text) if stream.given is None else 0

    def take(self) -> list[Chunk]:
        """The pieces whose turn it is."""
        taken: list[Chunk] = []
        for stream, pieces in list(self._come.items()):
            taken += pieces
            if not pieces or pieces[-1].finish_reason is None:
                self._come[stream] = []
                break
            del self._come[stream]
        return taken


@dataclass(frozen=True)
class Part:
    """The next text of a choice, its rows if they are asked for, and the end if it was."""

    choice: Choice
    text: str
    rows: list[Row] | None
    finish_reason: str | None

    def json(self) -> str:
        """As OpenAI's clients read it."""
        head = json_line({"index": self.choice.index, "text": self.text, "finish_reason": self.finish_reason})
        return f'{head[:-1]},"logprobs":{"null" if self.rows is None else LogprobsWriter.object(self.rows)}}}'


class CompletionAnswer:
    """One request's answer, in either form; `about` tells what wrote it."""

    def __init__(
        self,
        job: RequestHandle,
        request: CompletionRequest,
        choices: Sequence[Sequence[TextSequence]],
        vocabulary: Vocabulary,
        about: dict[str, object],
        meter: Meter,
    ) -> None:
        self._job, self._request, self._meter = job, request, meter
        self._writer = LogprobsWriter(vocabulary)
        self._head = {"id": f"cmpl-{job.id}", "object": "text_completion", "created": int(time.time())} | about
        prompts = [prompt for prompt in request.prompt for _ in range(request.n)]
        self._choices = [
            Choice(index, prompt, streams)
            for index, (prompt, streams) in enumerate(zip(prompts, choices, strict=True))
        ]
        self._readers = {
            stream: [choice for choice, streams in zip(self._choices, choices, strict=True) if stream in streams]
            for stream in job.streams
        }
        self._offsets = [0 if request.echo else len(prompt) for prompt in prompts]

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        """Chunks as text comes, each of one choice, then `[DONE]`; or an error. No frame has an id or a name.

        The first character goes out at once, then all that has come, about every 25 ms (`RequestHandle.pause`).
        """
        options = self._request.stream_options
        counted = options is not None and options.include_usage
        head = self._head | ({"usage": None} if counted else {})
        try:
            for part in self._beginnings():
                yield _frame(json_line(head, choices=[part.json()]))
            while pieces := await self._job.take():
                for part in self._parts(pieces):
                    yield _frame(json_line(head, choices=[part.json()]))
                await self._job.pause()
            if counted:
                yield _frame(json_line(head | {"usage": self._usage()}, choices=[]))
            yield _frame("[DONE]")
        except SoliloquyError as error:
            self._meter.failed(error)
            yield _frame(json_line(to_problem(error).openai_content()))

    async def whole(self) -> str:
        """The JSON object, when all of it is written."""
        parts: list[list[Part]] = [[] for _ in self._choices]
        for part in self._beginnings():
            parts[part.choice.index].append(part)
        while pieces := await self._job.take():
            for part in self._parts(pieces):
                parts[part.choice.index].append(part)
            await asyncio.sleep(0)  # others' turn, however fast the text comes
        choices = [_joined(choice, some).json() for choice, some in zip(self._choices, parts, strict=True)]
        return json_line(self._head | {"usage": self._usage()}, choices=choices)

    def _beginnings(self) -> Iterator[Part]:
        """What is there before anything is written: the prompt, or only its first character if it is scored."""
        if not self._request.echo:
            return
        for choice in self._choices:
            scored = self._request.logprobs is not None
            text = choice.prompt[:1] if scored else choice.prompt
            self._offsets[choice.index] = len(text)
            rows = [self._writer.first_row(text)] if scored else None
            yield Part(choice, text, rows, "length" if choice.ended else None)

    def _parts(self, pieces: list[tuple[TextSequence, Chunk]]) -> Iterator[Part]:
        if written := sum(len(piece.text) for stream, piece in pieces if stream.given is None):
            self._meter.wrote(written)
        for stream, piece in pieces:
            for choice in self._readers[stream]:
                choice.add(stream, piece)
        for choice in self._choices:
            if taken := choice.take():
                yield self._part(choice, taken)

    def _part(self, choice: Choice, pieces: list[Chunk]) -> Part:
        text = "".join(piece.text for piece in pieces)
        rows, offset = None, self._offsets[choice.index]
        if self._request.logprobs is not None:
            rows = self._writer.rows(text, [one for piece in pieces for one in piece.logprobs], offset)
        self._offsets[choice.index] = offset + len(text)
        return Part(choice, text, rows, pieces[-1].finish_reason if choice.ended else None)

    def _usage(self) -> dict[str, int]:
        """Characters, each of which is a token here."""
        read, written = sum(map(len, self._request.prompt)), sum(choice.written for choice in self._choices)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _joined(choice: Choice, parts: Sequence[Part]) -> Part:
    """All parts of one choice as one."""
    rows = None if any(part.rows is None for part in parts) else [row for part in parts for row in part.rows or ()]
    return Part(choice, "".join(part.text for part in parts), rows, parts[-1].finish_reason)


def _logprob(probability: float) -> str:
    return f"{math.log(probability) if probability else MIN_LOGPROB:.6g}"


def _frame(data: str) -> ServerSentEvent:
    return ServerSentEvent(data, sep="\n")
