"""Half an hour near the server's capacity: does memory grow, do descriptors leak, does a task fail unnoticed?

python -m benchmarks.soak [--minutes=30] [--load=0.8] [--checkpoint=DIR]

The server is a process of its own. Its capacity is measured first; then clients arrive at random (a Poisson
process), so many that they request `load` of it: streams of all lengths, some cut and resumed, some refused, some
by OpenAI's API.
"""

import asyncio
import json
import random
import re
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field
from pydantic_settings import BaseSettings

from benchmarks.clients import PROMPT, Reader, resident_bytes, run_readers, serving
from model.cli import run, settings_config

CAPACITY_CLIENTS = 64
MEAN_CHARACTERS = 300
WARM_UP_SHARE = 0.2  # of the time, in which memory is not judged


class SoakSettings(BaseSettings):
    """Keep a server of its own busy and watch it."""

    model_config = settings_config("benchmarks.soak", "")

    checkpoint: Path = Path("checkpoints/shakespeare-char")
    """Checkpoint folder"""
    minutes: float = Field(30.0, gt=0)
    """How long"""
    load: float = Field(0.8, gt=0, le=1)
    """Share of the server's capacity that is asked for"""


class RandomClients:
    """Clients that arrive at random, and the outcomes of their requests."""

    def __init__(self, port: int, model: str, characters_per_second: float) -> None:
        self.port = port
        self.model = model
        self.arrivals_per_second = characters_per_second / MEAN_CHARACTERS
        self.outcomes: Counter[str] = Counter()
        self.characters = 0
        self._random = random.Random(0)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, until: float) -> None:
        """Let clients arrive until this time, and wait for the last to end."""
        while time.monotonic() < until:
            await asyncio.sleep(self._random.expovariate(self.arrivals_per_second))
            task = asyncio.create_task(self._run_one())
            self._tasks.add(task)
            task.add_done_callback(self._on_end)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.exception() is not None:
            self.outcomes[f"failed: {task.exception()}"] += 1

    async def _run_one(self) -> None:
        """Run one client.

        5 % are refused, 5 % score a text, 10 % use OpenAI's API; 15 % disconnect, about half of which resume.
        """
        kind = self._random.random()
        seed = self._random.randrange(1 << 32)
        length = 1 + int(self._random.expovariate(1 / MEAN_CHARACTERS))
        if kind < 0.05:
            await self._post("refused", "/generate", {"prompt": "Größe", "temperature": -1})
        elif kind < 0.10:
            await self._post("scored", "/score", {"text": "Wherefore art thou Romeo?\n" * 8})
        elif kind < 0.20:
            request = {"model": self.model, "prompt": PROMPT, "max_tokens": length, "seed": seed, "stream": True}
            await self._post("by OpenAI's API", "/v1/completions", request)
        else:
            reader = Reader(seed, length, self._random.randint(1, length) if kind < 0.35 else None)
            await reader.read(self.port, time.monotonic())
            if reader.disconnect_at is not None and kind < 0.28:
                reader.disconnect_at = None
                await reader.read(self.port, time.monotonic())
            self.characters += len(reader.text)
            whole = "whole" if reader.sha256 == reader.digest else "not whole"
            self.outcomes["cut" if reader.disconnect_at is not None else whole] += 1

    async def _post(self, name: str, path: str, request: dict[str, Any]) -> None:
        """Send a request, read the whole response and count its status."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        body = json.dumps(request).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        writer.write(f"{head}\r\nconnection: close\r\n\r\n".encode() + body)
        status = (await reader.read()).split(b" ", 2)[1].decode()
        writer.close()
        self.outcomes[f"{name} ({status})"] += 1


async def capacity(port: int) -> float:
    """Characters a second that many clients get together; measured twice, the first time as a warm-up."""
    for _ in range(2):
        readers = [Reader(seed, 1000) for seed in range(CAPACITY_CLIENTS)]
        began = time.monotonic()
        await run_readers(port, readers, 0.5)
        seconds = time.monotonic() - began
    return sum(len(reader.text) for reader in readers) / seconds


def open_descriptors(pid: int) -> int:
    """How many files and sockets the process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


class MemorySample(NamedTuple):
    """The server's memory at one time."""

    seconds: float
    resident_bytes: int


async def watch(pid: int, samples: list[MemorySample]) -> None:
    """Append a sample every few seconds, until cancelled."""
    while True:
        samples.append(MemorySample(time.monotonic(), resident_bytes(pid)))
        await asyncio.sleep(5)


def print_memory(samples: list[MemorySample], warm_until: float) -> None:
    """Print the slope after the warm-up, by least squares, with its standard error."""
    warm = [sample for sample in samples if sample.seconds >= warm_until]
    seconds = np.array([sample.seconds for sample in warm])
    hours = (seconds - seconds[0]) / 3600
    mebibytes = np.array([sample.resident_bytes for sample in warm]) / 2**20
    (slope, start), covariance = np.polyfit(hours, mebibytes, 1, cov=True)
    print(f"memory after the warm-up: {start:.1f} MiB, {mebibytes.min():.1f}-{mebibytes.max():.1f}")
    print(
        f"slope: {slope:+.2f} MiB an hour, standard error {np.sqrt(covariance[0, 0]):.2f} (of independent samples)"
    )


async def soak(settings: SoakSettings, pid: int, port: int) -> None:
    """Measure the capacity, then keep the server busy."""
    characters_per_second = await capacity(port)
    await asyncio.sleep(1)
    descriptors_before = open_descriptors(pid)
    began = time.monotonic()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models") as models:
        model = json.load(models)["data"][0]["id"]
    clients = RandomClients(port, model, settings.load * characters_per_second)
    samples: list[MemorySample] = []
    watching = asyncio.create_task(watch(pid, samples))
    seconds = 60 * settings.minutes
    await clients.run(began + seconds)
    watching.cancel()
    await asyncio.sleep(20)  # connections that are kept for a next request end
    print(
        f"capacity {characters_per_second:,.0f} characters/s; asked for {settings.load:.0%} of it for "
        f"{settings.minutes:g} minutes"
    )
    print(f"clients: {dict(clients.outcomes.most_common())}; {clients.characters:,} characters read as events")
    print_memory(samples, began + WARM_UP_SHARE * seconds)
    print(f"file descriptors: {descriptors_before} before, {open_descriptors(pid)} after")


def main(settings: SoakSettings) -> None:
    """Soak and print."""
    with tempfile.NamedTemporaryFile() as log:
        with serving(f"--checkpoint={settings.checkpoint}", log=Path(log.name)) as (pid, port):
            asyncio.run(soak(settings, pid, port))
        lines = Path(log.name).read_text(errors="replace")
    found = re.findall(r"Traceback|never retrieved|Task exception|Exception in", lines)
    print(f"tracebacks and unretrieved exceptions in the server's log: {len(found)}")


if __name__ == "__main__":
    sys.exit(run(SoakSettings, main, sys.argv[1:]))
