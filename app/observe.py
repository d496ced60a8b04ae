"""What each request tells of itself: its id, a line in the log, figures for Prometheus, a span for traces.

Owns the outermost middleware and the `Meter`. Status, duration, refusals, open streams and clients that leave are
seen from there, whatever answers. Only who writes text has to say so, to the meter of its request:

    meter = meter_of(request.scope)
    meter.asked(prompt)         what the text follows; kept only if the settings say that prompts are logged
    meter.wrote(len(text))      each time that text has come and is about to go out
    meter.failed(error)         the stream has begun and ends with this

`JobStream` and `whole` tell it the job. Who refuses a request for a reason that the status does not tell sets
`request.state.reason` to one of `metrics.REASONS`; who refuses one before it reaches the app calls
`Observer.refused`.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import log
from app.job import Job
from app.metrics import Metrics
from app.service import Service
from app.settings import ServerSettings
from model.errors import InputError

if TYPE_CHECKING:
    from app.tracing import Tracing

logger = logging.getLogger("app.access")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
QUIET = frozenset({"/health/live", "/health/ready", "/metrics"})  # asked every few seconds: logged when they fail
LONGEST_PATH = 200
LEFT = 499  # no answer: its client has left
REASONS = {
    400: "invalid",
    401: "unauthorized",
    403: "forbidden",
    408: "timeout",
    413: "too_large",
    414: "too_large",
    422: "invalid",
    429: "rate_limited",
    431: "too_large",
}


class Meter:
    """What is known of the text that is written for one request. Belongs to the event loop."""

    def __init__(self, metrics: Metrics | None = None, keep_prompt: bool = False) -> None:
        self._metrics, self._keep_prompt = metrics, keep_prompt
        self._last = 0.0
        self.job: Job | None = None
        self.prompt: str | Sequence[str] | None = None
        self.characters = 0
        self.first_character: float | None = None  # seconds since the job was queued
        self.streaming = False
        self.slow = False
        self.error: str | None = None

    def asked(self, prompt: str | Sequence[str]) -> None:
        """What the text follows."""
        if self._keep_prompt:
            self.prompt = prompt

    def wrote(self, characters: int) -> None:
        """So many more characters go out."""
        self.characters += characters
        if self._metrics is None:
            return
        now, before = time.monotonic(), self._last
        self._last = now
        self._metrics.characters += characters
        if self.first_character is None and self.job is not None:
            self.first_character = now - self.job.submitted
            self._metrics.first_character.observe(self.first_character)
        elif self.streaming:
            self._metrics.gap.observe(now - before)

    def failed(self, error: Exception) -> None:
        """What has begun cannot be finished."""
        self.error = type(error).__name__

    def dropped(self) -> None:
        """The client took nothing for too long."""
        self.slow = True


def meter_of(scope: Scope) -> Meter:
    """The meter of a request; one that nobody reads, if the request is not observed."""
    meter: Meter = scope.get("state", {}).get("meter") or Meter()
    return meter


class Exchange:
    """One request and its answer, as they pass."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, metrics: Metrics, meter: Meter) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self._metrics, self.meter = metrics, meter
        self.started = time.monotonic()
        self.request_id = log.request_id(dict(scope["headers"]).get(b"x-request-id"))
        self.status: int | None = None
        self.complete = False
        self.left = False
        scope.setdefault("state", {})["meter"] = meter

    @property
    def method(self) -> str:
        """The method, if it is one of those in use."""
        method: str = self.scope["method"]
        return method if method in METHODS else "_OTHER"

    @property
    def route(self) -> str:
        """The template of the path, of which there are few; `other` if it is none of the app's, or if the request
        was refused before it was looked up."""
        scope, endpoint = self.scope, self.scope.get("endpoint")
        if "route" in scope:
            return str(scope["route"].path_format)
        if endpoint is not None:  # of files, or of a route that is not FastAPI's
            for route in scope["app"].routes:
                if endpoint in (getattr(route, "app", None), getattr(route, "endpoint", None)):
                    return str(route.path_format)
        return "other"

    @property
    def reason(self) -> str | None:
        """Why the request was refused, if it was."""
        given: str | None = self.scope["state"].get("reason")
        return given or REASONS.get(self.status or 0)

    @property
    def cancelled(self) -> bool:
        """True if the client left before it had its answer."""
        return self.status == LEFT or (self.left and not self.complete)

    async def receive(self) -> Message:
        """From the client; see it leave."""
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self.complete:
            self.left = True
        return message

    async def send(self, message: Message) -> None:
        """To the client, with the request's id."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self.request_id.encode())]
            message = {**message, "headers": headers}
            if any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers):
                self.meter.streaming = True
                self._metrics.streams += 1
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete = True
        await self._send(message)

    def end(self) -> None:
        """Count it."""
        metrics, status = self._metrics, LEFT if self.status is None else self.status
        self.status = status
        metrics.requests.labels(self.method, self.route, str(status)).inc()
        metrics.duration.labels(self.route).observe(time.monotonic() - self.started)
        metrics.streams -= self.meter.streaming
        if self.reason is not None:
            metrics.rejections.labels(self.reason).inc()
        if self.cancelled:
            metrics.cancellations.inc()
        if self.meter.slow:
            metrics.slow_readers.inc()
        if self.meter.streaming and self.meter.error is not None:
            metrics.stream_errors.inc()


class Observe:
    """Pure ASGI: neither buffers nor hides a disconnect."""

    def __init__(self, app: ASGIApp, observer: "Observer") -> None:
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


class Observer:
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
        if reason := REASONS.get(status):
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
        from app.tracing import Tracing  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        raise InputError("tracing", f"needs {error.name}; pip install 'soliloquy[tracing]'") from error
    return Tracing()


def log_access(exchange: Exchange) -> None:
    """One line for the request: never its query, which may be a prompt, nor its headers, which may be keys."""
    scope, meter, status = exchange.scope, exchange.meter, exchange.status or LEFT
    path = scope.get("raw_path", scope["path"].encode()).partition(b"?")[0].decode("latin-1")[:LONGEST_PATH]
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
