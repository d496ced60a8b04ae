"""Clients that send slowly, without end, or what is not HTTP, and clients that do not read: each costs a socket for
a bounded time, and others are answered meanwhile."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.main import create_app
from app.security.middleware import MAX_HEAD_BYTES
from app.server import http_protocol as connections
from app.server.http_protocol import Connection
from app.serving.request_handle import RequestHandle
from app.settings import ServerSettings
from model.generation.sequence import TextSequence
from tests.conftest import LiveServer

POST = b"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
LAST = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
ALIVE = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def hasty(folder: Path) -> Iterator[LiveServer]:
    """A server that waits half a second for a request, and two seconds for a next one."""
    times: dict[str, Any] = {"request_timeout": 0.5, "send_timeout": 0.2, "idle_timeout": 2}
    settings = ServerSettings(checkpoint=folder, device="cpu", **times)
    with LiveServer(create_app(settings)) as live:
        yield live


def connect(server: LiveServer, receive_buffer: int | None = None) -> socket.socket:
    url = httpx.URL(server.url)
    client = socket.socket()
    client.settimeout(30)
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect((url.host, url.port or 0))
    return client


def until(happened: Callable[[], object]) -> None:
    """Wait for what the server's thread does."""
    pause = threading.Event()
    for _ in range(3000):
        if happened():
            return
        pause.wait(0.01)
    pytest.fail("it did not happen")


def other_side(server: LiveServer, client: socket.socket) -> Connection:
    """The server's side of a client's connection."""
    found: list[Connection] = []

    def find() -> bool:
        for one in list(server.server_state.connections):
            if isinstance(one, Connection) and one.client == client.getsockname():
                found.append(one)
        return bool(found)

    until(find)
    return found[0]


def rest(client: socket.socket) -> bytes:
    """All that comes until the server closes."""
    received = b""
    with suppress(ConnectionError):
        while some := client.recv(65536):
            received += some
    return received


def answer_of(client: socket.socket) -> bytes:
    """One answer to a request for a few bytes, which leaves the connection open."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += client.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    [length] = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < length:
        body += client.recv(65536)
    return head + b"\r\n\r\n" + body


def check_problem(answer: bytes, status: int) -> None:
    """A problem object with the status, guarded as any other answer, after which the connection is closed."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    lines = head.lower().split(b"\r\n")
    assert b"content-type: application/problem+json" in lines
    assert b"x-content-type-options: nosniff" in lines
    assert b"connection: close" in lines
    problem = json.loads(body)
    assert problem["status"] == status
    assert not [word for word in ("h11", "Traceback", ".py", "Error") if word in problem["detail"]]


def test_half_open_sockets_are_closed_and_others_are_answered_meanwhile(hasty: LiveServer) -> None:
    beginnings = {
        b"": b"",  # as browsers open connections, in case that they need them
        b"GET /in": b"408",
        b"GET /info HTTP/1.1\r\nhost: x\r\n": b"408",
        POST + b"content-length: 9\r\n\r\n": b"408",
        POST + b"content-length: 9\r\n\r\n{": b"408",
        POST + b"transfer-encoding: chunked\r\n\r\n5\r\n{": b"408",
        ALIVE[:-2] + b"content-length: 9\r\n\r\n": b"200",  # it has its answer already
    }
    with ExitStack() as stack:
        opened = []
        for beginning, status in list(beginnings.items()) * 12:
            client = stack.enter_context(connect(hasty))
            client.sendall(beginning)
            opened.append((client, status))
        assert httpx.get(f"{hasty.url}/health/live").status_code == 200
        for client, status in opened:
            answer = rest(client)
            assert answer[9:12] == status
            if status == b"408":
                check_problem(answer, 408)
    assert httpx.post(f"{hasty.url}/generate", json={"max_new_tokens": 3, "stream": False}).status_code == 200


