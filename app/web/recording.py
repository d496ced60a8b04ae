"""One text that the server has written for the page: what a first visitor sees being written, at no cost for each.

Owns when it is recorded and what of. It is the event stream of one request to the engine, with all details, and is
kept in memory. It is no HTTP request: the log and the metrics do not count it among those, only the engine's steps.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import APIRouter, Response

from app.api.responses import Answer
from app.api.resume import resume
from app.api.schemas import GenerateRequest
from app.serving.service import Service
from model.errors import SoliloquyError
from model.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

RECORDED_SEED = 1337
RECORDED_CHARACTERS = 320  # as much as a window shows without scrolling
DELAY_SECONDS = 0.5  # after the start, so that nothing waits for it


@dataclass(frozen=True)
class Recording:
    """The events of one text, as a stream of `/generate` has them, and the checkpoint that wrote it."""

    checkpoint: str
    events: bytes


class Recorder:
    """Records one text at the start, and another one when a new checkpoint has taken over.

    Args:
        service: what writes it.
        beginnings: prompts; the first that the model can read is used.

    Attributes:
        enabled: whether anything is recorded.
    """

    def __init__(self, service: Service, beginnings: Sequence[str]) -> None:
        self.enabled = service.settings.recording
        self._service = service
        self._beginnings = beginnings
        self._recording: Recording | None = None
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Record while the app runs; the start waits for nothing."""
        self._begin()
        try:
            yield
        finally:
            if self._task is not None:
                self._task.cancel()

    def current(self) -> Recording | None:
        """The recording of the checkpoint that is served; None until there is one."""
        recording = self._recording
        if recording is not None and recording.checkpoint == self._service.current.card.checkpoint:
            return recording
        self._begin()
        return None

    def _begin(self) -> None:
        """Record in the background, unless that is under way."""
        if self.enabled and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._record())

    async def _record(self) -> None:
        await asyncio.sleep(DELAY_SECONDS)
        try:
            self._recording = await record(self._service, self._beginnings)
        except SoliloquyError as error:  # busy, or about to stop: the next visitor makes it try again
            logger.debug("nothing recorded for the page: %s", error)


async def record(service: Service, beginnings: Sequence[str]) -> Recording | None:
    """Have the engine write a text; None if it was not written to its end.

    Raises:
        SoliloquyError: the engine takes no request now.
    """
    serving = service.current
    request = GenerateRequest(
        prompt=readable(beginnings, serving.vocabulary),
        max_new_tokens=min(RECORDED_CHARACTERS, service.settings.max_new_tokens),
        seed=RECORDED_SEED,
        details=True,
        alternatives=0,
        report=bool(serving.card.content()["report"]),
    )
    resolved, token = resume(request, None, serving.vocabulary, serving.card)
    handle = serving.engine.submit(resolved.sequences(serving.vocabulary, token.sent))
    answer = Answer(handle, resolved, serving.card, serving.checkpoint, token, service.reports)
    events = b""
    name: str | None = None
    try:
        async for event in answer.events():
            events += event.encode()
            name = event.event
    finally:
        handle.cancel()
    return Recording(serving.card.checkpoint, events) if name == "done" else None


def readable(beginnings: Sequence[str], vocabulary: Vocabulary) -> str:
    """The first of the prompts of which the model knows each character; none if there is no such one."""
    for beginning in beginnings:
        if set(beginning) <= set(vocabulary.characters):
            return beginning
    return ""


def make_router(recorder: Recorder) -> APIRouter:
    """The route from which the page gets it."""
    router = APIRouter()

    @router.get("/recording", include_in_schema=False)
    async def recording() -> Response:
        """The events of a text that was written before; 204 while there is none."""
        found = recorder.current()
        headers = {"Cache-Control": "no-cache"}
        if found is None:
            return Response(status_code=204, headers=headers)
        return Response(found.events, headers=headers, media_type="text/event-stream; charset=utf-8")

    return router
