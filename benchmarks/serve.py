"""Characters a second over HTTP beside the bare generator's, and how quick the server answers others meanwhile.

python -m benchmarks.serve [--checkpoint=DIR] [--clients=32] [--characters=1000] [--rounds=3]

The server runs in this process, its clients in another: each opens an event stream and reads it to its end.
"""

import asyncio
import gc
import json
import multiprocessing
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import Field
from pydantic_settings import BaseSettings

from app.main import create_app
from app.server.http_protocol import ServerConfig
from app.serving.engine import Engine
from app.settings import ServerSettings
from benchmarks.decode import make_sequences, write_all
from model.cli import run, settings_config

HEARTBEAT = 0.005  # seconds
PROBES = 0.02
LINE = 1 << 24  # bytes in one event, at most
ASKED = {"details": {"details": True, "alternatives": 0}, "a report": {"report": True}}


class BenchmarkSettings(BaseSettings):
    """Measure the server."""

    model_config = settings_config("benchmarks.serve", "SOLILOQUY_BENCHMARK_")

    checkpoint: Path = Path("checkpoints/shakespeare-char")
    """Checkpoint folder"""
    clients: int = Field(32, ge=1)
    """Event streams at once"""
    characters: int = Field(1000, ge=1)
    """Characters in each"""
    rounds: int = Field(3, ge=1)
    """Times that HTTP and the bare generator take turns"""


async def read_stream(port: int, seed: int, characters: int, also: dict[str, Any]) -> int:
    """The characters of one stream, asked for (with what `also` says) and read as a client does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=LINE)
    body = json.dumps({"seed": seed, "max_new_tokens": characters} | also).encode()
    head = "POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
    writer.write(f"{head}{len(body)}\r\n\r\n".encode() + body)
    count = 0
    event = b""
    while event != b"done":
        line = await reader.readline()
        if line.startswith(b"event: "):
            event = line[7:].strip()
        elif line.startswith(b"data: ") and event == b"text":
            count += len(json.loads(line[6:])["text"])
        assert line, "the stream ended early"
    writer.close()
    return count


async def probe(port: int, waits: list[float]) -> None:
    """Ask whether the server is alive, over and over."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while True:
        began = time.perf_counter()
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        [length] = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        await reader.readexactly(length)
        waits.append(time.perf_counter() - began)
        await asyncio.sleep(PROBES)


async def load(port: int, clients: int, characters: int, also: dict[str, Any]) -> tuple[float, list[float]]:
    """Characters a second of all streams together, and the health checks' waits in seconds."""
    waits: list[float] = []
    probing = asyncio.create_task(probe(port, waits))
    began = time.perf_counter()
    counts = await asyncio.gather(*(read_stream(port, seed, characters, also) for seed in range(clients)))
    seconds = time.perf_counter() - began
    probing.cancel()
    assert counts == [characters] * clients
    return clients * characters / seconds, waits


def run_clients(port: int, clients: int, characters: int, also: dict[str, Any]) -> tuple[float, list[float]]:
    """`load` in a process of its own."""
    return asyncio.run(load(port, clients, characters, also))


class Server(uvicorn.Server):
    """A server in a thread, whose loop notes how late it wakes."""

    def __init__(self, settings: ServerSettings) -> None:
        app = create_app(settings)
        self.engine: Engine = app.state.service.current.engine
        self.vocabulary = app.state.service.current.vocabulary
        self.lags: list[float] = []
        self.up = threading.Event()
        super().__init__(ServerConfig(app, settings, port=0, log_level="warning"))

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """As uvicorn's; then the heart beats."""
        await super().startup()
        self.heart = asyncio.create_task(self._beat())
        self.up.set()

    async def _beat(self) -> None:
        while not self.should_exit:
            began = time.perf_counter()
            await asyncio.sleep(HEARTBEAT)
            self.lags.append(time.perf_counter() - began - HEARTBEAT)


@contextmanager
def running(settings: ServerSettings) -> Iterator[Server]:
    """A server that listens."""
    server = Server(settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    server.up.wait()
    try:
        yield server
    finally:
        server.engine.drain(0)
        server.should_exit = True
        thread.join()


def percentile(values: list[float], share: float) -> float:
    """Milliseconds that `share` of the values (seconds) are below."""
    return 1e3 * sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main(settings: BenchmarkSettings) -> None:
    """Measure in turns and print."""
    bare, served, waits = [], [], []
    more: dict[str, list[float]] = {name: [] for name in ASKED}
    context = multiprocessing.get_context("spawn")
    server_settings = ServerSettings(checkpoint=settings.checkpoint, port=0, slots=settings.clients)
    with running(server_settings) as server, context.Pool(1) as pool:
        port = server.servers[0].sockets[0].getsockname()[1]
        pool.apply(run_clients, (port, settings.clients, 50, {"report": True}))  # warm
        gc.freeze()  # as `python -m app` does
        for _ in range(settings.rounds):
            streams = make_sequences(server.vocabulary, settings.clients, settings.characters)
            bare.append(write_all(server.engine.generator, streams))  # the engine sleeps meanwhile
            server.lags.clear()
            rate, some = pool.apply(run_clients, (port, settings.clients, settings.characters, {}))
            served.append(rate)
            waits += some
            lags = list(server.lags)
            for name, also in ASKED.items():
                asked = pool.apply(run_clients, (port, settings.clients, settings.characters, also))
                more[name].append(asked[0] / rate)
    ratios = [a / b for a, b in zip(served, bare, strict=True)]
    print(f"{settings.clients} streams of {settings.characters} characters")
    print(f"bare generator {statistics.median(bare):9,.0f} characters/s")
    print(
        f"over HTTP      {statistics.median(served):9,.0f} characters/s, {statistics.median(ratios):.2f} x", end=""
    )
    print(f" ({min(ratios):.2f}-{max(ratios):.2f})")
    for name, rates in more.items():
        print(f"with {name}: {statistics.median(rates):.2f} x ({min(rates):.2f}-{max(rates):.2f}) of that")
    print(f"event loop's lag: p50 {percentile(lags, 0.5):.1f} ms, p99 {percentile(lags, 0.99):.1f} ms")
    print(f"/health/live: p50 {percentile(waits, 0.5):.1f} ms, p99 {percentile(waits, 0.99):.1f} ms")


if __name__ == "__main__":
    sys.exit(run(BenchmarkSettings, main, sys.argv[1:]))
