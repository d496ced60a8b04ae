"""Observes every request: its id, a line in the log, metrics, and a span for traces.

Status, duration, refusals, open streams and clients that leave are seen from this layer, whatever answers. What it
cannot see is recorded by whoever generates text, in the record of the request:

    record = record_of(request.scope)
    record.received(prompt)     kept only if the settings say that prompts are logged
    record.wrote(len(text))     each time that text has come and is about to be sent
    record.failed(error)        the stream has begun and ends with this error

`EventStreamResponse`, `StreamedJsonResponse` and `buffered_json` add the request's handle. Code that refuses a
request for a reason that the status does not tell sets `request.state.reason` to one of `metrics.REFUSAL_REASONS`;
code that refuses a connection before there is a request calls `RequestObserver.refused`.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from app.observability import log
from app.observability.exchange import CLIENT_LEFT, REASON_OF_STATUS, Exchange, RequestRecord
from app.observability.metrics import Metrics
from app.serving.service import Service
from app.settings import ServerSettings
from model.errors import InputError

if TYPE_CHECKING:
    from app.observability.tracing import Tracing

logger = logging.getLogger("app.access")

QUIET = frozenset({"/health/live", "/health/ready", "/metrics"})  # asked every few seconds: logged when they fail
MAX_PATH_LENGTH = 200


class Observe:
    """Middleware that observes; pure ASGI, so that it neither buffers nor hides a disconnect."""

    def __init__(self, app: ASGIApp, observer: "RequestObserver") -> None:
        self.app = app
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on; count, log and trace it when the request has ended."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        observer = self._observer
        record = RequestRecord(observer.metrics, observer.settings.log_prompts)
        exchange = Exchange(scope, receive, send, observer.metrics, record)
        ids = {"request_id": exchange.request_id}
        span = None
        if observer.tracing is not None:
            span = observer.tracing.start(exchange)
            ids["trace_id"] = f"{span.get_span_context().trace_id:032x}"
        log.bind(**ids)  # never unbound: uvicorn logs what fails in the same task
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except Exception as error:
            exchange.status = exchange.status or 500
            record.failed(error)
            raise
        finally:
            exchange.end()
            log_access(exchange)
            if observer.tracing is not None and span is not None:
                observer.tracing.end(span, exchange)


class RequestObserver:
    """The metrics and the tracing of one app.

    Raises:
        InputError: tracing is on, but what it needs is not installed.
    """

    def __init__(self, service: Service) -> None:
        self.settings = service.settings
        self.metrics = Metrics(service)
        self.tracing = make_tracing(self.settings)

    def refused(self, status: int) -> None:
        """Count a connection that was refused with this status, before there was a request to observe."""
        reason = REASON_OF_STATUS.get(status)
        if reason is not None:
            self.metrics.rejections.labels(reason).inc()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Measure the event loop while the app runs; send the last spans when it ends."""
        watching = asyncio.create_task(self.metrics.watch_loop())
        watching.add_done_callback(log.log_failure)
        try:
            yield
        finally:
            watching.cancel()
            if self.tracing:
                self.tracing.close()


def make_tracing(settings: ServerSettings) -> "Tracing | None":
    """The tracing of an app; None if it is off.

    Raises:
        InputError: the packages it needs are not installed.
    """
    if not settings.tracing:
        return None
    try:
        from app.observability.tracing import Tracing  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        raise InputError("tracing", f"needs {error.name}; pip install 'soliloquy[tracing]'") from error
    return Tracing()


def log_access(exchange: Exchange) -> None:
    """Log one line for the request: never its query, which may be a prompt, nor its headers, which may be keys."""
    scope = exchange.scope
    record = exchange.record
    status = exchange.status or CLIENT_LEFT
    path = scope.get("raw_path", scope["path"].encode()).partition(b"?")[0].decode("latin-1")[:MAX_PATH_LENGTH]
    fields = {
        "method": exchange.method,
        "path": path,
        "route": exchange.route,
        "status": status,
        "duration": round(time.monotonic() - exchange.started, 4),
        "client": scope["client"][0] if scope.get("client") else None,
        "characters": record.characters or None,
        "first_character": record.first_character and round(record.first_character, 4),
        "answer_id": record.handle and record.handle.id,
        "cancelled": exchange.cancelled or None,
        "slow": record.slow or None,
        "reason": exchange.reason,
        "error": record.error,
        "prompt": record.prompt,
    }
    level = logging.DEBUG if exchange.route in QUIET and status < 400 else logging.INFO
    known = {name: value for name, value in fields.items() if value is not None}
    logger.log(level, "%s %s %d", exchange.method, path, status, extra=known)
