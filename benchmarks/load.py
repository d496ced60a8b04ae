"""Many clients at once: is every text complete and correct, is the wait fair, what memory does a waiting one take?

python -m benchmarks.load [--streams=1000] [--characters=300] [--slots=128] [--checkpoint=DIR]

The server is a process of its own, its clients are in this one. Each cycle opens all streams within some seconds
and reads them to their ends. The first two are undisturbed; in the third, a tenth of the clients disconnect at
random and a tenth never read. At the end, 2,000 clients disconnect at once.
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
from itertools import pairwise
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings

from benchmarks.clients import Reader, expected_texts, resident_bytes, run_readers, serving
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
class MemoryWatch:
    """The server's resident memory during a cycle, in bytes."""

    pid: int
    before: int
    peak: int = 0
    max_waiting: int = 0  # most clients that waited at once for their first character
    added: int = 0  # memory above `before` at that moment

    async def watch(self, readers: Sequence[Reader]) -> None:
        """Look twenty times a second, until cancelled."""
        while True:
            now = resident_bytes(self.pid)
            self.peak = max(self.peak, now)
            waiting = sum(reader.started is not None and not reader.arrivals for reader in readers)
            if waiting > self.max_waiting:
                self.max_waiting = waiting
                self.added = now - self.before
            await asyncio.sleep(0.05)


def reads_to_end(reader: Reader) -> bool:
    """Whether a client neither disconnects nor leaves its text unread."""
    return not reader.never_reads and reader.disconnect_at is None


def p99_gap(readers: Sequence[Reader]) -> float:
    """The 99th percentile of the seconds between two events of a client that reads to the end."""
    gaps: list[float] = []
    for reader in readers:
        if reads_to_end(reader):
            gaps += [after - before for before, after in pairwise(reader.arrivals)]
    gaps.sort()
    return gaps[int(0.99 * len(gaps))]


def report(name: str, readers: Sequence[Reader], expected: Sequence[str]) -> None:
    """Print how a cycle went."""
    counted = [reader for reader in readers if reads_to_end(reader)]
    whole = sum(reader.text == expected[reader.seed] and reader.sha256 == reader.digest for reader in counted)
    firsts = sorted(reader.arrivals[0] - reader.opened for reader in counted if reader.arrivals)
    ends = [reader.arrivals[-1] for reader in counted if reader.arrivals]
    print(f"{name}: {whole} of {len(counted)} texts whole and right by SHA-256, in {max(ends):.1f} s")
    opened = max(reader.opened for reader in readers)
    median = statistics.median(firsts)
    print(
        f"  opened within {opened:.1f} s; first character after {median:.2f} s (median), {firsts[-1]:.2f} s "
        f"(slowest), {firsts[-1] / median:.2f} x; p99 between events {1e3 * p99_gap(readers):.0f} ms"
    )


async def drop_all(port: int) -> None:
    """Open many streams, close all at once; print how soon another client's text is written."""
    sockets: list[socket.socket] = []
    body = json.dumps({"max_new_tokens": 100_000}).encode()
    head = f"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    for _ in range(DROPPED):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(f"{head}\r\n\r\n".encode() + body)
        sockets.append(connection)
        await asyncio.sleep(0.002)
    for connection in sockets:
        assert connection.recv(15).startswith(b"HTTP/1.1 200")
    began = time.monotonic()
    for connection in sockets:
        connection.close()
    following = Reader(seed=1, characters=1)
    await following.read(port, began)
    print(f"{DROPPED} clients dropped at once: the next one's text after {following.arrivals[0]:.2f} s")


async def measure(settings: LoadSettings, pid: int, port: int, expected: Sequence[str]) -> None:
    """Run the cycles, one after another."""
    await run_readers(port, [Reader(seed, 400) for seed in range(settings.slots)], 1)  # warm
    random_numbers = random.Random(0)
    for name in ("first cycle", "second cycle", "disturbed cycle"):
        readers = [Reader(seed, settings.characters) for seed in range(settings.streams)]
        if name == "disturbed cycle":
            for i, reader in enumerate(random_numbers.sample(readers, settings.streams // 5)):
                reader.never_reads = i % 2 == 1
                reader.disconnect_at = random_numbers.randint(1, settings.characters - 1)
        memory = MemoryWatch(pid, resident_bytes(pid))
        watching = asyncio.create_task(memory.watch(readers))
        await run_readers(port, readers, OPEN_SECONDS)
        watching.cancel()
        report(name, readers, expected)
        kibibytes_each = memory.added / max(1, memory.max_waiting) / 1024
        print(
            f"  {memory.before / 2**20:.1f} MiB before, {memory.peak / 2**20:.1f} at most; "
            f"{kibibytes_each:.1f} KiB for each of {memory.max_waiting} that waited"
        )
    await drop_all(port)


def main(settings: LoadSettings) -> None:
    """Measure and print."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    expected = expected_texts(settings.checkpoint, settings.streams, settings.characters)
    flags = [f"--checkpoint={settings.checkpoint}", f"--slots={settings.slots}", f"--queue_size={DROPPED + 1}"]
    with serving(*flags) as (pid, port):
        asyncio.run(measure(settings, pid, port, expected))


if __name__ == "__main__":
    sys.exit(run(LoadSettings, main, sys.argv[1:]))
