"""What is observed of one HTTP request and its answer: how much was written, how fast, and how it ended.

Counts the request in the metrics when it has ended. Knows nothing of log lines, spans, or what the routes do.
"""

import time
from collections.abc import Sequence

from starlette.types import Message, Receive, Scope, Send

from app.observability import log
from app.observability.metrics import Metrics
from app.serving.request_handle import RequestHandle

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
CLIENT_LEFT = 499  # nginx's status for a request whose client left before there was an answer
# The `reason` label of refusals that name no other reason.
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


class RequestRecord:
    """What is recorded of the text that is generated for one request. Only the event loop may use it.

    Attributes:
        handle: the engine's side of the request, once it is queued.
        prompt: kept only if prompts are logged.
        characters: sent so far, in all samples.
        first_character: seconds from the queue to the first character; None before that. (The attribute of the
            same name of `RequestHandle` is a time of the monotonic clock.)
        streaming: whether the answer is an event stream.
        slow: whether the client was dropped because it read nothing for too long.
        error: the name of the exception that ended an answer that had begun.
    """

    def __init__(self, metrics: Metrics | None = None, keep_prompt: bool = False) -> None:
        self._metrics = metrics
        self._keep_prompt = keep_prompt
        self._last_flush = 0.0  # when characters were counted last, by the monotonic clock
        self.handle: RequestHandle | None = None
        self.prompt: str | Sequence[str] | None = None
        self.characters = 0
        self.first_character: float | None = None
        self.streaming = False
        self.slow = False
        self.error: str | None = None

    def received(self, prompt: str | Sequence[str]) -> None:
        """Record the prompt, if prompts are logged."""
        if self._keep_prompt:
            self.prompt = prompt

    def wrote(self, characters: int) -> None:
        """Count characters that are about to be sent."""
        self.characters += characters
        if self._metrics is None:
            return
        now = time.monotonic()
        gap = now - self._last_flush
        self._last_flush = now
        self._metrics.characters += characters
        if self.first_character is None and self.handle is not None:
            self.first_character = now - self.handle.submitted
            self._metrics.first_character.observe(self.first_character)
        elif self.streaming:
            self._metrics.gap.observe(gap)

    def failed(self, error: Exception) -> None:
        """Record why an answer that has begun cannot be finished."""
        self.error = type(error).__name__

    def dropped(self) -> None:
        """Record that the client was dropped because it read nothing for too long."""
        self.slow = True


def record_of(scope: Scope) -> RequestRecord:
    """The record of a request; a new one, which nobody reads, if the request is not observed."""
    record: RequestRecord = scope.get("state", {}).get("record") or RequestRecord()
    return record


class Exchange:
    """One request and its answer: wraps `receive` and `send` of ASGI, and notes what they show.

    It puts `record` into the scope's state, where `record_of` finds it.

    Attributes:
        started: when the request came, by the monotonic clock, in seconds.
        status: of the answer, once it has begun.
        complete: whether the whole answer was handed over to be sent.
        left: whether the client disconnected before that.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, metrics: Metrics, record: RequestRecord) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self._metrics = metrics
        self.record = record
        self.started = time.monotonic()
        headers = dict(scope["headers"])
        self.request_id = log.request_id(headers.get(b"x-request-id"))  # the client's, or a new one
        self.status: int | None = None
        self.complete = False
        self.left = False
        scope.setdefault("state", {})["record"] = record

    @property
    def method(self) -> str:
        """The method, or OpenTelemetry's `_OTHER` if it is not in METHODS.

        A label of metrics must have few values.
        """
        method: str = self.scope["method"]
        return method if method in METHODS else "_OTHER"

    @property
    def route(self) -> str:
        """The path's template, such as `/v1/models/{name}`.

        `other` if the path is none of the app's, or if the request was refused before it was routed.
        """
        if "route" in self.scope:
            return str(self.scope["route"].path_format)
        endpoint = self.scope.get("endpoint")
        if endpoint is not None:  # files, or a route that is not FastAPI's: such leave no `route` in the scope
            for route in self.scope["app"].routes:
                if endpoint in (getattr(route, "app", None), getattr(route, "endpoint", None)):
                    return str(route.path_format)
        return "other"

    @property
    def reason(self) -> str | None:
        """Why the request was refused, if it was: as `app.problems` has noted it, else by the status."""
        noted: str | None = self.scope["state"].get("reason")
        return noted or REASON_OF_STATUS.get(self.status or 0)

    @property
    def cancelled(self) -> bool:
        """True if the client left before it had the whole answer."""
        return self.status == CLIENT_LEFT or (self.left and not self.complete)

    async def receive(self) -> Message:
        """The next message from the client; notes whether the client has left."""
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self.complete:
            self.left = True
        return message

    async def send(self, message: Message) -> None:
        """Send a message to the client, with the request's id among the headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self.request_id.encode())]
            message = {**message, "headers": headers}
            if any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers):
                self.record.streaming = True
                self._metrics.streams += 1
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete = True
        await self._send(message)

    def end(self) -> None:
        """Count the request in the metrics, once it has ended."""
        metrics = self._metrics
        if self.status is None:
            self.status = CLIENT_LEFT
        metrics.requests.labels(self.method, self.route, str(self.status)).inc()
        metrics.duration.labels(self.route).observe(time.monotonic() - self.started)
        if self.record.streaming:
            metrics.streams -= 1
        if self.reason is not None:
            metrics.rejections.labels(self.reason).inc()
        if self.cancelled:
            metrics.cancellations.inc()
        if self.record.slow:
            metrics.slow_readers.inc()
        if self.record.streaming and self.record.error is not None:
            metrics.stream_errors.inc()
