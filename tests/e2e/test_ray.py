"""Two replicas on Ray Serve, on one machine, with a real Ray."""

import json
import logging.config
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import httpx
import pytest
from httpx_sse import connect_sse
from pydantic import SecretStr, ValidationError

from app.settings import ServerSettings
from model.errors import EngineFailedError, InputError
from tests.e2e.proxy import free_ports
from tests.e2e.test_generate import expected

with warnings.catch_warnings(action="ignore"):  # Ray's own
    pytest.importorskip("ray.serve")

from deploy.ray_serve import RaySettings, Replica, app

SECONDS = 60  # for what takes a few on a quiet machine
LONGEST = 20_000  # characters: two seconds of writing or more
LONG = {"prompt": "ROMEO:", "seed": 7, "max_new_tokens": LONGEST}
Found = TypeVar("Found")
known = cache(expected)


def until(found: Callable[[], Found | None]) -> Found:
    """Wait for what others do."""
    deadline = time.monotonic() + SECONDS
    while not (result := found()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return result


class Service:
    """`python -m deploy.ray_serve` with a small Ray of its own: two replicas of one slot each, and no queue."""

    def __init__(self, folder: Path, home: str) -> None:
        [port] = free_ports(1)
        self.url = f"http://127.0.0.1:{port}/generate"
        self._log = Path(home) / "log"
        self._flags = [f"--port={port}", "--device=cpu", "--min_replicas=2", "--replica_cpus=0.5"]
        self._environment = os.environ | {
            "HOME": home,  # where Ray puts the key to its cluster
            "RAY_TMPDIR": home,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": "80000000",
            "SOLILOQUY_CHECKPOINT": str(folder),
            "SOLILOQUY_SLOTS": "1",
            "SOLILOQUY_QUEUE_SIZE": "0",
            "SOLILOQUY_DRAIN_SECONDS": str(SECONDS),
        }
        self._environment.pop("RAY_ADDRESS", None)

    def start(self) -> None:
        """Start, or start again; until it serves."""
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.ray_serve", *self._flags],
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        until(lambda: self.says("is ready at"))

    def says(self, form: str) -> re.Match[str] | None:
        """What of its log has this form."""
        text = self._log.read_text(errors="replace")
        assert self.running, text
        return re.search(form, text)

    @property
    def running(self) -> bool:
        """False once it has ended."""
        return self.process.poll() is None

    def end(self) -> None:
        """Tell it to end, if it has not; and make sure of it."""
        left = self.descendants() if self.running else {}
        try:
            self.process.terminate()
            self.process.wait(SECONDS)
        finally:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def descendants(self) -> dict[int, str]:
        """What it has started, and what that has: their names."""
        listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
        lines = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
        found = dict[int, str]()
        more = {self.process.pid: ""}
        while more:
            found |= more
            more = {int(pid): name for pid, parent, name in lines if int(parent) in more}
        return found

    @property
    def replicas(self) -> list[int]:
        """The process ids of the replicas."""
        return [pid for pid, name in self.descendants().items() if name.startswith("ray::ServeReplica")]


@pytest.fixture(scope="module")
def started(folder: Path) -> Iterator[Service]:
    """One service for all tests of this module."""
    # in a short path, or the names of Ray's sockets would be too long
    with TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as home:
        service = Service(folder, home)
        try:
            service.start()
            yield service
        finally:
            service.end()


@pytest.fixture
def service(started: Service) -> Service:
    """The service with both replicas up, whatever happened to them before."""
    if not started.running:
        started.start()
    until(lambda: len(started.replicas) == 2)
    return started


class Reader:
    """A client that knows what of the text it has, and goes on after a break."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.headers: dict[str, str] = {}
        self.text = ""
        self.chunks = 0
        self.breaks = 0

    @contextmanager
    def answer(self) -> Iterator[Iterator[str]]:
        """The events of the rest of the text, once a replica has room for it."""
        status = 503
        while status == 503:
            with (
                httpx.Client(timeout=SECONDS) as client,
                connect_sse(client, "POST", self._url, json=LONG, headers=self.headers) as source,
            ):
                status = source.response.status_code
                if status == 200:
                    yield (self._take(event.event, event.id, event.data) for event in source.iter_sse())
                    return
            time.sleep(0.05)
        pytest.fail(f"status {status}")

    def _take(self, name: str, place: str, data: str) -> str:
        if name == "text":
            content = json.loads(data)
            assert content["index"] == len(self.text)
            self.text += content["text"]
            self.headers["Last-Event-ID"] = place
            self.chunks += 1
        return name

    def finish(self) -> None:
        """Read until the text is whole."""
        name = ""
        while name != "done":
            try:
                with self.answer() as names:
                    for name in names:
                        assert name != "error"
            except httpx.RemoteProtocolError:
                self.breaks += 1


def begin(names: Iterator[str]) -> None:
    """Read until the first chunk of text."""
    while next(names) != "text":
        pass


def whole() -> str:
    """The long text by the model alone."""
    return known("ROMEO:", 7, LONGEST)


def ask(url: str, **fields: Any) -> httpx.Response:
    return httpx.post(url, json=fields | {"stream": False}, timeout=SECONDS)


def test_settings_of_replicas() -> None:
    keys = SecretStr("a-key")
    assert RaySettings(replica_cpus=2.5, api_keys=keys).of_replica == ServerSettings(threads=2, api_keys=keys)
    assert RaySettings(replica_cpus=0.5).of_replica.threads == 1
    assert RaySettings(replica_cpus=2, threads=5).of_replica.threads == 5
    with pytest.raises(ValidationError, match="max_replicas"):
        RaySettings(min_replicas=3, max_replicas=2)
    with pytest.raises(InputError, match="max_replica:"):
        app({"max_replica": "2"})


def test_a_replica_whose_engine_has_ended_is_not_healthy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((logging.config, "dictConfig"), (sys, "setswitchinterval")):  # they are the process's own
        monkeypatch.setattr(module, name, lambda _: None)
    replica = Replica(ServerSettings(checkpoint=folder, device="cpu"))
    service = replica.__serve_build_asgi_app__().state.service
    service.start()
    replica.check_health()
    service.close()
    with pytest.raises(EngineFailedError):
        replica.check_health()


def test_texts_are_the_models_own(service: Service) -> None:
    for seed in range(6):
        answer = ask(service.url, prompt="ROMEO:", seed=seed, max_new_tokens=120)
        assert answer.json()["samples"][0]["text"] == known("ROMEO:", seed, 120)


def test_another_replica_goes_on_with_a_text_while_it_is_being_written(service: Service) -> None:
    first = Reader(service.url)
    second = Reader(service.url)
    with first.answer() as names:
        begin(names)
        second.text = first.text
        second.headers = dict(first.headers)
        with second.answer() as rest:  # by the other one: the first one's only slot is taken
            assert next(rest) == "start"
            refused = ask(service.url)
            assert refused.status_code == 503
            assert refused.headers["content-type"] == "application/problem+json"
            assert int(refused.headers["retry-after"]) > 0
            assert list(rest)[-1] == "done"
    assert second.text == whole()
    assert second.chunks > 20


def test_a_reader_that_leaves_is_written_for_no_more(service: Service) -> None:
    reader = Reader(service.url)
    reader.headers |= {"X-Request-ID": "leaves", "X-Forwarded-For": "192.0.2.1"}
    with reader.answer() as names:
        begin(names)
    ended = until(lambda: service.says(r"\[leaves\] POST .*client=127\.0\.0\.1 characters=([0-9]+)"))
    assert int(ended[1]) < LONGEST


def test_a_replica_killed_in_mid_stream_costs_its_reader_a_reconnect(service: Service) -> None:
    readers = [Reader(service.url), Reader(service.url)]
    with ThreadPoolExecutor() as pool:
        finished = [pool.submit(reader.finish) for reader in readers]
        until(lambda: all(reader.text for reader in readers))
        os.kill(service.replicas[0], signal.SIGKILL)
        for one in finished:
            one.result()
    assert [reader.text for reader in readers] == [whole(), whole()]
    assert sorted(reader.breaks for reader in readers) == [0, 1]


def test_sigterm_finishes_what_was_begun_and_leaves_nothing(service: Service) -> None:
    reader = Reader(service.url)
    with reader.answer() as names:
        begin(names)
        started = service.descendants()
        service.process.send_signal(signal.SIGTERM)
        assert list(names)[-1] == "done"
    assert reader.text == whole()
    assert service.process.wait(SECONDS) == 0
    assert len(started) > 5
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started))
