"""What other clients notice of an address over its rate limit; what endless uploads and half-open sockets cost.

python -m benchmarks.attacks [--checkpoint=DIR] [--rounds=10] [--connections=8]

The server is a process of its own on loopback. The attacker is another process, at the lowest priority, so that it
takes no CPU time from the server. It connects from 127.0.0.2; the other clients have addresses of their own.
"""

import asyncio
import itertools
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings

from benchmarks.clients import resident_bytes, serving
from benchmarks.serve import percentile
from model.cli import run, settings_config

RATE_LIMIT = 30  # requests a minute for each address
MEASURE_SECONDS = 2.0  # of one measurement with or without the attack
SETTLE_SECONDS = 0.5  # before a measurement
PAUSE_SECONDS = 0.02  # between two requests of a client that does not attack
CHARACTERS = 20
UPLOAD_BYTES = 200 * 1024 * 1024
HALF_OPEN_SOCKETS = 200
CHUNK_BYTES = 64 * 1024
BODY = json.dumps({"max_new_tokens": CHARACTERS, "stream": False}).encode()
HEAD = b"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
GENERATE_REQUEST = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
HEALTH_REQUEST = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"
PARTIAL_REQUESTS = (b"", b"GET /info HTTP/1.1\r\nhost: ", HEAD + b"content-length: 100\r\n\r\n{")

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class AttackSettings(BaseSettings):
    """Attack a server of its own."""

    model_config = settings_config("benchmarks.attacks", "")

    checkpoint: Path = Path("checkpoints/shakespeare-char")
    """Checkpoint folder"""
    rounds: int = Field(10, ge=1)
    """Times that the server is left alone and attacked in turns"""
    connections: int = Field(8, ge=1)
    """Connections that ask again as soon as they are answered"""


async def status_of(streams: Streams, request: bytes) -> int:
    """Send a request, read its whole response and return the status."""
    reader, writer = streams
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    [length] = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    await reader.readexactly(length)
    return int(head[9:12])


@dataclass(frozen=True)
class Signals:
    """Events shared by this process and the attacker's."""

    over_limit: Event  # the attacker was refused for the first time
    attacking: Event  # the attack is to go on
    stop: Event  # the attacker is to end


async def hammer(port: int, signals: Signals) -> Counter[int]:
    """Send one request after another while the attack goes on; return how often each status came."""
    streams = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
    statuses = Counter[int]()
    while not signals.stop.is_set():
        if not signals.attacking.is_set():
            await asyncio.sleep(PAUSE_SECONDS)
            continue
        status = await status_of(streams, GENERATE_REQUEST)
        statuses[status] += 1
        if status == 429:
            signals.over_limit.set()
    streams[1].close()
    return statuses


def attack(port: int, connections: int, signals: Signals) -> None:
    """The attacker's process: print how often each status came."""
    os.nice(19)

    async def hammer_all() -> list[Counter[int]]:
        return await asyncio.gather(*(hammer(port, signals) for _ in range(connections)))

    statuses = sum(asyncio.run(hammer_all()), Counter[int]())
    answers = ", ".join(f"{status} {count:,} times" for status, count in sorted(statuses.items()))
    print(f"the attacker was answered {answers}")


def addresses() -> Iterator[str]:
    """Addresses, each as often as it may send requests without passing its limit."""
    for number in itertools.count():
        for _ in range(RATE_LIMIT - 5):
            yield f"127.1.{number // 250}.{number % 250 + 1}"


async def measure_waits(port: int, local_addresses: Iterator[str]) -> list[float]:
    """Seconds that clients other than the attacker wait for a short text."""
    waits: list[float] = []
    end = time.perf_counter() + MEASURE_SECONDS
    while time.perf_counter() < end:
        streams = await asyncio.open_connection("127.0.0.1", port, local_addr=(next(local_addresses), 0))
        began = time.perf_counter()
        status = await status_of(streams, GENERATE_REQUEST)
        waits.append(time.perf_counter() - began)
        assert status == 200, status
        streams[1].close()
        await asyncio.sleep(PAUSE_SECONDS)
    return waits


