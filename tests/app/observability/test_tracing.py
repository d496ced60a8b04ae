import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from httpx_sse import connect_sse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.main import create_app
from app.settings import ServerSettings
from model.errors import InputError
from tests.conftest import LiveServer

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SECRET = "wherefore"
APP = Path(__file__).parents[3] / "app"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """In the place of a collector."""
    exporter = InMemorySpanExporter()
    monkeypatch.setattr("app.observability.tracing.OTLPSpanExporter", lambda: exporter)
    return exporter


@contextmanager
def traced(folder: Path) -> Iterator[LiveServer]:
    """A server whose spans have all gone out at the end."""
    with LiveServer(create_app(ServerSettings(checkpoint=folder, device="cpu", tracing=True))) as live:
        yield live


def spans_of(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def test_a_span_goes_on_with_its_clients_trace(spans: InMemorySpanExporter, folder: Path) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "user-agent": "tester", "x-request-id": "own-1"}
    with traced(folder) as live:
        httpx.get(f"{live.url}/generate", params={"prompt": SECRET, "max_new_tokens": 30}, headers=headers)
    [span] = spans_of(spans, "GET /generate")
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    assert span.parent.is_remote
    attributes = dict(span.attributes or {})
    assert attributes["http.request.method"] == "GET"
    assert attributes["http.route"] == attributes["url.path"] == "/generate"
    assert attributes["http.response.status_code"] == 200
    assert attributes["url.scheme"] == "http"
    assert attributes["client.address"] == "127.0.0.1"
    assert attributes["user_agent.original"] == "tester"
    assert attributes["soliloquy.request_id"] == "own-1"
    assert attributes["soliloquy.characters"] == 30
    assert span.resource.attributes["service.name"] == "soliloquy"
    [wait] = spans_of(spans, "wait")
    [write] = spans_of(spans, "write")
    for child in (wait, write):
        assert child.parent is not None
        assert child.parent.span_id == span.context.span_id
    moments = (span.start_time, wait.start_time, wait.end_time, write.start_time, write.end_time, span.end_time)
    times = [moment for moment in moments if moment is not None]
    assert times == sorted(times)
    assert len(times) == 6
    assert wait.end_time == write.start_time


def test_no_span_tells_a_prompt(spans: InMemorySpanExporter, folder: Path) -> None:
    with traced(folder) as live:
        httpx.get(f"{live.url}/generate", params={"prompt": SECRET, "max_new_tokens": 5})
        httpx.get(f"{live.url}/generate", params={"prompt": f"{SECRET} ñ"})
        httpx.post(f"{live.url}/generate", json={"prompt": SECRET, "max_new_tokens": 5})

        def fail(*_: object) -> None:
            raise ValueError(SECRET)

        live.engine.submit = fail  # type: ignore[method-assign,assignment]
        assert httpx.post(f"{live.url}/generate", json={"prompt": SECRET}).status_code == 500
    exported = [json.loads(span.to_json()) for span in spans.get_finished_spans()]
    assert len(exported) == 4 + 2 * 2
    assert SECRET not in json.dumps(exported)
    [failed] = [span for span in exported if span["status"]["status_code"] == "ERROR"]
    assert failed["attributes"]["error.type"] == "ValueError"
    assert failed["attributes"]["http.response.status_code"] == 500


def test_a_client_that_leaves_is_recorded(spans: InMemorySpanExporter, folder: Path) -> None:
    with traced(folder) as live, httpx.Client() as client:
        fields = {"max_new_tokens": 100_000}
        with connect_sse(client, "POST", f"{live.url}/generate", json=fields) as source:
            assert next(source.iter_sse()).event == "start"
    [span] = spans_of(spans, "POST /generate")
    assert (span.attributes or {})["soliloquy.cancelled"] is True


def test_the_standard_variables_say_where_spans_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[ExportTraceServiceRequest] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        log_message: Callable[..., None] = lambda *_: None

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "the-globe")
        with traced(folder) as live:
            assert httpx.get(f"{live.url}/info").status_code == 200
        collector.shutdown()
        thread.join()
    [request] = received
    [resource] = request.resource_spans
    attributes = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert attributes["service.name"] == "the-globe"
    [scope] = resource.scope_spans
    assert [span.name for span in scope.spans] == ["GET /info"]


def test_without_its_extra_tracing_is_refused_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "app.observability.tracing", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(InputError, match=r"^tracing: needs .*pip install 'soliloquy\[tracing\]'"):
        create_app(ServerSettings(checkpoint=folder, device="cpu", tracing=True))


def test_while_it_is_off_nothing_of_it_is_imported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "app.observability.tracing", raising=False)
    create_app(ServerSettings(checkpoint=folder, device="cpu"))
    assert "app.observability.tracing" not in sys.modules
    importing = re.compile(
        r"^(from|import) (opentelemetry|app\.observability\.tracing)|^from app\.observability import .*tracing",
        re.MULTILINE,
    )
    assert [path.name for path in APP.rglob("*.py") if importing.search(path.read_text())] == ["tracing.py"]
