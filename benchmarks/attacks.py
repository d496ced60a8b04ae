"""What others notice of an address over its rate limit, and what an endless upload and half-open sockets cost.

python -m benchmarks.attacks [--checkpoint=DIR] [--rounds=10] [--connections=8]

The server is a process of its own on loopback. Whoever attacks is another one, which gives way to the server's as
if it ran on another machine. It asks from 127.0.0.2, everybody else from addresses of their own.
"""

import asyncio
import itertools
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings

from benchmarks.clients import resident, serving
from benchmarks.serve import percentile
from model.cli import run, settings_config

RATE = 30  # requests a minute for each address
BLOCK = 2.0  # seconds
SETTLE = 0.5
PAUSE = 0.02  # seconds between two requests of everybody else
CHARACTERS = 20
UPLOAD = 200 * 1024 * 1024
HALF_OPEN = 200
CHUNK = 64 * 1024
TEXT = json.dumps({"max_new_tokens": CHARACTERS, "stream": False}).encode()
HEAD = b"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
ASKED = HEAD + b"content-length: %d\r\n\r\n" % len(TEXT) + TEXT
ALIVE = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"
BEGINNINGS = (b"", b"GET /info HTTP/1.1\r\nhost: ", HEAD + b"content-length: 100\r\n\r\n{")

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


async def ask(streams: Streams, request: bytes) -> int:
    """The status of an answer."""
    reader, writer = streams
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    [length] = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    await reader.readexactly(length)
    return int(head[9:12])


@dataclass(frozen=True)
class Signals:
    """Between this process and the attacking one: `passed` is set once the limit is passed."""

    passed: Event
    attacking: Event
    stop: Event


async def hammer(port: int, signals: Signals) -> Counter[int]:
    """Ask without a pause, while the attack goes on; how often each status came."""
    streams = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
    statuses = Counter[int]()
    while not signals.stop.is_set():
        if not signals.attacking.is_set():
            await asyncio.sleep(PAUSE)
            continue
        status = await ask(streams, ASKED)
        statuses[status] += 1
        if status == 429:
            signals.passed.set()
    streams[1].close()
    return statuses


def attack(port: int, connections: int, signals: Signals) -> None:
    """The attacking process."""
    os.nice(19)

    async def all_of_them() -> list[Counter[int]]:
        return await asyncio.gather(*(hammer(port, signals) for _ in range(connections)))

    statuses = sum(asyncio.run(all_of_them()), Counter[int]())
    answers = ", ".join(f"{status} {count:,} times" for status, count in sorted(statuses.items()))
    print(f"the attacker was answered {answers}")


def addresses() -> Iterator[str]:
    """Each for fewer requests than its limit."""
    for number in itertools.count():
        for _ in range(RATE - 5):
            yield f"127.1.{number // 250}.{number % 250 + 1}"


async def others(port: int, whose: Iterator[str]) -> list[float]:
    """Seconds that others wait for a short text."""
    waits, until = [], time.perf_counter() + BLOCK
    while time.perf_counter() < until:
        streams = await asyncio.open_connection("127.0.0.1", port, local_addr=(next(whose), 0))
        began = time.perf_counter()
        status = await ask(streams, ASKED)
        waits.append(time.perf_counter() - began)
        assert status == 200, status
        streams[1].close()
        await asyncio.sleep(PAUSE)
    return waits


def neighbours(port: int, settings: AttackSettings) -> None:
    """How long others wait with and without someone over the limit."""
    context = multiprocessing.get_context("spawn")
    signals = Signals(context.Event(), context.Event(), context.Event())
    attacker = context.Process(target=attack, args=(port, settings.connections, signals))
    alone, beside, whose = list[float](), list[float](), addresses()
    attacker.start()
    signals.attacking.set()
    signals.passed.wait()
    for _ in range(settings.rounds):
        signals.attacking.clear()
        time.sleep(SETTLE)
        alone += asyncio.run(others(port, whose))
        signals.attacking.set()
        time.sleep(SETTLE)
        beside += asyncio.run(others(port, whose))
    signals.stop.set()
    attacker.join()
    for name, waits in (("left alone", alone), ("attacked", beside)):
        figures = (f"p{100 * share:g} {percentile(waits, share):.1f} ms" for share in (0.5, 0.99))
        print(f"{len(waits)} texts of {CHARACTERS} characters, {name}: {', '.join(figures)}")
    print(f"p99 attacked / left alone: {percentile(beside, 0.99) / percentile(alone, 0.99):.2f}")


async def upload(pid: int, port: int, name: str, head: bytes, chunk: bytes) -> None:
    """Send a body that has no end, and see how much of it the server takes, and keeps."""
    before = peak = resident(pid)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD + head)
    answer, sent = asyncio.create_task(reader.readuntil(b"\r\n")), 0
    with suppress(ConnectionError):
        while sent < UPLOAD:
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(0)  # to read
            sent += len(chunk)
            peak = max(peak, resident(pid))
    status = (await answer)[9:12]
    writer.close()
    print(
        f"an upload of {UPLOAD >> 20} MiB, {name}: {status.decode()} and closed after {sent / 2**20:.1f} MiB; "
        f"{(peak - before) / 2**10:.0f} KiB more memory at most"
    )


async def half_open(port: int) -> None:
    """Open sockets that never send a whole request; see when they are closed, and whether others are answered."""
    began, waits = time.perf_counter(), list[float]()

    async def one(beginning: bytes) -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(beginning)
        with suppress(ConnectionError):
            await reader.read()  # to its end
        writer.close()
        return time.perf_counter() - began

    sockets = [asyncio.create_task(one(BEGINNINGS[i % len(BEGINNINGS)])) for i in range(HALF_OPEN)]
    streams = await asyncio.open_connection("127.0.0.1", port)
    while not all(task.done() for task in sockets):
        asked = time.perf_counter()
        assert await ask(streams, ALIVE) == 200
        waits.append(time.perf_counter() - asked)
        await asyncio.sleep(PAUSE)
    ends = sorted(await asyncio.gather(*sockets))
    print(f"{HALF_OPEN} half-open sockets: closed after {ends[0]:.1f} to {ends[-1]:.1f} s")
    print(f"  /health/live meanwhile: p99 {percentile(waits, 0.99):.1f} ms, slowest {1e3 * max(waits):.1f} ms")


def chunked(data: bytes) -> bytes:
    """A chunk as HTTP frames it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def sockets(pid: int, port: int) -> None:
    """What does not need an attacking process."""
    data = b"a" * CHUNK
    for _ in range(2):  # the first time, Python itself grows
        await upload(pid, port, "its length announced", b"content-length: %d\r\n\r\n" % UPLOAD, data)
        await upload(pid, port, "chunked", b"transfer-encoding: chunked\r\n\r\n", chunked(data))
    await half_open(port)


def main(settings: AttackSettings) -> None:
    """Attack and print."""
    flags: Sequence[str] = (f"--checkpoint={settings.checkpoint}", f"--rate_limit={RATE}/minute")
    with serving(*flags) as (pid, port):
        neighbours(port, settings)
        asyncio.run(sockets(pid, port))


if __name__ == "__main__":
    sys.exit(run(AttackSettings, main, sys.argv[1:]))
