"""Many clients at once: is every text whole and right, is the wait fair, and what does a waiting client cost?

python -m benchmarks.load [--streams=1000] [--characters=300] [--slots=128] [--checkpoint=DIR]

The server is a process of its own, its clients are in this one. Each cycle opens all streams within some seconds
and reads them to their ends. The first two are undisturbed; in the third, a tenth of the clients drop at random and
a tenth never read. At the end, 2,000 clients are dropped at once.
"""

import asyncio
import json
import random
import resource
import socket
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings

from benchmarks.clients import Reader, cycle, resident, serving, truths
from model.cli import run, settings_config

OPEN_SECONDS = 4.0
DROPPED = 2000


class LoadSettings(BaseSettings):
    """Load a server of its own on this machine."""

    model_config = settings_config("benchmarks.load", "")

    checkpoint: Path = Path("checkpoints/shakespeare-char")
    """Checkpoint folder"""
    streams: int = Field(1000, ge=1)
    """Clients at once"""
    characters: int = Field(300, ge=1)
    """Characters that each asks for"""
    slots: int = Field(128, ge=1)
    """The server's slots"""


@dataclass
class Memory:
    """What the server holds during a cycle, in bytes: at most, and for each client that waits."""

    pid: int
    before: int
    peak: int = 0
    waiting: int = 0
    held: int = 0

    async def watch(self, readers: Sequence[Reader]) -> None:
        """Look twenty times a second; when most clients wait is what tells."""
        while True:
            now = resident(self.pid)
            self.peak = max(self.peak, now)
            waiting = sum(reader.started is not None and not reader.arrivals for reader in readers)
            if waiting > self.waiting:
                self.waiting, self.held = waiting, now - self.before
            await asyncio.sleep(0.05)


def normal(reader: Reader) -> bool:
    """True for a client that reads to the end."""
    return not reader.deaf and reader.cut_at is None


def gaps(readers: Sequence[Reader]) -> float:
    """The 99th percentile of the seconds between a normal client's events."""
    between = sorted(
        b - a
        for reader in readers
        if normal(reader)
        for a, b in zip(reader.arrivals, reader.arrivals[1:], strict=False)
    )
    return between[int(0.99 * len(between))]


def judge(name: str, readers: Sequence[Reader], right: Sequence[str]) -> None:
    """Print how the cycle went."""
    counted = [reader for reader in readers if normal(reader)]
    whole = sum(reader.text == right[reader.seed] and reader.sha256 == reader.digest for reader in counted)
    firsts = sorted(reader.arrivals[0] - reader.opened for reader in counted if reader.arrivals)
    ends = [reader.arrivals[-1] for reader in counted if reader.arrivals]
    print(f"{name}: {whole} of {len(counted)} texts whole and right by SHA-256, in {max(ends):.1f} s")
    opened = max(reader.opened for reader in readers)
    median = statistics.median(firsts)
    print(
        f"  opened within {opened:.1f} s; first character after {median:.2f} s (median), {firsts[-1]:.2f} s "
        f"(slowest), {firsts[-1] / median:.2f} x; p99 between events {1e3 * gaps(readers):.0f} ms"
    )


async def drop_all(port: int) -> None:
    """Open many streams, leave all at once, and see how soon a text is written again."""
    sockets = []
    body = json.dumps({"max_new_tokens": 100_000}).encode()
    head = f"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    for _ in range(DROPPED):
        one = socket.create_connection(("127.0.0.1", port))
        one.sendall(f"{head}\r\n\r\n".encode() + body)
        sockets.append(one)
        await asyncio.sleep(0.002)
    for one in sockets:
        assert one.recv(15).startswith(b"HTTP/1.1 200")
    began = time.monotonic()
    for one in sockets:
        one.close()
    after = Reader(seed=1, characters=1)
    await after.read(port, began)
    print(f"{DROPPED} clients dropped at once: the next one's text after {after.arrivals[0]:.2f} s")


async def measure(settings: LoadSettings, pid: int, port: int, right: Sequence[str]) -> None:
    """The cycles, one after another."""
    await cycle(port, [Reader(seed, 400) for seed in range(settings.slots)], 1)  # warm
    chance = random.Random(0)
    for name in ("first cycle", "second cycle", "disturbed cycle"):
        readers = [Reader(seed, settings.characters) for seed in range(settings.streams)]
        if name == "disturbed cycle":
            for place, reader in enumerate(chance.sample(readers, settings.streams // 5)):
                reader.deaf = bool(place % 2)
                reader.cut_at = chance.randint(1, settings.characters - 1)
        memory = Memory(pid, resident(pid))
        watching = asyncio.create_task(memory.watch(readers))
        await cycle(port, readers, OPEN_SECONDS)
        watching.cancel()
        judge(name, readers, right)
        each = memory.held / max(1, memory.waiting) / 1024
        print(
            f"  {memory.before / 2**20:.1f} MiB before, {memory.peak / 2**20:.1f} at most; {each:.1f} KiB for each "
            f"of {memory.waiting} that waited"
        )
    await drop_all(port)


def main(settings: LoadSettings) -> None:
    """Measure and print."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    right = truths(settings.checkpoint, settings.streams, settings.characters)
    flags = [f"--checkpoint={settings.checkpoint}", f"--slots={settings.slots}", f"--queue_size={DROPPED + 1}"]
    with serving(*flags) as (pid, port):
        asyncio.run(measure(settings, pid, port, right))


if __name__ == "__main__":
    sys.exit(run(LoadSettings, main, sys.argv[1:]))
