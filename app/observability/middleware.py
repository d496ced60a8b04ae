"""What each request tells of itself: its id, a line in the log, figures for Prometheus, a span for traces.

Owns the outermost middleware and the `Meter`. Status, duration, refusals, open streams and clients that leave are
seen from there, whatever answers. Only who writes text has to say so, to the meter of its request:

    meter = meter_of(request.scope)
    meter.asked(prompt)         what the text follows; kept only if the settings say that prompts are logged
    meter.wrote(len(text))      each time that text has come and is about to go out
    meter.failed(error)         the stream has begun and ends with this

`JobStream` and `whole` tell it the job. Who refuses a request for a reason that the status does not tell sets
`request.state.reason` to one of `metrics.REASON_OF_STATUS`; who refuses one before it reaches the app calls
`RequestObserver.refused`.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from app.observability import log
from app.observability.exchange import LEFT, REASON_OF_STATUS, Exchange, Meter
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
    """Pure ASGI: neither buffers nor hides a disconnect."""

    def __init__(self, app: ASGIApp, observer: "RequestObserver") -> None:
        self.app, self._observer = app, observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on, and tell of it in the end."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        observer = self._observer
        meter = Meter(observer.metrics, observer.settings.log_prompts)
        exchange = Exchange(scope, receive, send, observer.metrics, meter)
        span = observer.tracing.start(exchange) if observer.tracing else None
        ids = {} if span is None else {"trace_id": f"{span.get_span_context().trace_id:032x}"}
        log.bind(request_id=exchange.request_id, **ids)  # never unbound: uvicorn logs what fails in the same task
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except Exception as error:
            exchange.status = exchange.status or 500
            meter.failed(error)
            raise
        finally:
            exchange.end()
            log_access(exchange)
            if observer.tracing and span:
                observer.tracing.end(span, exchange)


class RequestObserver:
    """The instruments of one app.

    Raises:
        InputError: tracing is on, but what it needs is not installed.
    """

    def __init__(self, service: Service) -> None:
        self.settings = service.settings
        self.metrics = Metrics(service)
        self.tracing = make_tracing(self.settings)

    def install(self, app: FastAPI) -> None:
        """Observe the app from outside of all else: the answers to unexpected errors too, which Starlette makes
        outside of all middleware. Call it last."""
        app.state.observer = self
        if self.settings.metrics:
            app.include_router(self.metrics.router())
        build = app.build_middleware_stack
        app.build_middleware_stack = lambda: Observe(build(), self)  # type: ignore[method-assign]

    def refused(self, status: int) -> None:
        """A connection was refused with this status, before there was a request to observe."""
        if reason := REASON_OF_STATUS.get(status):
            self.metrics.rejections.labels(reason).inc()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """What goes on while the app runs."""
        watching = asyncio.create_task(self.metrics.watch_loop())
        watching.add_done_callback(log.tell_failure)
        try:
            yield
        finally:
            watching.cancel()
            if self.tracing:
                self.tracing.close()


def make_tracing(settings: ServerSettings) -> "Tracing | None":
    """Tracing, if it is on.

    Raises:
        InputError: what it needs is not installed.
    """
    if not settings.tracing:
        return None
    try:
        from app.observability.tracing import Tracing  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        raise InputError("tracing", f"needs {error.name}; pip install 'soliloquy[tracing]'") from error
    return Tracing()


def log_access(exchange: Exchange) -> None:
    """One line for the request: never its query, which may be a prompt, nor its headers, which may be keys."""
    scope, meter, status = exchange.scope, exchange.meter, exchange.status or LEFT
    path = scope.get("raw_path", scope["path"].encode()).partition(b"?")[0].decode("latin-1")[:MAX_PATH_LENGTH]
    facts = {
        "method": exchange.method,
        "path": path,
        "route": exchange.route,
        "status": status,
        "duration": round(time.monotonic() - exchange.started, 4),
        "client": scope["client"][0] if scope.get("client") else None,
        "characters": meter.characters or None,
        "first_character": meter.first_character and round(meter.first_character, 4),
        "answer_id": meter.job and meter.job.id,
        "cancelled": exchange.cancelled or None,
        "slow": meter.slow or None,
        "reason": exchange.reason,
        "error": meter.error,
        "prompt": meter.prompt,
    }
    level = logging.DEBUG if exchange.route in QUIET and status < 400 else logging.INFO
    told = {name: fact for name, fact in facts.items() if fact is not None}
    logger.log(level, "%s %s %d", exchange.method, path, status, extra=told)
