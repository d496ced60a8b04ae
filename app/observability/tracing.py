"""A span for each request, by OpenTelemetry's conventions for HTTP, with one for the wait and one for the writing.

Imported only if tracing is on, for it needs the extra `soliloquy[tracing]`. The standard OTEL_ variables say where
spans go and which are taken. No span tells of a query or of an error's message: they may hold a prompt.
"""

import threading
import time
from typing import TYPE_CHECKING

from opentelemetry import propagate
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.util.types import AttributeValue

if TYPE_CHECKING:
    from app.observability.exchange import Exchange

CLOSE_SECONDS = 3  # for the last spans to go out; a collector that is away must not hold the server


class Tracing:
    """Owns a provider of its own: nothing global is changed."""

    def __init__(self) -> None:
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "soliloquy"}))
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self.provider.get_tracer("soliloquy")

    def start(self, exchange: "Exchange") -> Span:
        """The span of a request, below that of its client if a `traceparent` names one."""
        scope = exchange.scope
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        attributes: dict[str, AttributeValue] = {
            "http.request.method": exchange.method,
            "url.scheme": scope["scheme"],
            "url.path": scope["path"],
            "network.protocol.version": scope["http_version"],
            "soliloquy.request_id": exchange.request_id,
        }
        if scope.get("server"):
            attributes |= {"server.address": scope["server"][0], "server.port": scope["server"][1] or 0}
        if "user-agent" in headers:
            attributes["user_agent.original"] = headers["user-agent"]
        return self._tracer.start_span(
            exchange.method.removeprefix("_OTHER") or "HTTP",
            propagate.extract(headers),
            SpanKind.SERVER,
            attributes,
        )

    def end(self, span: Span, exchange: "Exchange") -> None:
        """Tell how the request ended, and when its first character came."""
        meter, status = exchange.meter, exchange.status
        if exchange.scope.get("client"):  # as a trusted proxy has told by now
            span.set_attribute("client.address", exchange.scope["client"][0])
        if exchange.route != "other":
            span.update_name(f"{exchange.method} {exchange.route}")
            span.set_attribute("http.route", exchange.route)
        if status is not None:
            span.set_attribute("http.response.status_code", status)
        if meter.job is not None:
            span.set_attribute("soliloquy.answer_id", meter.job.id)
            span.set_attribute("soliloquy.characters", meter.characters)
            self._children(span, exchange)
        if exchange.cancelled:
            span.set_attribute("soliloquy.cancelled", True)
        if meter.error is not None or (status or 0) >= 500:
            span.set_attribute("error.type", meter.error or str(status))
            span.set_status(StatusCode.ERROR)
        span.end()

    def _children(self, span: Span, exchange: "Exchange") -> None:
        """`wait`: for a slot, and while the prompt is read; `write`: from the first character on."""
        job = exchange.meter.job
        assert job is not None
        context, end = set_span_in_context(span), time.time_ns()
        first = end if job.first_character is None else _wall(job.first_character)
        self._tracer.start_span("wait", context, start_time=_wall(job.submitted)).end(first)
        if job.first_character is not None:
            self._tracer.start_span("write", context, start_time=first).end(end)

    def close(self) -> None:
        """Send what has not been sent, if that does not take too long."""
        closing = threading.Thread(target=self.provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


def _wall(moment: float) -> int:
    """A moment of the monotonic clock, in nanoseconds since 1970."""
    return time.time_ns() - round((time.monotonic() - moment) * 1e9)
