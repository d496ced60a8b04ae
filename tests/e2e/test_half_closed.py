"""Clients that close their sending side after the request, and clients that go.

A client that half-closed got nothing: the end of what it sent was taken for its departure, as uvicorn does. TCP
shows both in the same way until something is written. Now answers go on, and a byte that cannot be wrong is sent
ahead: who has gone resets the connection then, and its text is given up at once.
"""

import json
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import h11
import pytest

from app.serving.request_handle import RequestHandle
from model.generation.sequence import TextSequence
from tests.conftest import LiveServer
from tests.e2e.test_connections import ALIVE, check_problem, connect, other_side, rest, until
from tests.e2e.test_generate import expected
from tests.sse import read_events

ASKED: dict[str, Any] = {"prompt": "ROMEO:", "seed": 7, "max_new_tokens": 120}


def post(body: dict[str, Any], version: str = "1.1", path: str = "/generate") -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/{version}\r\nhost: x\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


def read_answer(received: bytes) -> tuple[int, bytes]:
    """Status and body, by h11 as a client, which takes nothing that is not valid."""
    conn = h11.Connection(h11.CLIENT)
    conn.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    conn.send(h11.EndOfMessage())
    conn.receive_data(received)
    conn.receive_data(b"")
    status = 0
    body = b""
    while not isinstance(event := conn.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
    return status, body


@pytest.fixture
def handles(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> list[RequestHandle]:
    """What the server has been asked to write."""
    found: list[RequestHandle] = []

    def submit(sequences: Sequence[TextSequence]) -> RequestHandle:
        found.append(type(server.engine).submit(server.engine, sequences))
        return found[-1]

    monkeypatch.setattr(server.engine, "submit", submit)
    return found


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("begun", [True, False])
def test_a_half_closed_client_gets_its_whole_text(
    server: LiveServer, version: str, stream: bool, begun: bool
) -> None:
    """Whether it closes before anything is written or while a text is."""
    server.gate.close()
    with connect(server) as client:
        connection = other_side(server, client)
        client.sendall(post(ASKED | {"stream": stream}, version))
        until(server.gate.waiting.is_set)
        if begun:
            server.gate.step()
            server.gate.step()
        client.shutdown(socket.SHUT_WR)
        until(lambda: connection._probes > 4)  # and bytes have been sent ahead
        server.gate.open()
        status, body = read_answer(rest(client))
    assert status == 200
    if stream:
        events = read_events(body)
        assert events[-1].type == "done"
        text = "".join(json.loads(event.data)["text"] for event in events if event.type == "text")
    else:
        text = json.loads(body)["samples"][0]["text"]
    assert text == expected("ROMEO:", 7, 120)


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        (ALIVE, 1),
        (ALIVE * 3, 3),
        (b"GET /static/style.css HTTP/1.1\r\nhost: x\r\n\r\n" + ALIVE, 2),
        (ALIVE.replace(b"1.1", b"1.0"), 1),
        (b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n", 1),
        (b"HEAD /health/live HTTP/1.1\r\nhost: x\r\n\r\n", 1),
        (b"", 0),
    ],
)
def test_a_half_closed_client_gets_all_answers_and_the_connection_is_closed(
    server: LiveServer, sent: bytes, answers: int
) -> None:
    with connect(server) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        assert rest(client).count(b"HTTP/1.1 ") == answers
    until(lambda: not server.server_state.connections)


@pytest.mark.parametrize("sent", [post(ASKED)[:-5], post(ASKED)[:30], post(ASKED)[:-5].replace(b"1.1", b"1.0")])
def test_a_request_that_is_cut_off_is_refused(server: LiveServer, sent: bytes) -> None:
    with connect(server) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        check_problem(rest(client), 400)


def test_a_cut_off_request_has_the_form_of_its_path(server: LiveServer) -> None:
    with connect(server) as client:
        client.sendall(post(ASKED, path="//v1/completions")[:-5])
        client.shutdown(socket.SHUT_WR)
        assert "error" in json.loads(rest(client).partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("half_closed", [False, True])
@pytest.mark.parametrize(("version", "stream"), [("1.1", True), ("1.1", False), ("1.0", False)])
def test_a_client_that_goes_is_noticed_before_anything_is_written(
    server: LiveServer, handles: list[RequestHandle], version: str, stream: bool, half_closed: bool
) -> None:
    """The steps are held: no text would ever be sent to it. So it is with one that waits in the queue."""
    server.gate.close()
    with connect(server) as client:
        connection = other_side(server, client)
        client.sendall(post(ASKED | {"stream": stream}, version))
        until(server.gate.waiting.is_set)
        if half_closed:
            client.shutdown(socket.SHUT_WR)
            until(lambda: connection._probes > 1)
        if stream:
            with suppress(BlockingIOError):
                client.recv(65536, socket.MSG_DONTWAIT)  # a client that leaves text unread resets by itself
    until(lambda: handles[0].cancelled)
    server.gate.open()
    assert handles[0].released.wait(30)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_client_that_goes_while_its_text_is_written_is_noticed(
    server: LiveServer, handles: list[RequestHandle], version: str
) -> None:
    with connect(server) as client:
        client.sendall(post(ASKED | {"max_new_tokens": 100_000}, version))
        assert client.recv(1)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1)
    assert handles[0].released.wait(30)
    assert len(handles[0].sequences[0].written) < 100_000
