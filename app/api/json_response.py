"""JSON answers as HTTP responses. Owns how generation stops with its client, and the bound on unread answers.

Knows nothing of what the JSON is.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from app.observability.exchange import record_of
from app.serving.request_handle import RequestHandle
from model.errors import QueueFullError, SoliloquyError

logger = logging.getLogger(__name__)

MAX_UNREAD = 64 * 1024 * 1024  # bytes of answers that wait to be read, all together
PART_SIZE = 64 * 1024  # bytes passed to the connection in one call, which returns when there is room for more
UNREAD_RETRY_SECONDS = 5
HEADERS = {"Cache-Control": "no-store"}


class Unread:
    """How many bytes of finished answers wait for their readers."""

    def __init__(self) -> None:
        self.bytes = 0

    def add(self, size: int) -> None:
        """Count an answer that is about to be sent. One of a single part always has room.

        Raises:
            QueueFullError: too many bytes wait already.
        """
        if size > PART_SIZE and self.bytes + size > MAX_UNREAD:
            raise QueueFullError(f"{self.bytes:,} bytes of answers wait to be read already", UNREAD_RETRY_SECONDS)
        self.bytes += size

    def remove(self, size: int) -> None:
        """Stop counting an answer that has been sent, or whose reader has left."""
        self.bytes -= size


class BufferedJsonResponse(Response):
    """A finished JSON answer, sent as fast as it is read and counted in `unread` until then."""

    media_type = "application/json"

    def __init__(self, content: str, unread: Unread) -> None:
        super().__init__(content, headers=HEADERS)
        self._unread = unread

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it part by part.

        Raises:
            QueueFullError: too many bytes wait to be read already; nothing has been sent.
        """
        size = len(self.body)
        self._unread.add(size)
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for start in range(0, max(1, size), PART_SIZE):
                part = bytes(self.body[start : start + PART_SIZE])
                await send({"type": "http.response.body", "body": part, "more_body": start + PART_SIZE < size})
        finally:
            self._unread.remove(size)


class StreamedJsonResponse(Response):
    """A JSON answer sent while it is generated, no faster than it is read: its size does not matter.

    The request is cancelled however the answer ends. If it fails after the first part has been sent, the connection
    is closed before the last one, so that no client takes a part for the whole.
    """

    media_type = "application/json"

    def __init__(self, handle: RequestHandle, parts: AsyncIterator[str]) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._handle = handle
        self._parts = parts
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, until it is complete or its client has left.

        Raises:
            SoliloquyError: the request has failed before anything was sent.
        """
        record = record_of(scope)
        record.handle = self._handle
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(disconnect(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
            elif not self._started:
                leaving.result()  # raises if the rest of the request's body was refused, for its size
        except SoliloquyError as error:
            if not self._started:
                raise
            record.failed(error)
            logger.info("cut an answer off: %s", error)
        finally:
            self._handle.cancel()
            sending.cancel()
            leaving.cancel()

    async def _send(self, send: Send) -> None:
        async for part in self._parts:
            if not self._started:
                self._started = True
                start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                await send(start)
            await send({"type": "http.response.body", "body": part.encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def buffered_json(
    handle: RequestHandle | None, content: Coroutine[Any, Any, str], request: Request
) -> Response:
    """The response once `content`, which makes its JSON, is done; cancelled as soon as the client leaves.

    `handle` is of the sequences that the JSON needs, if any; they are cancelled with it.
    """
    record_of(request.scope).handle = handle
    answering = asyncio.ensure_future(content)
    leaving = asyncio.ensure_future(disconnect(request.receive))
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return BufferedJsonResponse(answering.result(), request.app.state.unread)
        leaving.result()  # raises if the rest of the request's body was refused, for its size
        return Response(status_code=499)  # nobody will read it
    finally:
        if handle is not None:
            handle.cancel()
        answering.cancel()
        leaving.cancel()


async def disconnect(receive: Receive) -> None:
    """Wait until the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
