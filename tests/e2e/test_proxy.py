"""What deploy/nginx.conf promises, before real servers: streams pass as they come, and refusals keep their form."""

import json
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.main import create_app
from app.security.middleware import MAX_BODY_BYTES
from app.serving.request_handle import RequestHandle
from app.settings import ServerSettings
from model.generation.sequence import TextSequence
from tests.conftest import PATIENCE, LiveServer
from tests.e2e.proxy import Proxy, free_ports
from tests.e2e.test_generate import expected

ASKED = {"prompt": "ROMEO:", "seed": 7, "max_new_tokens": 120}


def port(server: LiveServer) -> int:
    """Where a server listens."""
    return int(server.url.rsplit(":", 1)[1])


def events(answer: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each event's name and data, as it comes."""
    name = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def is_problem(answer: httpx.Response, status: int) -> bool:
    """True for a problem object of this status."""
    kind = answer.headers["content-type"]
    return answer.status_code == answer.json()["status"] == status and kind == "application/problem+json"


@pytest.fixture
def proxy(server: LiveServer, tmp_path: Path) -> Iterator[Proxy]:
    """nginx before one server."""
    with Proxy(tmp_path, [port(server)]) as proxy:
        yield proxy


def test_a_stream_passes_as_it_is_written(server: LiveServer, proxy: Proxy) -> None:
    server.gate.close()
    with proxy.client() as client, client.stream("POST", "/generate", json=ASKED) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "content-encoding" not in answer.headers
        coming = events(answer)
        assert next(coming)[0] == "start"  # held, and nothing is written yet
        server.gate.step()
        server.gate.step()
        name, data = next(coming)
        assert server.gate.shut
        assert name == "text"
        assert len(data["text"]) < 120
        server.gate.open()
        rest = [(name, one) for name, one in coming]
    assert rest[-1][0] == "done"
    text = data["text"] + "".join(one["text"] for name, one in rest if name == "text")
    assert text == expected("ROMEO:", 7, 120)


def test_a_client_that_drops_is_missed_at_once(server: LiveServer, proxy: Proxy) -> None:
    """Before there is anything to be sent to it."""
    missed = threading.Event()

    def submit(sequences: Sequence[TextSequence]) -> RequestHandle:
        handle = type(server.engine).submit(server.engine, sequences)
        cancel = handle.cancel

        def cancel_and_tell() -> None:
            cancel()
            missed.set()

        handle.cancel = cancel_and_tell  # type: ignore[method-assign]
        return handle

    server.engine.submit = submit  # type: ignore[method-assign]
    server.gate.close()
    with proxy.client() as client, client.stream("POST", "/generate", json=ASKED) as answer:
        assert next(events(answer))[0] == "start"
    assert missed.wait(PATIENCE)


def test_a_server_that_takes_no_work_is_passed_over(folder: Path, server: LiveServer, tmp_path: Path) -> None:
    settings = ServerSettings(checkpoint=folder, device="cpu")
    [nobody] = free_ports(1)
    with (
        LiveServer(create_app(settings)) as stopping,
        Proxy(tmp_path, [port(stopping), port(server), nobody]) as proxy,
    ):
        stopping.engine.drain(60)
        with proxy.client() as client:
            answers = [client.post("/generate", json=ASKED | {"stream": False}) for _ in range(6)]
            ready = [client.get("/health/ready") for _ in range(3)]
            server.engine.drain(60)
            refused = [client.post("/generate", json=ASKED) for _ in range(4)]
    assert {answer.json()["samples"][0]["text"] for answer in answers} == {expected("ROMEO:", 7, 120)}
    assert {answer.status_code for answer in ready} == {200}
    assert all(is_problem(answer, 503) for answer in refused)
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    assert {"503, 200", "502, 503, 200"} & {line["upstream_status"] for line in proxy.log()}


def test_one_server_is_found_among_many_that_are_gone(server: LiveServer, tmp_path: Path) -> None:
    with Proxy(tmp_path, [*free_ports(5), port(server)]) as proxy, proxy.client() as client:
        assert {client.get("/health/ready").status_code for _ in range(6)} == {200}


def test_no_server_at_all_is_a_problem_too(tmp_path: Path) -> None:
    with Proxy(tmp_path, free_ports(2)) as proxy, proxy.client() as client:
        answer = client.get("/generate", params={"prompt": "private"})
    assert is_problem(answer, 503)
    assert answer.headers["retry-after"] == "5"
    [line] = proxy.log()
    assert (line["path"], line["status"]) == ("/generate", 503)
    assert "private" not in str(line)


def test_what_is_too_large_is_refused_and_what_is_long_passes(proxy: Proxy) -> None:
    with proxy.client() as client:
        assert is_problem(client.post("/generate", content=b" " * (MAX_BODY_BYTES + 1)), 413)
        longest = client.get("/generate", params={"prompt": "a" * 16_384, "stream": False, "max_new_tokens": 1})
        assert longest.status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/metrics", "/metrics/", "/%6detrics", "//metrics", "/static/../metrics", "/gpt/metrics", "/gpt//metrics//"],
)
def test_metrics_are_not_for_the_public(server: LiveServer, proxy: Proxy, path: str) -> None:
    assert httpx.get(f"{server.url}/metrics").status_code == 200
    with proxy.client() as client:
        request = client.build_request("GET", "/")
        request.url = httpx.URL(proxy.url).copy_with(raw_path=path.encode())
        assert is_problem(client.send(request), 404)


def test_clients_are_told_apart_by_their_address_not_by_what_they_say(folder: Path, tmp_path: Path) -> None:
    settings = ServerSettings(checkpoint=folder, device="cpu", trusted_proxies="127.0.0.1", rate_limit="2/minute")
    with LiveServer(create_app(settings)) as server, Proxy(tmp_path, [port(server)]) as proxy:
        statuses = []
        for address in ("127.0.0.1", "127.0.0.2"):
            with proxy.client(address) as client:
                for lie in ("198.51.100.1", "198.51.100.2", "198.51.100.3"):
                    answer = client.post("/generate", json=ASKED, headers={"X-Forwarded-For": lie})
                    statuses.append(answer.status_code)
    assert statuses == [200, 200, 429] * 2


def test_pages_are_compressed_in_http_2_and_only_by_https(proxy: Proxy) -> None:
    with proxy.client() as client:
        assert client.get("/").headers["content-encoding"] == "gzip"
    moved = httpx.post(f"http://127.0.0.1:{proxy.plain_port}/generate?seed=1", headers={"host": "example.org"})
    assert moved.status_code == 308
    assert moved.headers["location"] == "https://example.org/generate?seed=1"
    trust = proxy.trust()
    trust.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", proxy.port)) as plain,
        trust.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        assert secure.selected_alpn_protocol() == "h2"
