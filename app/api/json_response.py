"""JSON answers in one piece: made while it is watched whether their client stays, then sent in parts.

What has been made and waits for its reader is counted and bounded: readers may be slow, and answers large.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from app.observability.exchange import meter_of
from app.serving.request_handle import RequestHandle
from model.errors import QueueFullError, SoliloquyError

logger = logging.getLogger(__name__)

MAX_UNREAD = 64 * 1024 * 1024  # bytes of answers that wait to be read, all together
PART = 64 * 1024  # bytes handed to the connection at once, which then waits for its reader
RETRY_SECONDS = 5  # seconds
HEADERS = {"Cache-Control": "no-store"}


class Unread:
    """How many bytes of finished answers wait for their readers."""

    def __init__(self) -> None:
        self.bytes = 0

    def add(self, size: int) -> None:
        """Count an answer that is about to be sent. One of a single part always has room.

        Raises:
            QueueFullError: too much waits already.
        """
        if size > PART and self.bytes + size > MAX_UNREAD:
            raise QueueFullError(f"{self.bytes:,} bytes of answers wait to be read already", RETRY_SECONDS)
        self.bytes += size

    def remove(self, size: int) -> None:
        """The answer has been sent, or its reader has gone."""
        self.bytes -= size


class WholeAnswer(Response):
    """A JSON answer that goes out as fast as it is read, and is counted until then."""

    media_type = "application/json"

    def __init__(self, content: str, unread: Unread) -> None:
        super().__init__(content, headers=HEADERS)
        self._unread = unread

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it part by part.

        Raises:
            QueueFullError: too much waits to be read already; nothing has been sent.
        """
        size = len(self.body)
        self._unread.add(size)
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for start in range(0, max(1, size), PART):
                part = bytes(self.body[start : start + PART])
                await send({"type": "http.response.body", "body": part, "more_body": start + PART < size})
        finally:
            self._unread.remove(size)


class GrowingAnswer(Response):
    """A JSON answer that goes out while its job is worked on, no faster than it is read: its size does not matter.

    The job is given up however the answer ends. If it fails after the beginning has gone out, the connection is
    closed before the end, so that no client takes a part for the whole.
    """

    media_type = "application/json"

    def __init__(self, job: RequestHandle, parts: AsyncIterator[str]) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._job = job
        self._parts = parts
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, until it is complete or its client has gone.

        Raises:
            SoliloquyError: the job has failed before anything was sent.
        """
        meter = meter_of(scope)
        meter.job = self._job
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(disconnect(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
            elif not self._begun:
                leaving.result()  # a body without end is refused here
        except SoliloquyError as error:
            if not self._begun:
                raise
            meter.failed(error)
            logger.info("cut an answer off: %s", error)
        finally:
            self._job.cancel()
            sending.cancel()
            leaving.cancel()

    async def _send(self, send: Send) -> None:
        async for part in self._parts:
            if not self._begun:
                self._begun = True
                start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                await send(start)
            await send({"type": "http.response.body", "body": part.encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def whole(job: RequestHandle | None, writing: Coroutine[Any, Any, str], request: Request) -> Response:
    """A JSON answer; given up as soon as the client goes."""
    meter_of(request.scope).job = job
    answering = asyncio.ensure_future(writing)
    leaving = asyncio.ensure_future(disconnect(request.receive))
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return WholeAnswer(answering.result(), request.app.state.unread)
        leaving.result()  # a body without end is refused here
        return Response(status_code=499)  # nobody will read it
    finally:
        if job is not None:
            job.cancel()
        answering.cancel()
        leaving.cancel()


async def disconnect(receive: Receive) -> None:
    """Wait until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
