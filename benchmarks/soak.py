"""Half an hour near the limit: does memory grow, do descriptors leak, does any task die unheard?

python -m benchmarks.soak [--minutes=30] [--load=0.8] [--checkpoint=DIR]

The server is a process of its own. What it can write is measured first; then clients come by chance, so many that
they ask for `load` of that: streams of all lengths, some cut and resumed, some refused, some by OpenAI's API.
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
from typing import Any

import numpy as np
from pydantic import Field
from pydantic_settings import BaseSettings

from benchmarks.clients import PROMPT, Reader, cycle, resident, serving
from model.cli import run, settings_config

CLIENTS = 64  # that measure the capacity
MEAN_CHARACTERS = 300
WARM_SHARE = 0.2  # of the time, before memory is looked at


class SoakSettings(BaseSettings):
    """Keep a server of its own busy and watch it."""

    model_config = settings_config("benchmarks.soak", "")

    checkpoint: Path = Path("checkpoints/shakespeare-char")
    """Checkpoint folder"""
    minutes: float = Field(30.0, gt=0)
    """How long"""
    load: float = Field(0.8, gt=0, le=1)
    """Share of the server's capacity that is asked for"""


class Crowd:
    """Clients that come by chance, and what became of them."""

    def __init__(self, port: int, model: str, characters_per_second: float) -> None:
        self.port, self.model, self.rate = port, model, characters_per_second / MEAN_CHARACTERS
        self.outcomes: Counter[str] = Counter()
        self.characters = 0
        self._chance = random.Random(0)
        self._tasks: set[asyncio.Task[None]] = set()

    async def come(self, until: float) -> None:
        """Let clients come until then, and wait for the last to leave."""
        while time.monotonic() < until:
            await asyncio.sleep(self._chance.expovariate(self.rate))
            task = asyncio.create_task(self._one())
            self._tasks.add(task)
            task.add_done_callback(self._left)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.exception() is not None:
            self.outcomes[f"failed: {task.exception()}"] += 1

    async def _one(self) -> None:
        kind = self._chance.random()
        seed, length = self._chance.randrange(1 << 32), 1 + int(self._chance.expovariate(1 / MEAN_CHARACTERS))
        if kind < 0.05:
            await self._ask("refused", "/generate", {"prompt": "Größe", "temperature": -1})
        elif kind < 0.10:
            await self._ask("scored", "/score", {"text": "Wherefore art thou Romeo?\n" * 8})
        elif kind < 0.20:
            asked = {"model": self.model, "prompt": PROMPT, "max_tokens": length, "seed": seed, "stream": True}
            await self._ask("by OpenAI's API", "/v1/completions", asked)
        else:
            reader = Reader(seed, length, self._chance.randint(1, length) if kind < 0.35 else None)
            await reader.read(self.port, time.monotonic())
            if reader.cut_at is not None and kind < 0.28:
                reader.cut_at = None
                await reader.read(self.port, time.monotonic())
            self.characters += len(reader.text)
            whole = "whole" if reader.sha256 == reader.digest else "not whole"
            self.outcomes["cut" if reader.cut_at is not None else whole] += 1

    async def _ask(self, name: str, path: str, asked: dict[str, Any]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        body = json.dumps(asked).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        writer.write(f"{head}\r\nconnection: close\r\n\r\n".encode() + body)
        status = (await reader.read()).split(b" ", 2)[1].decode()
        writer.close()
        self.outcomes[f"{name} ({status})"] += 1


async def capacity(port: int) -> float:
    """Characters a second that many clients get together, the second time."""
    for _ in range(2):
        readers = [Reader(seed, 1000) for seed in range(CLIENTS)]
        began = time.monotonic()
        await cycle(port, readers, 0.5)
        seconds = time.monotonic() - began
    return sum(len(reader.text) for reader in readers) / seconds


def descriptors(pid: int) -> int:
    """How many files and sockets the process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def watch(pid: int, samples: list[tuple[float, int]]) -> None:
    """Note time (seconds) and memory (bytes) every few seconds."""
    while True:
        samples.append((time.monotonic(), resident(pid)))
        await asyncio.sleep(5)


def tell_memory(samples: list[tuple[float, int]], warm_until: float) -> None:
    """The slope after the warm-up, by least squares, with its standard error."""
    times, sizes = np.array([one for one in samples if one[0] >= warm_until], dtype=float).T
    hours, mebibytes = (times - times[0]) / 3600, sizes / 2**20
    (slope, start), covariance = np.polyfit(hours, mebibytes, 1, cov=True)
    print(f"memory after the warm-up: {start:.1f} MiB, {mebibytes.min():.1f}-{mebibytes.max():.1f}")
    print(
        f"slope: {slope:+.2f} MiB an hour, standard error {np.sqrt(covariance[0, 0]):.2f} (of independent samples)"
    )


async def soak(settings: SoakSettings, pid: int, port: int) -> None:
    """Measure the capacity, then keep the server busy."""
    most = await capacity(port)
    await asyncio.sleep(1)
    before, began = descriptors(pid), time.monotonic()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models") as models:
        model = json.load(models)["data"][0]["id"]
    crowd, samples = Crowd(port, model, settings.load * most), list[tuple[float, int]]()
    watching = asyncio.create_task(watch(pid, samples))
    seconds = 60 * settings.minutes
    await crowd.come(began + seconds)
    watching.cancel()
    await asyncio.sleep(20)  # connections that are kept for a next request end
    print(
        f"capacity {most:,.0f} characters/s; asked for {settings.load:.0%} of it for {settings.minutes:g} minutes"
    )
    print(f"clients: {dict(crowd.outcomes.most_common())}; {crowd.characters:,} characters read as events")
    tell_memory(samples, began + WARM_SHARE * seconds)
    print(f"file descriptors: {before} before, {descriptors(pid)} after")


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