def compare_waits(port: int, settings: AttackSettings) -> None:
    """Print how long other clients wait with and without the attack."""
    context = multiprocessing.get_context("spawn")
    signals = Signals(context.Event(), context.Event(), context.Event())
    attacker = context.Process(target=attack, args=(port, settings.connections, signals))
    left_alone: list[float] = []
    attacked: list[float] = []
    local_addresses = addresses()
    attacker.start()
    signals.attacking.set()
    signals.over_limit.wait()
    for _ in range(settings.rounds):
        signals.attacking.clear()
        time.sleep(SETTLE_SECONDS)
        left_alone += asyncio.run(measure_waits(port, local_addresses))
        signals.attacking.set()
        time.sleep(SETTLE_SECONDS)
        attacked += asyncio.run(measure_waits(port, local_addresses))
    signals.stop.set()
    attacker.join()
    for name, waits in (("left alone", left_alone), ("attacked", attacked)):
        figures = (f"p{100 * share:g} {percentile(waits, share):.1f} ms" for share in (0.5, 0.99))
        print(f"{len(waits)} texts of {CHARACTERS} characters, {name}: {', '.join(figures)}")
    print(f"p99 attacked / left alone: {percentile(attacked, 0.99) / percentile(left_alone, 0.99):.2f}")


async def upload(pid: int, port: int, name: str, head: bytes, chunk: bytes) -> None:
    """Send an endless body; print how much of it the server reads, and how much memory it takes."""
    before = peak = resident_bytes(pid)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD + head)
    status_line = asyncio.create_task(reader.readuntil(b"\r\n"))
    sent = 0
    with suppress(ConnectionError):
        while sent < UPLOAD_BYTES:
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(0)  # lets `status_line` read
            sent += len(chunk)
            peak = max(peak, resident_bytes(pid))
    status = (await status_line)[9:12]
    writer.close()
    print(
        f"an upload of {UPLOAD_BYTES >> 20} MiB, {name}: "
        f"{status.decode()} and closed after {sent / 2**20:.1f} MiB; "
        f"{(peak - before) / 2**10:.0f} KiB more memory at most"
    )


async def half_open(port: int) -> None:
    """Open sockets that never send a whole request; print when they are closed, and how long others wait then."""
    began = time.perf_counter()
    waits: list[float] = []

    async def hold_open(partial_request: bytes) -> float:
        """Seconds until the server closes the socket."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(partial_request)
        with suppress(ConnectionError):
            await reader.read()  # to its end
        writer.close()
        return time.perf_counter() - began

    sockets: list[asyncio.Task[float]] = []
    for partial_request in itertools.islice(itertools.cycle(PARTIAL_REQUESTS), HALF_OPEN_SOCKETS):
        sockets.append(asyncio.create_task(hold_open(partial_request)))
    streams = await asyncio.open_connection("127.0.0.1", port)
    while not all(task.done() for task in sockets):
        sent = time.perf_counter()
        assert await status_of(streams, HEALTH_REQUEST) == 200
        waits.append(time.perf_counter() - sent)
        await asyncio.sleep(PAUSE_SECONDS)
    ends = sorted(await asyncio.gather(*sockets))
    print(f"{HALF_OPEN_SOCKETS} half-open sockets: closed after {ends[0]:.1f} to {ends[-1]:.1f} s")
    print(f"  /health/live meanwhile: p99 {percentile(waits, 0.99):.1f} ms, slowest {1e3 * max(waits):.1f} ms")


def chunked(data: bytes) -> bytes:
    """A chunk as HTTP frames it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def measure_uploads_and_sockets(pid: int, port: int) -> None:
    """The attacks that need no process of their own."""
    data = b"a" * CHUNK_BYTES
    for _ in range(2):  # the first time, the Python interpreter itself grows
        await upload(pid, port, "its length announced", b"content-length: %d\r\n\r\n" % UPLOAD_BYTES, data)
        await upload(pid, port, "chunked", b"transfer-encoding: chunked\r\n\r\n", chunked(data))
    await half_open(port)


def main(settings: AttackSettings) -> None:
    """Attack and print."""
    with serving(f"--checkpoint={settings.checkpoint}", f"--rate_limit={RATE_LIMIT}/minute") as (pid, port):
        compare_waits(port, settings)
        asyncio.run(measure_uploads_and_sockets(pid, port))


if __name__ == "__main__":
    sys.exit(run(AttackSettings, main, sys.argv[1:]))
