"""Characters a second over HTTP and by the bare generator, and the latency of other requests under that load.

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
from typing import Any, NamedTuple

import uvicorn
from pydantic import Field
from pydantic_settings import BaseSettings

from app.main import create_app
from app.server.http_protocol import ServerConfig
from app.serving.engine import Engine
from app.settings import ServerSettings
from benchmarks.decode import make_sequences, write_all
from model.cli import run, settings_config

HEARTBEAT_SECONDS = 0.005
PROBE_INTERVAL = 0.02  # seconds
MAX_LINE_BYTES = 1 << 24  # of one event
EXTRA_FIELDS = {"details": {"details": True, "alternatives": 0}, "a report": {"report": True}}


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


async def read_stream(port: int, seed: int, characters: int, extra_fields: dict[str, Any]) -> int:
    """Request one stream, with extra fields, and read it to its end; return how many characters it had."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=MAX_LINE_BYTES)
    body = json.dumps({"seed": seed, "max_new_tokens": characters} | extra_fields).encode()
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
    """Request /health/live again and again, and append the seconds that each response took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while True:
        began = time.perf_counter()
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        [length] = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        await reader.readexactly(length)
        waits.append(time.perf_counter() - began)
        await asyncio.sleep(PROBE_INTERVAL)


class LoadResult(NamedTuple):
    """What a number of streams at once measured."""

    characters_per_second: float  # of all streams together
    probe_waits: list[float]  # seconds, of each health check under that load


async def load(port: int, clients: int, characters: int, extra_fields: dict[str, Any]) -> LoadResult:
    """Read many streams at once."""
    waits: list[float] = []
    probing = asyncio.create_task(probe(port, waits))
    began = time.perf_counter()
    streams = [read_stream(port, seed, characters, extra_fields) for seed in range(clients)]
    counts = await asyncio.gather(*streams)
    seconds = time.perf_counter() - began
    probing.cancel()
    assert counts == [characters] * clients
    return LoadResult(clients * characters / seconds, waits)


def run_clients(port: int, clients: int, characters: int, extra_fields: dict[str, Any]) -> LoadResult:
    """Run `load`; called in a process of its own."""
    return asyncio.run(load(port, clients, characters, extra_fields))


class Server(uvicorn.Server):
    """A server for a thread, whose event loop records in `lags` by how many seconds it wakes too late."""

    def __init__(self, settings: ServerSettings) -> None:
        app = create_app(settings)
        self.engine: Engine = app.state.service.current.engine
        self.vocabulary = app.state.service.current.vocabulary
        self.lags: list[float] = []
        self.started_up = threading.Event()
        super().__init__(ServerConfig(app, settings, port=0, log_level="warning"))

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Start as uvicorn does, then begin to measure the loop's lag."""
        await super().startup()
        self._heartbeat = asyncio.create_task(self._measure_lag())
        self.started_up.set()

    async def _measure_lag(self) -> None:
        while not self.should_exit:
            began = time.perf_counter()
            await asyncio.sleep(HEARTBEAT_SECONDS)
            self.lags.append(time.perf_counter() - began - HEARTBEAT_SECONDS)


@contextmanager
def running(settings: ServerSettings) -> Iterator[Server]:
    """Run a server in a thread of this process; yield it once it listens."""
    server = Server(settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    server.started_up.wait()
    try:
        yield server
    finally:
        server.engine.drain(0)
        server.should_exit = True
        thread.join()


def percentile(values: list[float], share: float) -> float:
    """The value, in milliseconds, that `share` of the values (in seconds) are below."""
    index = min(len(values) - 1, int(share * len(values)))
    return 1e3 * sorted(values)[index]


def main(settings: BenchmarkSettings) -> None:
    """Measure in turns and print."""
    bare_rates: list[float] = []
    served_rates: list[float] = []
    probe_waits: list[float] = []
    ratios_with: dict[str, list[float]] = {name: [] for name in EXTRA_FIELDS}
    context = multiprocessing.get_context("spawn")
    server_settings = ServerSettings(checkpoint=settings.checkpoint, port=0, slots=settings.clients)
    with running(server_settings) as server, context.Pool(1) as pool:
        port = server.servers[0].sockets[0].getsockname()[1]
        pool.apply(run_clients, (port, settings.clients, 50, {"report": True}))  # warm
        gc.freeze()  # as `python -m app` does
        for _ in range(settings.rounds):
            sequences = make_sequences(server.vocabulary, settings.clients, settings.characters)
            bare_rates.append(write_all(server.engine.generator, sequences))  # the engine sleeps meanwhile
            server.lags.clear()
            served = pool.apply(run_clients, (port, settings.clients, settings.characters, {}))
            served_rates.append(served.characters_per_second)
            probe_waits += served.probe_waits
            lags = list(server.lags)
            for name, extra_fields in EXTRA_FIELDS.items():
                result = pool.apply(run_clients, (port, settings.clients, settings.characters, extra_fields))
                ratios_with[name].append(result.characters_per_second / served.characters_per_second)
    ratios = [served / bare for served, bare in zip(served_rates, bare_rates, strict=True)]
    print(f"{settings.clients} streams of {settings.characters} characters")
    print(f"bare generator {statistics.median(bare_rates):9,.0f} characters/s")
    print(f"over HTTP      {statistics.median(served_rates):9,.0f} characters/s", end="")
    print(f", {statistics.median(ratios):.2f} x ({min(ratios):.2f}-{max(ratios):.2f})")
    for name, ratios in ratios_with.items():
        print(f"with {name}: {statistics.median(ratios):.2f} x ({min(ratios):.2f}-{max(ratios):.2f}) of that")
    print(f"event loop's lag: p50 {percentile(lags, 0.5):.1f} ms, p99 {percentile(lags, 0.99):.1f} ms")
    print(f"/health/live: p50 {percentile(probe_waits, 0.5):.1f} ms, p99 {percentile(probe_waits, 0.99):.1f} ms")


if __name__ == "__main__":
    sys.exit(run(BenchmarkSettings, main, sys.argv[1:]))
