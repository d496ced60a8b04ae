"""What guards browsers: host names, other origins, and the headers on every kind of answer."""

from collections.abc import Callable

import httpx
import pytest

from tests.conftest import LiveServer
from tests.e2e.conftest import Opened

SHORT = {"max_new_tokens": 3, "stream": False}


def test_only_named_hosts_are_answered_for(serve: Callable[..., Opened]) -> None:
    with (
        serve(trusted_hosts="example.org, *.Example.net, [::1]") as server,
        httpx.Client(base_url=server.url) as client,
    ):
        for host in ("example.org", "EXAMPLE.org:8000", "a.example.net", "a.b.example.net:1", "[::1]:80"):
            assert client.get("/info", headers={"host": host}).status_code == 200, host
        for host in ("", "example.net", "example.org.evil.com", "bad-example.net", "a@example.org", "::1"):
            answer = client.get("/info", headers={"host": host})
            assert answer.status_code == 400, host
            assert "Host header" in answer.json()["detail"]
        assert client.get("/health/ready", headers={"host": "10.1.2.3:8000"}).status_code == 200


def test_other_origins_may_ask_only_if_they_are_named(serve: Callable[..., Opened], server: LiveServer) -> None:
    origin = {"origin": "https://friend.example"}
    preflight = origin | {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,last-event-id",
    }
    closed = httpx.post(f"{server.url}/generate", json=SHORT, headers=origin)
    assert not [name for name in closed.headers if name.startswith("access-control")]
    assert httpx.options(f"{server.url}/generate", headers=preflight).status_code == 405
    with serve(cors_origins="https://friend.example", api_keys="k", rate_limit="9/minute") as friendly:
        asked = httpx.options(f"{friendly.url}/generate", headers=preflight)
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == "https://friend.example"
        assert {"authorization", "content-type", "last-event-id"} <= {
            name.strip().lower() for name in asked.headers["access-control-allow-headers"].split(",")
        }
        for headers, status in (({"authorization": "Bearer k"}, 200), ({}, 401)):
            answer = httpx.post(f"{friendly.url}/generate", json=SHORT, headers=origin | headers)
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == "https://friend.example"
            exposed = answer.headers["access-control-expose-headers"].lower()
            assert {"retry-after", "ratelimit", "x-request-id"} <= set(exposed.split(", "))
        stranger = httpx.get(f"{friendly.url}/info", headers={"origin": "https://stranger.example"})
        assert "access-control-allow-origin" not in stranger.headers


def test_every_answer_is_guarded(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*ignored: object) -> None:
        raise ValueError("a fault that nobody expects")

    with httpx.Client(base_url=server.url) as client:
        answers = [
            client.get("/"),
            client.get("/docs"),
            client.get("/openapi.json"),
            client.get("/static/main.js"),
            client.get("/static/nothing.js"),
            client.get("/static/main.js", headers={"if-none-match": client.get("/static/main.js").headers["etag"]}),
            client.get("/info"),
            client.get("/nowhere"),
            client.delete("/generate"),
            client.post("/generate", json={"max_new_tokens": 3}),
            client.post("/generate", json=SHORT),
            client.post("/generate", json={"prompt": 1}),
            client.post("/v1/completions", content=b"x" * 300_000),
        ]
        monkeypatch.setattr(server.engine, "submit", fail)
        answers.append(client.post("/generate", json=SHORT))
    assert [answer.status_code for answer in answers] == [
        *(200, 200, 200, 200, 404, 304, 200, 404, 405, 200, 200, 422, 413, 500),
    ]
    for answer in answers:
        headers = answer.headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "script-src 'unsafe" not in headers["content-security-policy"]
        assert "server" not in headers
    assert answers[6].headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert "fault" not in answers[-1].text
