"""Reports, snapshots and scores that are fired and left, over raw sockets, at a real server.

Eight reports of 100,000 brackets whose clients had gone held every other report, `/snapshots`, the end of streams
with `report: true` and a reload for minutes: all shared one pool of threads, and nothing told their work to end.
"""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import httpx
import pytest

from app.api import report
from app.main import create_app
from app.serving import service
from app.serving.engine import Engine
from app.serving.request_handle import RequestHandle
from app.settings import ServerSettings
from model.analysis.report import Report, make_report
from model.cancellation import CancelCheck
from model.checkpoint import write_checkpoint
from tests.conftest import LiveServer
from tests.tiny import tiny_checkpoint, tiny_folder, tiny_index

THREADS = service.REPORT_THREADS


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server of a tiny model that has an index and two snapshots."""
    folder = tmp_path_factory.mktemp("analysed") / "tiny"
    folder.mkdir()
    write_checkpoint(folder, replace(tiny_checkpoint(), index=tiny_index()))
    for step in (0, 9):
        tiny_folder(folder.with_name("tiny-snapshots") / f"{step:06}", seed=step)
    with LiveServer(create_app(ServerSettings(checkpoint=folder, device="cpu"))) as live:
        yield live


class Held:
    """Reports that go on until their work is told to end."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.ended = threading.Semaphore(0)

    def __call__(
        self,
        text: str,
        *parts: Any,
        check_cancelled: CancelCheck,
        **others: Any,
    ) -> Report:
        if text.startswith("free"):
            return make_report(text, *parts, check_cancelled=check_cancelled, **others)
        self.begun.release()
        try:
            while True:
                check_cancelled()
        finally:
            self.ended.release()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    reports = Held()
    monkeypatch.setattr(report, "make_report", reports)
    return reports


def fire(server: LiveServer, path: str, body: dict[str, Any] | None) -> socket.socket:
    """A request whose answer nobody has read yet."""
    port = server.servers[0].sockets[0].getsockname()[1]
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    content = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
    )
    client.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return client


def test_reports_that_are_fired_and_left_are_in_nobodys_way(analysed: LiveServer, held: Held) -> None:
    state = analysed.app.state.service
    with ExitStack() as clients:
        for _ in range(8):
            clients.enter_context(fire(analysed, "/report", {"text": "日(" * 1000}))
        for _ in range(THREADS):
            assert held.begun.acquire(timeout=60)
        assert httpx.get(f"{analysed.url}/health/live").status_code == 200
        snapshots = httpx.get(f"{analysed.url}/snapshots", params={"max_new_tokens": 5}, timeout=60)
        assert [one["step"] for one in snapshots.json()["snapshots"]] == [0, 9]
        assert asyncio.run(state.reload())
    for _ in range(THREADS):
        assert held.ended.acquire(timeout=60)
    answer = httpx.post(f"{analysed.url}/report", json={"text": "free at last"}, timeout=60)
    assert answer.status_code == 200
    fields = {"prompt": "free", "max_new_tokens": 5, "report": False, "stream": False}
    assert httpx.post(f"{analysed.url}/generate", json=fields, timeout=60).status_code == 200


def test_more_reports_than_there_are_places_for_are_refused_at_once(analysed: LiveServer, held: Held) -> None:
    state = analysed.app.state.service
    with ExitStack() as clients:
        for _ in range(service.REPORT_CAPACITY):
            clients.enter_context(fire(analysed, "/report", {"text": "日"}))
        for _ in range(THREADS):
            assert held.begun.acquire(timeout=60)
        while state.reports.admitted < service.REPORT_CAPACITY:
            httpx.get(f"{analysed.url}/health/live")
        answer = httpx.post(f"{analysed.url}/report", json={"text": "free"})
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "5"
    assert answer.json()["detail"] == "all 16 places for a report are taken"
    while not state.reports.idle:
        httpx.get(f"{analysed.url}/health/live")


@pytest.mark.parametrize("fields", [{"stream": True}, {"stream": False}, {"num_samples": 3, "stream": True}])
def test_the_report_of_a_stream_ends_with_its_client(
    analysed: LiveServer, held: Held, fields: dict[str, Any]
) -> None:
    with fire(analysed, "/generate", {"max_new_tokens": 20, "report": True} | fields):
        assert held.begun.acquire(timeout=60)
    assert held.ended.acquire(timeout=60)


def test_a_report_that_takes_too_long_is_a_clear_refusal(
    analysed: LiveServer, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysed.app.state.service.reports, "_seconds", 0.2)
    answer = httpx.post(f"{analysed.url}/report", json={"text": "日"}, timeout=60)
    assert answer.status_code == 503
    assert "the report was not ready within 0.2 seconds" in answer.json()["detail"]
    assert "retry-after" in answer.headers
    assert held.ended.acquire(timeout=60)


def test_snapshots_end_with_their_client(analysed: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()
    ended = threading.Event()
    snapshot_store = analysed.app.state.service.current.snapshot_store

    def write(query: object, check_cancelled: CancelCheck) -> dict[str, Any]:
        begun.set()
        try:
            while True:
                check_cancelled()
        finally:
            ended.set()

    monkeypatch.setattr(snapshot_store, "generate", write)
    with fire(analysed, "/snapshots", None):
        assert begun.wait(60)
        monkeypatch.undo()
        answer = httpx.post(f"{analysed.url}/report", json={"text": "not in its way"}, timeout=60)
        assert answer.status_code == 200
    assert ended.wait(60)
    assert httpx.get(f"{analysed.url}/snapshots", params={"max_new_tokens": 5}, timeout=60).status_code == 200


def test_a_large_score_that_nobody_reads_is_not_made(server: LiveServer) -> None:
    """55 MB were made and kept for each client, and joined in one go on the event loop."""
    handles: list[RequestHandle] = []

    def submit(sequences: Any) -> RequestHandle:
        handles.append(Engine.submit(server.engine, sequences))
        return handles[-1]

    server.engine.submit = submit  # type: ignore[method-assign]
    with fire(server, "/score", {"text": "ab" * 8192, "alternatives": 100}) as client:
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
        while not handles[0].full:
            httpx.get(f"{server.url}/health/live")
        assert not handles[0].released.is_set()
    assert handles[0].released.wait(60)
    assert len(handles[0].sequences[0].written) < 16_384
