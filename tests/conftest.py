"""The event loop of coroutine tests, and real servers on ports of their own for those that need one."""

import faulthandler
import json
import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import uvicorn
from fastapi import FastAPI
from httpx._config import DEFAULT_TIMEOUT_CONFIG
from hypothesis import settings as hypothesis_settings

from app.main import create_app
from app.observability import log
from app.server.http_protocol import ServerConfig
from app.serving.engine import Engine
from app.settings import ServerSettings
from model.generation.generator import Generator
from tests.app.gate import GatedBackend
from tests.tiny import tiny_folder

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # kernels of a GPU run in NumPy; Triton asks once, when it is imported

hypothesis_settings.register_profile("untimed", deadline=None)  # the first call may compile
hypothesis_settings.load_profile("untimed")

PATIENCE = 120.0  # seconds until something that should happen has failed to; a busy machine needs many
THREADS = 1  # of servers in these processes; two would wait for each other where others' tests keep the cores busy
DEFAULT_TIMEOUT_CONFIG.connect = PATIENCE  # of every httpx client that sets no other; it would be 5 seconds
DEFAULT_TIMEOUT_CONFIG.read = PATIENCE
DEFAULT_TIMEOUT_CONFIG.write = PATIENCE
DEFAULT_TIMEOUT_CONFIG.pool = PATIENCE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests of the page, which take longest: at the end, there are short ones for all processes."""
    items.sort(key=lambda item: not item.path.name.startswith("test_page"))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop of coroutine tests: asyncio's, as the server's."""
    return "asyncio"


class LiveServer(uvicorn.Server):
    """A real uvicorn on loopback, in a thread, with its app and engine in reach."""

    def __init__(self, app: FastAPI) -> None:
        settings = app.state.service.settings
        super().__init__(ServerConfig(app, settings, port=0, log_level="warning", timeout_graceful_shutdown=5))
        self.app = app
        app.state.recorder.enabled = False  # nothing runs but what a test asks for
        self.engine: Engine = app.state.service.current.engine
        generator = self.engine.generator
        self.gate = GatedBackend(generator.backend)
        self.engine.generator = Generator(self.gate, generator.draft)
        self._up = threading.Event()
        self._thread = threading.Thread(target=self.run, daemon=True)

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """As uvicorn's, and say so."""
        await super().startup()
        self._up.set()

    @property
    def url(self) -> str:
        """Where it listens."""
        port = self.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def __enter__(self) -> "LiveServer":
        self._thread.start()
        assert self._up.wait(PATIENCE)
        return self

    def __exit__(self, *error: object) -> None:
        self.gate.open()
        self.engine.drain(0)
        self.should_exit = True
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            faulthandler.dump_traceback()  # what it waits for
        assert not self._thread.is_alive()


@contextmanager
def process_put_back() -> Iterator[None]:
    """In here, what the server sets for the whole of its process: logging, and how often threads switch.

    What stayed configured took the lines of later tests away, and wrote them to a stream that pytest had closed.
    """
    loggers = [logging.getLogger(name) for name in ("", *log.configuration(ServerSettings())["loggers"])]
    before = [(one.handlers[:], one.level, one.propagate) for one in loggers]
    interval = sys.getswitchinterval()
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        for one, (handlers, level, propagate) in zip(loggers, before, strict=True):
            one.handlers[:] = handlers
            one.setLevel(level)
            one.propagate = propagate


def ask_and_leave(server: LiveServer, path: str, asked: dict[str, Any]) -> None:
    """Post a request, and hang up when the model is about to work on it: the gate is shut, and stays so.

    A time-out of the client's, which stood here, may end on a busy machine before the server has read anything.
    """
    server.gate.close()
    server.gate.waiting.clear()
    url = httpx.URL(server.url)
    body = json.dumps(asked).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    with socket.create_connection((url.host, url.port or 0), timeout=PATIENCE) as client:
        client.sendall(f"{head}\r\n\r\n".encode() + body)
        assert server.gate.waiting.wait(PATIENCE)


@pytest.fixture(scope="module", autouse=True)
def one_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    """PyTorch computes on one thread: with networks this small, two cost more by waiting than they compute.

    The backends are tested with as many as there are.
    """
    before = torch.get_num_threads()
    if "backends" not in request.path.parts:
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint on disk."""
    path = tmp_path_factory.mktemp("checkpoints") / "tiny"
    tiny_folder(path)
    return path


@pytest.fixture
def impatient_server(folder: Path) -> Iterator[LiveServer]:
    """A server that drops a client who reads nothing for a tenth of a second."""
    settings = ServerSettings(checkpoint=folder, device="cpu", send_timeout=0.1)
    with LiveServer(create_app(settings)) as live:
        yield live


@pytest.fixture
def server(folder: Path) -> Iterator[LiveServer]:
    """A real server of the tiny model: 32 slots, a queue of 4."""
    settings = ServerSettings(checkpoint=folder, device="cpu", threads=THREADS, queue_size=4)
    with LiveServer(create_app(settings)) as live:
        yield live
