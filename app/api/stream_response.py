"""Event streams as HTTP responses: generation stops when the stream ends, in whatever way.

Knows nothing of what the events say.
"""

import logging
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from app.observability.exchange import record_of
from app.serving.request_handle import RequestHandle
from app.settings import ServerSettings

logger = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 15


def keep_alive() -> ServerSentEvent:
    """A comment, so that no proxy closes a stream that is silent while its request waits."""
    return ServerSentEvent(comment="keep-alive", sep="\n")


class EventStreamResponse(EventSourceResponse):
    """An event stream that cancels its request however it ends, even if it never began."""

    def __init__(
        self, handle: RequestHandle, events: AsyncIterator[ServerSentEvent], settings: ServerSettings
    ) -> None:
        super().__init__(
            events,
            sep="\n",
            ping=KEEP_ALIVE_SECONDS,
            ping_message_factory=keep_alive,
            send_timeout=settings.send_timeout,
            shutdown_grace_period=settings.drain_seconds + 1,
        )
        self._handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until done, disconnected, too slow, or shut down."""
        record = record_of(scope)
        record.handle = self._handle
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            record.dropped()
            logger.info("dropped %s: its reader took nothing for %g seconds", self._handle.id, self.send_timeout)
        finally:
            self._handle.cancel()
