"""From the chunks of a request to the answer of `/v1/completions`: chunks of a stream, or one JSON object.

Owns the form that OpenAI's clients read. Knows nothing of what may be asked for.
"""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sse_starlette import ServerSentEvent

from app.api.logprobs import json_line
from app.api.openai.schemas import CompletionRequest
from app.observability.exchange import RequestRecord
from app.problems import to_problem
from app.serving.request_handle import RequestHandle
from model.errors import SoliloquyError
from model.generation.sequence import Chunk, TextSequence
from model.sampling.sampler import Logprob
from model.vocabulary import Vocabulary

MIN_LOGPROB = -9999.0  # OpenAI's own, for JSON has no infinity


class LogprobsRow(NamedTuple):
    """The JSON of one character in each list of OpenAI's `logprobs`, by the lists' names."""

    tokens: str
    token_logprobs: str
    top_logprobs: str
    text_offset: str


class LogprobsWriter:
    """Writes the JSON of OpenAI's `logprobs`; a character's offset counts from the beginning of its prompt."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._characters = vocabulary.characters
        self._quoted = [json.dumps(character) for character in vocabulary.characters]

    def rows(self, text: str, logprobs: Sequence[Logprob], offset: int) -> list[LogprobsRow]:
        """One row for each character of `text`, the first of which is at `offset`."""
        pairs = zip(text, logprobs, strict=True)
        return [self._row(character, one, offset + i) for i, (character, one) in enumerate(pairs)]

    @staticmethod
    def first_row(character: str) -> LogprobsRow:
        """The row of a prompt's first character, which has no probability: nothing comes before it."""
        return LogprobsRow(json.dumps(character), "null", "null", "0")

    @staticmethod
    def object(rows: Sequence[LogprobsRow]) -> str:
        """The `logprobs` object that these rows make."""
        lists = []
        for index, name in enumerate(LogprobsRow._fields):
            items = ",".join(row[index] for row in rows)
            lists.append(f'"{name}":[{items}]')
        return f"{{{','.join(lists)}}}"

    def _row(self, character: str, one: Logprob, offset: int) -> LogprobsRow:
        token = json.dumps(character)
        logprob = _logprob(one.probability)
        top = [f"{self._quoted[i]}:{_logprob(probability)}" for i, probability, _ in one.alternatives]
        if all(self._characters[i] != character for i, _, _ in one.alternatives):
            top.append(f"{token}:{logprob}")
        return LogprobsRow(token, logprob, f"{{{','.join(top)}}}", str(offset))


class Choice:
    """One text of an answer, made of the texts of its sequences one after another, in whatever order they come.

    `written` counts the characters that were generated for it, without the prompt.
    """

    def __init__(self, index: int, prompt: str, sequences: Sequence[TextSequence]) -> None:
        self.index = index
        self.prompt = prompt
        self.written = 0
        self._pending: dict[TextSequence, list[Chunk]] = {sequence: [] for sequence in sequences}

    @property
    def ended(self) -> bool:
        """True once all of it has been taken."""
        return not self._pending

    def add(self, sequence: TextSequence, chunk: Chunk) -> None:
        """Keep a chunk that has come until it can be taken."""
        self._pending[sequence].append(chunk)
        if sequence.given is None:
            self.written += len(chunk.text)

    def take(self) -> list[Chunk]:
        """The chunks that come next in the text; those of a sequence wait for the end of those before it."""
        taken: list[Chunk] = []
        for sequence, chunks in list(self._pending.items()):
            taken += chunks
            if not chunks or chunks[-1].finish_reason is None:
                self._pending[sequence] = []
                break
            del self._pending[sequence]
        return taken


@dataclass(frozen=True)
class Part:
    """The next text of a choice.

    Attributes:
        choice: whose text it is.
        text: its characters.
        rows: one for each of them, None if log-probabilities are not asked for.
        finish_reason: None if the choice goes on.
    """

    choice: Choice
    text: str
    rows: list[LogprobsRow] | None
    finish_reason: str | None

    def json(self) -> str:
        """The JSON of a choice as OpenAI's clients read it."""
        head = json_line({"index": self.choice.index, "text": self.text, "finish_reason": self.finish_reason})
        logprobs = "null" if self.rows is None else LogprobsWriter.object(self.rows)
        return f'{head[:-1]},"logprobs":{logprobs}}}'


