"""The figures that an operator sees of a real server, as requests are made."""

import asyncio
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import connect_sse
from prometheus_client.parser import text_string_to_metric_families as parse_text

from app.main import create_app
from app.serving.service import Service
from app.settings import ServerSettings
from model.checkpoint import write_checkpoint
from tests.conftest import PATIENCE, LiveServer, ask_and_leave
from tests.tiny import tiny_checkpoint


def figures(server: LiveServer) -> dict[str, float]:
    """What `/metrics` says, by name and labels."""
    text = httpx.get(f"{server.url}/metrics").text
    found: dict[str, float] = {}
    for family in parse_text(text):
        for sample in family.samples:
            labels = "".join(f" {value}" for _, value in sorted(sample.labels.items()))
            found[sample.name + labels] = sample.value
    return found


def until(server: LiveServer, name: str, value: float) -> None:
    """Ask until a figure is what it must become."""
    deadline = time.monotonic() + PATIENCE
    while (now := figures(server)[name]) != value:
        assert time.monotonic() < deadline, f"{name} is {now}, not {value}"


def test_figures_move_as_text_is_written(server: LiveServer) -> None:
    fields = {"max_new_tokens": 200, "num_samples": 2}
    assert httpx.post(f"{server.url}/generate", json=fields).status_code == 200
    assert httpx.post(f"{server.url}/generate", json=fields | {"stream": False}).status_code == 200
    now = figures(server)
    assert now["soliloquy_http_requests_total POST /generate 200"] == 2
    assert now["soliloquy_http_request_duration_seconds_count /generate"] == 2
    assert now["soliloquy_characters_total"] == 800
    assert now["soliloquy_first_character_seconds_count"] == 2
    assert now["soliloquy_first_character_seconds_bucket +Inf"] == 2
    assert now["soliloquy_flush_gap_seconds_count"] > 0
    assert now["soliloquy_engine_steps_total"] == server.engine.steps > 0
    assert now["soliloquy_slots"] == 32
    assert now["soliloquy_ready"] == 1
    assert now["process_resident_memory_bytes"] > 1e7
    assert [one for one in now if one.startswith("soliloquy_cancellations")] != []
    assert now["soliloquy_cancellations_total"] == now["soliloquy_stream_errors_total"] == 0


def test_openmetrics_for_who_asks_for_it(server: LiveServer) -> None:
    accept = {"accept": "application/openmetrics-text; version=1.0.0,text/plain;version=0.0.4;q=0.5"}
    answer = httpx.get(f"{server.url}/metrics", headers=accept)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
    assert "# TYPE soliloquy_checkpoint info\n" in answer.text
    assert httpx.get(f"{server.url}/metrics").headers["content-type"].startswith("text/plain")


