"""HEAD is GET without a body; every path says what it can be asked for; a resume point may come in the query."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.main import create_app
from app.serving.request_handle import RequestHandle
from app.settings import ServerSettings
from model.generation.sequence import TextSequence
from tests.conftest import LiveServer

VARYING = ("date", "x-request-id", "content-length", "transfer-encoding")
TEXT = "/generate?prompt=ROMEO:&seed=7&max_new_tokens=60"


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LiveServer]:
    """One for all tests here; none changes it."""
    with LiveServer(create_app(ServerSettings(checkpoint=folder, device="cpu"))) as live:
        yield live


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture
def handles(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> list[RequestHandle]:
    """Those that were submitted."""
    found: list[RequestHandle] = []

    def submit(sequences: Sequence[TextSequence]) -> RequestHandle:
        found.append(type(server.engine).submit(server.engine, sequences))
        return found[-1]

    monkeypatch.setattr(server.engine, "submit", submit)
    return found


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/?lang=de", "/info", "/docs", "/openapi.json", "/metrics", "/health/live", "/health/ready"),
        *("/v1/models", "/v1/models/tiny", "/v1/models/other", "/snapshots", "/snapshots?seed=x"),
        *("/static/main.js", "/static/nothing.js", "/static/", "/nowhere", "/score", "/v1/completions"),
        *(TEXT, "/generate?temperature=x", "/generate?prompt=%E6%97%A5", "/generate?stream=false"),
    ],
)
def test_head_is_get_without_a_body(client: httpx.Client, path: str, handles: list[RequestHandle]) -> None:
    """HEAD was 405 on all but the health checks. It has GET's status and headers, the length where it is known, and
    nothing is written for it: RFC 9110, 9.3.2.
    """
    head = client.head(path)
    assert handles == []
    get = client.get(path)
    assert head.status_code == get.status_code
    assert head.content == b""
    ours = dict(head.headers)
    theirs = dict(get.headers)
    if path != "/metrics" and "content-length" in ours:  # its figures have changed meanwhile
        assert ours["content-length"] == theirs["content-length"]
    assert {name: ours[name] for name in ours if name not in VARYING} == {
        name: theirs[name] for name in theirs if name not in VARYING
    }


def test_head_is_counted_as_head(client: httpx.Client) -> None:
    client.head("/info")
    assert 'soliloquy_http_requests_total{method="HEAD",route="/info",status="200"}' in client.get("/metrics").text


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/", "GET, HEAD"),
        ("/info", "GET, HEAD"),
        ("/docs", "GET, HEAD"),
        ("/metrics", "GET, HEAD"),
        ("/snapshots", "GET, HEAD"),
        ("/health/ready", "GET, HEAD"),
        ("/static/main.js", "GET, HEAD"),
        ("/v1/models/tiny", "GET, HEAD"),
        ("/generate", "GET, HEAD, POST"),
        ("/score", "POST"),
        ("/report", "POST"),
        ("/v1/completions", "POST"),
    ],
)
def test_a_method_that_is_not_there_is_told_which_are(
    client: httpx.Client, method: str, path: str, allowed: str
) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize("query", ["_=1700000000000", "utm_source=x&fbclid=y", "callback=f", "promt=a"])
def test_what_is_not_for_us_in_a_query_is_left_alone(client: httpx.Client, query: str) -> None:
    """`&_=…`, by which libraries keep caches away, was refused as an unknown field. In a body it still is."""
    assert client.get(f"{TEXT}&{query}").status_code == 200
    assert client.get(f"/snapshots?{query}").status_code == 200
    assert client.post("/generate", json={"prompt": "a", "_": 1}).status_code == 422


def frames(answer: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream, each as its fields, the data parsed."""
    found = []
    for frame in answer.text.strip("\n").split("\n\n"):
        fields: dict[str, Any] = dict(line.split(": ", 1) for line in frame.split("\n"))
        found.append(fields | {"data": json.loads(fields["data"])})
    return found


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["data"]["text"] for event in events if event["event"] == "text")


@pytest.mark.parametrize("name", ["lastEventId", "last-event-id", "last_event_id", "Last-Event-ID"])
def test_a_resume_point_may_come_in_the_query(client: httpx.Client, name: str) -> None:
    """Polyfills of `EventSource` put it there, for a page cannot set the header: it was refused at every resume."""
    whole = frames(client.get(TEXT))
    texts = [event for event in whole if event["event"] == "text"]
    have = texts[0]["data"]["text"]
    last = texts[0]["id"]
    rest = frames(client.get(f"/generate?prompt=ROMEO:&max_new_tokens=60&utm_source=x&{name}={last}"))
    assert have + text_of(rest) == text_of(whole)
    assert rest[-1]["data"]["receipt"] == whole[-1]["data"]["receipt"]
    assert text_of(frames(client.get(f"{TEXT}&{name}="))) == text_of(whole)
    wrong = client.get(f"{TEXT}&{name}=nonsense")
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "Last-Event-ID")


def test_the_header_wins_over_the_query(client: httpx.Client) -> None:
    texts = [event for event in frames(client.get(TEXT)) if event["event"] == "text"]
    header = {"last-event-id": texts[-1]["id"]}
    assert text_of(frames(client.get(f"{TEXT}&lastEventId=nonsense", headers=header))) == ""


@pytest.mark.parametrize("stop", ["", "&stop=e", "&num_samples=3&stop=e&stop=a"])
def test_who_has_all_is_told_that_there_is_no_more(
    client: httpx.Client, stop: str, handles: list[RequestHandle]
) -> None:
    """An `EventSource` that was left open after `done` asked for the text again and again. `done` has an id, and
    who comes back with it gets 204, on whichever way; who has not seen it gets the end of every sample.
    """
    whole = frames(client.get(TEXT + stop))
    done = whole[-1]
    assert done["event"] == "done"
    del handles[:]
    for headers, query in (({"last-event-id": done["id"]}, ""), ({}, f"&lastEventId={done['id']}")):
        answer = client.get(TEXT + stop + query, headers=headers)
        assert (answer.status_code, answer.content) == (204, b"")
    assert handles == []
    last = [event for event in whole if event["event"] == "text"][-1]
    rest = frames(client.get(TEXT + stop, headers={"last-event-id": last["id"]}))
    assert text_of(rest) == ""
    assert rest[-1]["data"]["samples"] == done["data"]["samples"]
    other = client.get(
        f"/generate?prompt=JULIET:&seed=7&max_new_tokens=60{stop}", headers={"last-event-id": done["id"]}
    )
    assert other.status_code == 422
