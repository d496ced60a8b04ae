"""Event streams as HTTP responses: the writing ends with its reader, however that one leaves."""

import logging
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from app.observability.exchange import meter_of
from app.serving.request_handle import RequestHandle
from app.settings import ServerSettings

logger = logging.getLogger(__name__)


class JobStream(EventSourceResponse):
    """An event stream that gives its job up however it ends, even if it never began."""

    def __init__(
        self, job: RequestHandle, events: AsyncIterator[ServerSentEvent], settings: ServerSettings
    ) -> None:
        super().__init__(
            events,
            sep="\n",
            ping=15,
            ping_message_factory=lambda: ServerSentEvent(comment="keep-alive", sep="\n"),
            send_timeout=settings.send_timeout,
            shutdown_grace_period=settings.drain_seconds + 1,
        )
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until done, disconnected, too slow, or shut down."""
        meter = meter_of(scope)
        meter.job = self._job
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            meter.dropped()
            logger.info("dropped %s: its reader took nothing for %g seconds", self._job.id, self.send_timeout)
        finally:
            self._job.cancel()