@pytest.mark.parametrize("beginning", [b"", POST + b"content-length: 100000\r\n\r\n"])
def test_a_drop_now_and_then_does_not_put_the_end_off(hasty: LiveServer, beginning: bytes) -> None:
    with connect(hasty) as client:
        client.sendall(beginning)
        ended = threading.Event()

        def drip() -> None:
            with suppress(OSError):
                while not ended.wait(0.05):
                    client.sendall(b"a")

        dripping = threading.Thread(target=drip)
        dripping.start()
        check_problem(rest(client), 408)
        ended.set()
        dripping.join()


def test_a_connection_waits_longer_for_a_next_request_but_not_for_half_of_it(hasty: LiveServer) -> None:
    with connect(hasty) as kept, connect(hasty) as other, connect(hasty) as idle:
        for client in (kept, idle):
            client.sendall(ALIVE)
            assert answer_of(client).startswith(b"HTTP/1.1 200")
        assert rest(other) == b""  # so long a request may take
        kept.sendall(ALIVE)
        assert answer_of(kept).startswith(b"HTTP/1.1 200")
        kept.sendall(ALIVE + ALIVE[:20])
        assert answer_of(kept).startswith(b"HTTP/1.1 200")
        check_problem(rest(kept), 408)
        assert rest(idle) == b""


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500 + b"\r\n\r\n", 400),  # TLS
        (POST + b"content-length: 1, 2\r\n\r\n", 400),
        (POST + b"content-length: " + b"9" * 5000 + b"\r\n\r\n", 400),
        (POST + b"transfer-encoding: gzip\r\n\r\n", 501),
        (POST + b"transfer-encoding: gzip, chunked\r\n\r\n", 501),
        (POST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n", 400),
        (POST + b"content-length: 0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST.replace(b"1.1", b"1.0") + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}", 400),
        (b"GET /info HTTP/1.1\r\nhost : x\r\n\r\n", 400),
        (b"GET /info HTTP/1.1\r\nhost: x y\r\n\r\n", 400),
        (b"GET /info HTTP/1.1\r\nhost: http://x\r\n\r\n", 400),
        (b"GET /info HTTP/1.0\r\nhost: x\r\nhost: y\r\n\r\n", 400),
        (b"GET info HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"GET ftp://x/info HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"GET http:///info HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"GET http://me@x/info HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"GET http://[x/info HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (POST + b"transfer-encoding: chunked\r\n\r\nnonsense\r\n", 400),
        (POST + b"transfer-encoding: chunked\r\n\r\n5\r\n{", 408),
        (LAST + b"big: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n", 431),
        (LAST + b"a:b\r\n" * 20_000 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nhost: x\r\nbig: " + b"a" * MEBIBYTE, 431),
        (b"GET /" + b"a" * MEBIBYTE, 431),
        (LAST.replace(b"/", b"/generate?prompt=" + b"a" * 33_000, 1) + b"\r\n", 414),
    ],
    ids=range(33),
)
def test_what_is_not_http_or_too_long_is_a_problem(hasty: LiveServer, sent: bytes, status: int) -> None:
    with connect(hasty) as client:
        client.sendall(sent)
        answer = rest(client)
    check_problem(answer, status)


def test_a_refusal_of_a_head_request_has_no_body(hasty: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    with connect(hasty) as client:
        client.sendall(b"HEAD /info HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n")
        answer = rest(client)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"\r\n\r\n")
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_headers_in_all_up_to_64_kib_are_read(hasty: LiveServer) -> None:
    with connect(hasty) as client:
        connection = other_side(hasty, client)
        client.sendall(ALIVE[:-2] + b"big: " + b"a" * (MAX_HEAD_BYTES - 200))
        until(lambda: len(connection.conn.trailing_data[0]) > MAX_HEAD_BYTES - 200)
        client.sendall(b"\r\n\r\n")
        assert answer_of(client).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_too_large_is_not_read_to_its_end(
    server: LiveServer, chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused by its announced length, or once it is over the limit; little more of it is taken then."""
    monkeypatch.setattr(connections, "LINGER_SECONDS", 0.2)
    data = b"a" * 65536
    chunk = b"10000\r\n" + data + b"\r\n" if chunked else data
    head = b"transfer-encoding: chunked\r\n\r\n" if chunked else b"content-length: 209715200\r\n\r\n"
    with connect(server) as client:
        client.sendall(POST + head)
        if not chunked:
            assert answer_of(client).startswith(b"HTTP/1.1 413")
        sent = 0
        with suppress(ConnectionError):
            while sent < 200 * MEBIBYTE:
                client.sendall(chunk)
                sent += len(data)
        assert sent < 40 * MEBIBYTE  # the kernels' buffers take some
        if chunked:
            assert rest(client).startswith(b"HTTP/1.1 413")
    assert httpx.get(f"{server.url}/health/ready").status_code == 200


@pytest.mark.parametrize("beginning", [b"nonsense\r\n\r\n", POST + b"content-length: 209715200\r\n\r\n"])
def test_who_sends_on_after_a_refusal_can_read_it_to_its_end(hasty: LiveServer, beginning: bytes) -> None:
    """A connection that is closed while more comes is reset, and what was on its way to the client may be lost."""
    with connect(hasty) as client:
        client.sendall(beginning)
        client.setblocking(False)
        with suppress(BlockingIOError):
            while True:  # until no buffer takes any more
                client.send(b"a" * 65536)
        client.settimeout(30)
        answer = b""
        while some := client.recv(65536):
            answer += some
        assert answer.startswith(b"HTTP/1.1 4")


def test_a_body_that_comes_after_its_answer_does_not_end_the_connection(server: LiveServer) -> None:
    for length in (9, 300_000):
        with connect(server) as client:
            client.sendall(POST.replace(b"generate", b"nowhere") + b"content-length: %d\r\n\r\n" % length)
            assert answer_of(client).startswith(b"HTTP/1.1 4")
            client.sendall(b"a" * length + ALIVE)
            assert answer_of(client).startswith(b"HTTP/1.1 200")


def test_a_client_that_never_reads_is_cut_off(hasty: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was sent does not wait for it for ever, wherever it waits, and the model does not write far ahead."""
    monkeypatch.setattr(connections, "GRACE_SECONDS", 0.1)
    handles: list[RequestHandle] = []

    def submit(sequences: Sequence[TextSequence]) -> RequestHandle:
        handles.append(type(hasty.engine).submit(hasty.engine, sequences))
        return handles[-1]

    monkeypatch.setattr(hasty.engine, "submit", submit)
    body = json.dumps({"max_new_tokens": 100_000, "details": True}).encode()
    with connect(hasty, 4096) as client, connect(hasty, 4096) as page:
        client.sendall(POST + b"content-length: %d\r\n\r\n" % len(body) + body)
        for _ in range(30):  # more than its buffers take, and answered one after another
            page.sendall(b"GET /static/style.css HTTP/1.1\r\nhost: x\r\n\r\n")
        assert client.recv(1) + page.recv(1) == b"HH"  # both answers have begun; nothing more is read
        until(lambda: not hasty.server_state.connections)  # whatever waits in them
    assert handles[0].released.wait(30)
    made = len(handles[0].sequences[0].written) * 300  # some 300 bytes for each character and its alternatives
    assert made < 2 * MEBIBYTE


def test_the_last_of_an_answer_that_nobody_reads_does_not_wait_for_ever(
    hasty: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection was closed when it had been idle for long, but that waited for what was still to be sent."""
    monkeypatch.setattr(connections, "GRACE_SECONDS", 0.1)
    with connect(hasty, 4096) as client:
        connection = other_side(hasty, client)
        while not connection.transport.get_write_buffer_size():
            answered = hasty.server_state.total_requests
            client.sendall(b"GET /static/style.css HTTP/1.1\r\nhost: x\r\n\r\n")
            until(lambda: hasty.server_state.total_requests > answered)  # noqa: B023 - called before it changes
        assert not connection.flow.write_paused
        until(lambda: not hasty.server_state.connections)