def test_a_server_that_tells_nothing(folder: Path) -> None:
    with LiveServer(create_app(ServerSettings(checkpoint=folder, device="cpu", metrics=False))) as live:
        assert httpx.get(f"{live.url}/metrics").status_code == 404
        assert httpx.get(f"{live.url}/info").headers["x-request-id"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_is_counted(server: LiveServer, stream: bool) -> None:
    server.gate.close()
    fields = {"max_new_tokens": 100_000, "stream": stream}
    if stream:
        with httpx.Client() as client, connect_sse(client, "POST", f"{server.url}/generate", json=fields) as source:
            events = source.iter_sse()
            assert next(events).event == "start"
            assert figures(server)["soliloquy_streams_in_progress"] == 1
    else:
        ask_and_leave(server, "/generate", fields)
    until(server, "soliloquy_cancellations_total", 1)
    now = figures(server)
    assert now[f"soliloquy_http_requests_total POST /generate {200 if stream else 499}"] == 1
    assert now["soliloquy_streams_in_progress"] == 0
    assert now["soliloquy_slow_readers_dropped_total"] == 0


def test_a_reader_that_is_too_slow_is_counted(impatient_server: LiveServer) -> None:
    body = json.dumps({"max_new_tokens": 100_000, "details": True, "num_samples": 16}).encode()
    head = f"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    url = httpx.URL(impatient_server.url)
    with socket.create_connection((url.host, url.port or 0)) as client:
        client.sendall(f"{head}\r\n\r\n".encode() + body)
        assert client.recv(1)
        until(impatient_server, "soliloquy_slow_readers_dropped_total", 1)
    assert figures(impatient_server)["soliloquy_cancellations_total"] == 0


def test_refusals_are_counted_by_reason(server: LiveServer) -> None:
    def post(**body: Any) -> int:
        return httpx.post(f"{server.url}/generate", json=body, timeout=60).status_code

    assert post(promt="x") == 422
    assert post(prompt="日") == 422
    assert post(prompt="x" * 1_000_000) == 413
    server.gate.close()
    texts = [threading.Thread(target=post, kwargs={"num_samples": 16, "max_new_tokens": 3}) for _ in range(2)]
    texts.append(threading.Thread(target=post, kwargs={"num_samples": 4, "max_new_tokens": 3}))
    for i, text in enumerate(texts):
        text.start()
        deadline = time.monotonic() + PATIENCE
        while server.engine.active + server.engine.waiting < (16, 32, 36)[i]:
            assert time.monotonic() < deadline
            server.gate.waiting.wait(0.01)
    assert post() == 503
    until(server, "soliloquy_queue_length", 36 - server.engine.active)
    assert figures(server)["soliloquy_slots_active"] == server.engine.active
    server.gate.open()
    for text in texts:
        text.join(30)
    server.engine.drain(60)
    assert post() == 503
    assert httpx.get(f"{server.url}/health/ready").status_code == 503  # an answer, not a refusal
    now = figures(server)
    assert now["soliloquy_ready"] == 0
    reasons = {
        name.split()[1]: value for name, value in now.items() if name.startswith("soliloquy_rejections_total")
    }
    assert {name: value for name, value in reasons.items() if value} == {
        "invalid": 2,
        "too_large": 1,
        "queue_full": 1,
        "draining": 1,
    }


def test_a_stream_that_breaks_is_counted(server: LiveServer) -> None:
    with (
        httpx.Client(timeout=30) as client,
        connect_sse(client, "POST", f"{server.url}/generate", json={"max_new_tokens": 100_000}) as source,
    ):
        events = source.iter_sse()
        assert next(events).event == "start"
        server.engine.drain(0)
        assert list(events)[-1].event == "error"
    until(server, "soliloquy_stream_errors_total", 1)


def test_a_refusal_that_never_was_a_request_is_counted(server: LiveServer) -> None:
    address = server.servers[0].sockets[0].getsockname()
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
    until(server, "soliloquy_rejections_total invalid", 1)


def test_figures_go_on_when_the_checkpoint_changes(tmp_path: Path) -> None:
    path = tmp_path / "tiny"
    path.mkdir()
    write_checkpoint(path, tiny_checkpoint())
    with LiveServer(create_app(ServerSettings(checkpoint=path, device="cpu"))) as live:
        service: Service = live.app.state.service
        first = service.current.card.checkpoint
        httpx.post(f"{live.url}/generate", json={"max_new_tokens": 40})
        before = figures(live)
        assert before[f"soliloquy_checkpoint_info {first} cpu-int8"] == 1
        write_checkpoint(path, tiny_checkpoint(seed=1))
        assert asyncio.run(service.reload())
        httpx.post(f"{live.url}/generate", json={"max_new_tokens": 40})
        after = figures(live)
        assert [name.split()[1] for name in after if "checkpoint_info" in name] == [service.current.card.checkpoint]
        assert service.current.card.checkpoint != first
        assert after["soliloquy_engine_steps_total"] > before["soliloquy_engine_steps_total"] > 0
        assert after["soliloquy_characters_total"] == 80