class CompletionAnswer:
    """One request's answer, in either form.

    Args:
        handle: of all sequences of the request.
        request: a resolved request.
        choices: for each choice, the sequences that its text is made of, in their order.
        vocabulary: of the model that writes.
        about: the fields of every answer and chunk that say what wrote it.
        record: counts what is sent.
    """

    def __init__(
        self,
        handle: RequestHandle,
        request: CompletionRequest,
        choices: Sequence[Sequence[TextSequence]],
        vocabulary: Vocabulary,
        about: dict[str, object],
        record: RequestRecord,
    ) -> None:
        self._handle = handle
        self._request = request
        self._record = record
        self._writer = LogprobsWriter(vocabulary)
        self._head = {"id": f"cmpl-{handle.id}", "object": "text_completion", "created": int(time.time())} | about
        self._choices: list[Choice] = []
        self._readers: dict[TextSequence, list[Choice]] = {sequence: [] for sequence in handle.sequences}
        self._offsets: list[int] = []  # of each choice's next character
        for index, sequences in enumerate(choices):
            prompt = request.prompt[index // request.n]
            choice = Choice(index, prompt, sequences)
            self._choices.append(choice)
            self._offsets.append(0 if request.echo else len(prompt))
            for sequence in sequences:
                self._readers[sequence].append(choice)

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        """Chunks as text comes, each of one choice, then `[DONE]`; or an error. No frame has an id or a name.

        The first character is sent at once, then all that has come, about every 25 ms (`RequestHandle.pause`).
        """
        options = self._request.stream_options
        include_usage = options is not None and options.include_usage
        head = self._head | ({"usage": None} if include_usage else {})
        try:
            for part in self._beginnings():
                yield _frame(json_line(head, choices=[part.json()]))
            while chunks := await self._handle.take():
                for part in self._parts(chunks):
                    yield _frame(json_line(head, choices=[part.json()]))
                await self._handle.pause()
            if include_usage:
                yield _frame(json_line(head | {"usage": self._usage()}, choices=[]))
            yield _frame("[DONE]")
        except SoliloquyError as error:
            self._record.failed(error)
            yield _frame(json_line(to_problem(error).openai_content()))

    async def as_json(self) -> str:
        """The one JSON object, once all of it has been generated."""
        parts: list[list[Part]] = [[] for _ in self._choices]
        for part in self._beginnings():
            parts[part.choice.index].append(part)
        while chunks := await self._handle.take():
            for part in self._parts(chunks):
                parts[part.choice.index].append(part)
            await asyncio.sleep(0)  # let others run, however fast the text comes
        choices = [_joined(choice, some).json() for choice, some in zip(self._choices, parts, strict=True)]
        return json_line(self._head | {"usage": self._usage()}, choices=choices)

    def _beginnings(self) -> Iterator[Part]:
        """With `echo`, the part of each choice that is there before anything is generated.

        It is the prompt, or only its first character if the rest of it is scored.
        """
        if not self._request.echo:
            return
        for choice in self._choices:
            is_scored = self._request.logprobs is not None
            text = choice.prompt[:1] if is_scored else choice.prompt
            self._offsets[choice.index] = len(text)
            rows = [self._writer.first_row(text)] if is_scored else None
            yield Part(choice, text, rows, "length" if choice.ended else None)

    def _parts(self, chunks: list[tuple[TextSequence, Chunk]]) -> Iterator[Part]:
        """One part for each choice whose text goes on with these chunks."""
        written = sum(len(chunk.text) for sequence, chunk in chunks if sequence.given is None)
        if written:
            self._record.wrote(written)
        for sequence, chunk in chunks:
            for choice in self._readers[sequence]:
                choice.add(sequence, chunk)
        for choice in self._choices:
            taken = choice.take()
            if taken:
                yield self._part(choice, taken)

    def _part(self, choice: Choice, chunks: list[Chunk]) -> Part:
        text = "".join(chunk.text for chunk in chunks)
        offset = self._offsets[choice.index]
        self._offsets[choice.index] = offset + len(text)
        rows: list[LogprobsRow] | None = None
        if self._request.logprobs is not None:
            logprobs: list[Logprob] = []
            for chunk in chunks:
                logprobs += chunk.logprobs
            rows = self._writer.rows(text, logprobs, offset)
        return Part(choice, text, rows, chunks[-1].finish_reason if choice.ended else None)

    def _usage(self) -> dict[str, int]:
        """The counts of tokens, each of which is a character here."""
        prompt = sum(map(len, self._request.prompt))
        written = sum(choice.written for choice in self._choices)
        return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def _joined(choice: Choice, parts: Sequence[Part]) -> Part:
    """All parts of one choice as one."""
    text = "".join(part.text for part in parts)
    rows: list[LogprobsRow] | None = []
    for part in parts:
        if rows is None or part.rows is None:
            rows = None
        else:
            rows += part.rows
    return Part(choice, text, rows, parts[-1].finish_reason)


def _logprob(probability: float) -> str:
    return f"{math.log(probability) if probability else MIN_LOGPROB:.6g}"


def _frame(data: str) -> ServerSentEvent:
    return ServerSentEvent(data, sep="\n")
