"""A span for each request, by OpenTelemetry's conventions for HTTP, with child spans for waiting and for writing.

Imported only if tracing is on, for it needs the extra `soliloquy[tracing]`. The standard OTEL_ variables say where
spans are sent and which are sampled. No span has a query or an error's message: they may contain a prompt.
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

from app.serving.request_handle import RequestHandle

if TYPE_CHECKING:
    from app.observability.exchange import Exchange

CLOSE_SECONDS = 3  # for the last spans to be sent; a collector that is down must not keep the server from ending


class Tracing:
    """A tracer with a provider of its own: nothing global is changed."""

    def __init__(self) -> None:
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "soliloquy"}))
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self.provider.get_tracer("soliloquy")

    def start(self, exchange: "Exchange") -> Span:
        """Begin the span of a request, a child of its client's span if a `traceparent` header names one."""
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
        """End the span, with how the request ended and when its first character came."""
        record = exchange.record
        status = exchange.status
        if exchange.scope.get("client"):  # now that a trusted proxy's header has been read
            span.set_attribute("client.address", exchange.scope["client"][0])
        if exchange.route != "other":
            span.update_name(f"{exchange.method} {exchange.route}")
            span.set_attribute("http.route", exchange.route)
        if status is not None:
            span.set_attribute("http.response.status_code", status)
        if record.handle is not None:
            span.set_attribute("soliloquy.answer_id", record.handle.id)
            span.set_attribute("soliloquy.characters", record.characters)
            self._add_children(span, record.handle)
        if exchange.cancelled:
            span.set_attribute("soliloquy.cancelled", True)
        if record.error is not None or (status or 0) >= 500:
            span.set_attribute("error.type", record.error or str(status))
            span.set_status(StatusCode.ERROR)
        span.end()

    def _add_children(self, span: Span, handle: RequestHandle) -> None:
        """Add `wait`, for a slot and while the prompt is read, and `write`, from the first character on."""
        context = set_span_in_context(span)
        end = time.time_ns()
        first = end if handle.first_character is None else _wall_time(handle.first_character)
        self._tracer.start_span("wait", context, start_time=_wall_time(handle.submitted)).end(first)
        if handle.first_character is not None:
            self._tracer.start_span("write", context, start_time=first).end(end)

    def close(self) -> None:
        """Send what has not been sent, for CLOSE_SECONDS at most."""
        closing = threading.Thread(target=self.provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


def _wall_time(moment: float) -> int:
    """A moment of the monotonic clock, in nanoseconds since 1970."""
    return time.time_ns() - round((time.monotonic() - moment) * 1e9)
