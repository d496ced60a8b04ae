"""One request and its answer, as they pass: what was written, how fast, and how it ended."""

import time
from collections.abc import Sequence

from starlette.types import Message, Receive, Scope, Send

from app.observability import log
from app.observability.metrics import Metrics
from app.serving.request_handle import RequestHandle

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
LEFT = 499  # no answer: its client has left
REASON_OF_STATUS = {
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
        self.job: RequestHandle | None = None
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
        return given or REASON_OF_STATUS.get(self.status or 0)

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
