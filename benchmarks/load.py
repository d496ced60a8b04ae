"""Many clients at once: is every text whole and right, is the wait fair, and what does a waiting client cost?

python -m benchmarks.load [--streams=1000] [--characters=300] [--slots=128] [--checkpoint=DIR]

The server is a process of its own, its clients are in this one. Each cycle opens all streams within some seconds
and reads them to their ends. The first two are undisturbed; in the third, a tenth of the clients drop at random and
a tenth never read. At the end, 2,000 clients are dropped at once.
"""

import asyncio
import hashlib
import json
import random
import re
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings

from model.checkpoint import read_checkpoint
from model.cli import run, settings_config
from model.device import choose_numerics
from model.generator import load_generator
from model.stream import Stream

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
class Reader:
    """One client: asks for the text of a seed, and notes what came when (seconds since the cycle began)."""

    seed: int
    characters: int
    kind: str = "normal"
    text: str = ""
    opened: float = 0.0
    started: float | None = None
    arrivals: list[float] = field(default_factory=list)
    sha256: str = ""

    async def read(self, port: int, began: float) -> None:
        """Open, read, and leave as this kind of client does."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        body = json.dumps({"prompt": "ROMEO:", "seed": self.seed, "max_new_tokens": self.characters}).encode()
        head = (
            f"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        )
        writer.write(f"{head}\r\nconnection: close\r\n\r\n".encode() + body)
        self.opened = time.monotonic() - began
        try:
            if self.kind == "deaf":
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                await asyncio.sleep(60)
                return
            leave_at = random.randrange(self.characters) if self.kind == "dropping" else None
            await self._events(reader, began, leave_at)
        finally:
            writer.transport.abort()

    async def _events(self, reader: asyncio.StreamReader, began: float, leave_at: int | None) -> None:
        while line := await reader.readline():
            if not line.startswith(b"data: "):
                continue
            now = time.monotonic() - began
            data = json.loads(line[6:])
            if self.started is None:
                self.started = now
            if "text" in data:
                self.arrivals.append(now)
                self.text += data["text"]
                if leave_at is not None and len(self.text) > leave_at:
                    return
            elif "samples" in data:
                self.sha256 = data["samples"][0]["sha256"]


def truths(settings: LoadSettings) -> list[str]:
    """SHA-256 of each seed's text, by the generator alone."""
    checkpoint = read_checkpoint(settings.checkpoint)
    generator = load_generator(checkpoint, choose_numerics("cpu", "auto"), settings.slots)
    prompt = checkpoint.vocabulary.encode("ROMEO:")
    streams = [
        Stream(checkpoint.vocabulary, prompt, seed=seed, max_new_tokens=settings.characters)
        for seed in range(settings.streams)
    ]
    waiting, texts, active = list(streams), dict.fromkeys(streams, ""), list[Stream]()
    while waiting or active:
        while waiting and generator.free_slots:
            active.append(waiting.pop())
            generator.add(active[-1])
        for stream, piece in generator.step(active):
            texts[stream] += piece.text
            if piece.finish_reason:
                active.remove(stream)
    return [hashlib.sha256(texts[stream].encode()).hexdigest() for stream in streams]


@contextmanager
def serving(*flags: str) -> Iterator[tuple[int, int]]:
    """`python -m app` on a free port: its process id and port."""
    command = [sys.executable, "-m", "app", "--port=0", "--device=cpu", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert process.stderr is not None
        found = next(filter(None, (re.search(r"running on http://\S+:(\d+)", line) for line in process.stderr)))
        drained = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)  # its log
        yield process.pid, int(found[1])
        drained.terminate()
    finally:
        process.terminate()
        process.wait(30)


def resident(pid: int) -> int:
    """Bytes of memory that the process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


async def cycle(port: int, readers: Sequence[Reader]) -> None:
    """All readers, opened evenly over `OPEN_SECONDS`."""
    began = time.monotonic()

    async def one(index: int, reader: Reader) -> None:
        await asyncio.sleep(OPEN_SECONDS * index / len(readers))
        await reader.read(port, began)

    tasks = [asyncio.create_task(one(*pair)) for pair in enumerate(readers)]
    normal = [task for task, reader in zip(tasks, readers, strict=True) if reader.kind != "deaf"]
    await asyncio.gather(*normal)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


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


def gaps(readers: Sequence[Reader]) -> float:
    """The 99th percentile of the seconds between a normal client's events."""
    between = sorted(
        b - a
        for reader in readers
        if reader.kind == "normal"
        for a, b in zip(reader.arrivals, reader.arrivals[1:], strict=False)
    )
    return between[int(0.99 * len(between))]


def judge(name: str, readers: Sequence[Reader], right: Sequence[str]) -> None:
    """Print how the cycle went."""
    normal = [reader for reader in readers if reader.kind == "normal"]
    whole = sum(
        reader.sha256 == hashlib.sha256(reader.text.encode()).hexdigest() == right[reader.seed] for reader in normal
    )
    firsts = sorted(reader.arrivals[0] - reader.opened for reader in normal if reader.arrivals)
    ends = [reader.arrivals[-1] for reader in normal if reader.arrivals]
    print(f"{name}: {whole} of {len(normal)} texts whole and right by SHA-256, in {max(ends):.1f} s")
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
    await cycle(port, [Reader(seed, 400) for seed in range(settings.slots)])  # warm
    chance = random.Random(0)
    for name in ("first cycle", "second cycle", "disturbed cycle"):
        readers = [Reader(seed, settings.characters) for seed in range(settings.streams)]
        if name == "disturbed cycle":
            for place, reader in enumerate(chance.sample(readers, settings.streams // 5)):
                reader.kind = "deaf" if place % 2 else "dropping"
        memory = Memory(pid, resident(pid))
        watching = asyncio.create_task(memory.watch(readers))
        await cycle(port, readers)
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
    right = truths(settings)
    flags = [f"--checkpoint={settings.checkpoint}", f"--slots={settings.slots}", f"--queue_size={DROPPED + 1}"]
    with serving(*flags) as (pid, port):
        asyncio.run(measure(settings, pid, port, right))


if __name__ == "__main__":
    sys.exit(run(LoadSettings, main, sys.argv[1:]))
