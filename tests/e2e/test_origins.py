"""What guards browsers: host names, other origins, and the headers on every kind of answer."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from app.main import create_app
from app.settings import ServerSettings
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
        answer = httpx.options(f"{friendly.url}/generate", headers=preflight)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://friend.example"
        assert {"authorization", "content-type", "last-event-id"} <= {
            name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")
        }
        for headers, status in (({"authorization": "Bearer k"}, 200), ({}, 401)):
            answer = httpx.post(f"{friendly.url}/generate", json=SHORT, headers=origin | headers)
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == "https://friend.example"
            exposed = answer.headers["access-control-expose-headers"].lower()
            assert {"retry-after", "ratelimit", "x-request-id"} <= set(exposed.split(", "))
        stranger = httpx.get(f"{friendly.url}/info", headers={"origin": "https://stranger.example"})
        assert "access-control-allow-origin" not in stranger.headers


OPENAI_HEADERS = (
    "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-package-version,"
    "x-stainless-retry-count,x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout"
)
ALLOWED = "https://friend.example, http://localhost:*, https://*.example.org, https://b.org:443, app://., "
ALLOWED += "tauri://localhost, chrome-extension://abcdefgh, capacitor://localhost"


@pytest.mark.parametrize(
    "requested",
    [OPENAI_HEADERS, "openai-organization", "x-requested-with", "cache-control", "last-event-id,traceparent", None],
)
def test_where_an_origin_is_allowed_so_are_the_headers_that_it_sends(
    serve: Callable[..., Opened], requested: str | None
) -> None:
    """OpenAI's client for JavaScript got 400 "Disallowed CORS headers" from a preflight: it says in headers of its
    own what it is, and only a few were on a list. There is no list any more.
    """
    preflight = {"origin": "https://friend.example", "access-control-request-method": "POST"}
    if requested is not None:
        preflight["access-control-request-headers"] = requested
    private = {"access-control-request-private-network": "true"}
    with serve(cors_origins="https://friend.example", api_keys="k") as friendly:
        answer = httpx.options(f"{friendly.url}/v1/completions", headers=preflight | private)
        stranger = {"origin": "https://stranger.example"}
        refused = httpx.options(f"{friendly.url}/v1/completions", headers=preflight | stranger)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://friend.example"
    assert answer.headers.get("access-control-allow-headers") == requested or requested is None
    assert {"GET", "HEAD", "POST"} == set(answer.headers["access-control-allow-methods"].split(", "))
    assert answer.headers["access-control-allow-private-network"] == "true"
    assert int(answer.headers["access-control-max-age"]) > 0
    assert "Origin" in answer.headers["vary"]
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers


@pytest.fixture(scope="module")
def friendly(folder: Path) -> Iterator[LiveServer]:
    """A server with friends of all kinds, which refuses a client's second text."""
    settings = ServerSettings(
        checkpoint=folder, device="cpu", cors_origins=ALLOWED, max_new_tokens=10, trusted_hosts="127.0.0.1"
    )
    with LiveServer(create_app(settings)) as live:
        yield live


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://friend.example", True),
        ("http://localhost", True),
        ("http://localhost:5173", True),
        ("https://a.example.org", True),
        ("https://a.b.example.org", True),
        ("https://b.org", True),
        ("app://.", True),
        ("tauri://localhost", True),
        ("chrome-extension://abcdefgh", True),
        ("capacitor://localhost", True),
        ("http://friend.example", False),
        ("https://friend.example:8443", False),
        ("https://friend.example.evil.org", False),
        ("https://localhost:5173", False),
        ("http://localhost:5173.evil.org", False),
        ("http://localhost.evil.org", False),
        ("https://example.org", False),
        ("https://evil-example.org", False),
        ("https://evil.org/.example.org", False),
        ("app://x", False),
        ("chrome-extension://abcdefghi", False),
        ("null", False),
    ],
)
def test_origins_of_apps_of_any_port_and_below_a_name(friendly: LiveServer, origin: str, allowed: bool) -> None:
    """Only http and https with one port each could be named."""
    answer = httpx.get(f"{friendly.url}/info", headers={"origin": origin})
    assert answer.headers.get("access-control-allow-origin") == (origin if allowed else None)
    assert "Origin" in answer.headers["vary"]


def test_a_page_of_another_origin_can_read_every_refusal(friendly: LiveServer) -> None:
    origin = {"origin": "app://."}
    with httpx.Client(base_url=friendly.url, headers=origin) as client:
        answers = [
            client.post("/v1/completions", content=b"x" * 300_000),
            client.post("/generate", json={"max_new_tokens": 11}),
            client.get("/nowhere"),
            client.put("/generate"),
            client.head("/info"),
            client.get("/info", headers={"host": "evil.example"}),
            client.get("/info?" + "x" * 40_000),
        ]
    assert [answer.status_code for answer in answers] == [413, 422, 404, 405, 200, 400, 414]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == "app://."
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert {"Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-ID"} <= set(exposed)


def test_a_page_of_another_origin_learns_when_to_come_again(serve: Callable[..., Opened]) -> None:
    origin = {"origin": "app://."}
    with serve(cors_origins="app://.", rate_limit="1/hour") as server:
        answers = [httpx.post(f"{server.url}/generate", json=SHORT, headers=origin) for _ in range(2)]
        server.engine.drain(0)
        answers.append(httpx.get(f"{server.url}/health/ready", headers=origin))
    assert [answer.status_code for answer in answers] == [200, 429, 503]
    assert {answer.headers.get("access-control-allow-origin") for answer in answers} == {"app://."}
    assert int(answers[1].headers["retry-after"]) > 0


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
