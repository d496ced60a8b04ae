"""What a client cannot have: each refusal is a problem object that names the field, and leaks nothing."""

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.conftest import LiveServer


def chunks() -> Iterator[bytes]:
    yield b'{"prompt": "'
    for _ in range(100):
        yield b"a" * 10_000
    yield b'"}'


@pytest.mark.parametrize(
    ("body", "status", "field", "words"),
    [
        ({"promt": "x"}, 422, "promt", "not a field of this request"),
        ({"temperature": "hot"}, 422, "temperature", "'hot'"),
        ({"temperature": -1}, 422, "temperature", "greater than or equal to 0, not -1"),
        ({"max_new_tokens": "12"}, 422, "max_new_tokens", "valid integer"),
        ({"max_new_tokens": True}, 422, "max_new_tokens", "valid integer"),
        ({"max_new_tokens": 0}, 422, "max_new_tokens", "not 0"),
        ({"top_k": 0}, 422, "top_k", "greater than or equal to 1, not 0"),
        ({"top_p": 1.5}, 422, "top_p", "not 1.5"),
        ({"seed": -1}, 422, "seed", "not -1"),
        ({"num_samples": 99}, 422, "num_samples", "not 99"),
        ({"stop": ["a"] * 65}, 422, "stop", "at most 64"),
        ({"stop": [""]}, 422, "stop.0", "at least 1"),
        ({"alternatives": -1}, 422, "alternatives", "not -1"),
        ({"alternatives": 1001}, 422, "alternatives", "not 1001"),
        (
            {"details": True, "stream": False, "max_new_tokens": 100_000, "alternatives": 50},
            422,
            "alternatives",
            "5,100,000 in all are more than 200,000; ask for fewer, or stream them",
        ),
        (
            {"details": True, "stream": False, "max_new_tokens": 100_000, "num_samples": 16, "alternatives": 0},
            422,
            "details",
            "1,600,000 in all are more than 200,000; ask for fewer, or stream them",
        ),
        ({"prompt": None}, 422, "prompt", "valid string"),
        ({"prompt": "a" * 20_000}, 422, "prompt", "(20002 characters)"),
        ([1, 2], 422, "body", "one JSON object"),
        (b'{"prompt": ', 400, None, "not valid JSON"),
        (b'{"temperature": NaN}', 422, "temperature", "finite number"),
        (b'{"prompt": "' + b"a" * 1_000_000 + b'"}', 413, None, "shorter prompt"),
        (chunks, 413, None, "shorter prompt"),
    ],
)
def test_bad_input_is_refused_by_name(
    server: LiveServer, body: Any, status: int, field: str | None, words: str
) -> None:
    content = body() if callable(body) else body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = httpx.post(f"{server.url}/generate", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert words in problem["detail"]
    if field is not None:
        assert [one["field"] for one in problem["errors"]] == [field]
    assert "Traceback" not in answer.text
    assert ".py" not in answer.text
    assert server.engine.generator.free_slots == 32


def test_unknown_characters_are_each_named_with_a_replacement(server: LiveServer) -> None:
    answer = httpx.post(f"{server.url}/generate", json={"prompt": "日本 ma\u00f1ana"})
    assert answer.status_code == 422
    assert answer.json()["characters"] == [
        {"character": "日", "position": 0, "replacement": "?"},
        {"character": "本", "position": 1, "replacement": "?"},
        {"character": "ñ", "position": 5, "replacement": "n"},
    ]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/generate", 405)])
def test_other_refusals_are_problems_too(server: LiveServer, method: str, path: str, status: int) -> None:
    answer = httpx.request(method, f"{server.url}{path}")
    assert answer.status_code == status
    assert answer.json()["status"] == status


def test_a_url_is_checked_like_a_body(server: LiveServer) -> None:
    answer = httpx.get(f"{server.url}/generate", params={"temperature": "hot", "top_k": "0", "_": "x"})
    assert answer.status_code == 422
    assert {one["field"] for one in answer.json()["errors"]} == {"temperature", "top_k"}


def test_form_data_is_told_what_to_send(server: LiveServer) -> None:
    answer = httpx.post(f"{server.url}/generate", data={"prompt": "x"})
    assert answer.status_code == 422
    assert "content-type: application/json" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"garbage", 422),
        (b"7:3,4", 422),
        (b"0123456789ab:cpu-int8:00000000:7:-1", 422),
        (b"0123456789ab:cpu-int8:00000000:" + b"9" * 5000 + b":1", 422),
        (b"0123456789ab:cpu-int8:00000000:7:" + b"1," * 20_000 + b"1", 422),
        ("0123456789ab:cpu-int8:00000000:7:٣".encode(), 422),
        (b"\xff\xfe", 422),
        (b"x" * 60_000, 422),
        (b"x" * 1_000_000, 431),  # what the server does not read on its own account
        (b"0123456789ab:cpu-int8:00000000:7:\x00", 400),  # nor is this HTTP
        (b"", 200),
        (b" \t", 200),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_any_last_event_id_is_answered(server: LiveServer, method: bytes, header: bytes, status: int) -> None:
    body = b"" if method == b"GET" else b'{"max_new_tokens": 9}'
    head = method + b" /generate HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
    head += b"content-length: %d\r\nlast-event-id: " % len(body)
    url = httpx.URL(server.url)
    answer = b""
    with socket.create_connection((url.host, url.port or 0), timeout=30) as client, suppress(ConnectionError):
        client.sendall(head + header + b"\r\n\r\n" + body)
        while received := client.recv(65536):
            answer += received
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    if status == 422:
        assert b'"field": "Last-Event-ID"' in answer
        assert b"without it" in answer
    elif status == 200:
        assert b"event: done" in answer
    assert httpx.get(f"{server.url}/health/ready").status_code == 200
