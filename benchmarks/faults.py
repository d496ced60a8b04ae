"""What faults cost clients: cuts, a kill, a stop, a change of the checkpoint, a failed step.

python -m benchmarks.faults [--checkpoint=DIR] [--other=DIR] [--cuts=200]

Servers are processes of their own, but for the failed step, which needs a hand inside.
"""

import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from pydantic_settings import BaseSettings

from app.settings import ServerSettings
from benchmarks.clients import Reader, alive, cycle, serving, truths
from benchmarks.serve import running
from model.cli import run, settings_config

CHARACTERS = 600
LONG = 3000
DRAIN = 5


class FaultSettings(BaseSettings):
    """Break servers of the benchmark's own on this machine."""

    model_config = settings_config("benchmarks.faults", "")

    checkpoint: Path = Path("checkpoints/shakespeare-char")
    """Checkpoint folder"""
    other: Path = Path("checkpoints/shakespeare-char-snapshots/000800")
    """Checkpoint folder to change to"""
    cuts: int = Field(200, ge=1)
    """Texts that are cut once at random"""


async def cut_and_resumed(settings: FaultSettings, port: int, right: Sequence[str]) -> None:
    """Texts cut at random places and resumed."""
    chance = random.Random(0)
    readers = [Reader(seed, CHARACTERS, chance.randint(1, CHARACTERS - 1)) for seed in range(settings.cuts)]
    await cycle(port, readers, 2)
    for reader in readers:
        reader.cut_at = None
    await cycle(port, readers, 2)
    same = sum(reader.text == right[reader.seed] and reader.sha256 == reader.digest for reader in readers)
    print(f"cuts: {same} of {settings.cuts} resumed texts are the undisturbed ones")


async def killed(settings: FaultSettings, right: Sequence[str]) -> None:
    """A server killed while it writes, and started again on the same port."""
    readers = [Reader(seed, CHARACTERS) for seed in range(min(50, settings.cuts))]
    flag = f"--checkpoint={settings.checkpoint}"
    with serving(flag) as (pid, port):
        reading = asyncio.create_task(cycle(port, readers, 0.1))
        while sum(bool(reader.arrivals) for reader in readers) < len(readers) / 2:
            await asyncio.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        await asyncio.gather(reading, return_exceptions=True)
    began = time.monotonic()
    with serving(flag, port=port):
        ready = time.monotonic() - began
        cut = sum(not reader.sha256 for reader in readers)
        await cycle(port, [reader for reader in readers if not reader.sha256], 0.1)
    same = sum(reader.text == right[reader.seed] and reader.sha256 == reader.digest for reader in readers)
    print(
        f"kill -9: {cut} texts cut; ready again after {ready:.1f} s; {same} of {len(readers)} are the undisturbed"
    )


async def stopped(settings: FaultSettings) -> None:
    """SIGTERM with a hundred live streams and fifty that wait."""
    flags = [f"--checkpoint={settings.checkpoint}", "--slots=100", "--queue_size=50", f"--drain_seconds={DRAIN}"]
    with serving(*flags) as (pid, port):
        live = [Reader(seed, LONG if seed % 2 else 100_000) for seed in range(100)]
        queued = [Reader(seed, 1000) for seed in range(50)]
        reading = [asyncio.create_task(cycle(port, live, 1))]
        while not all(reader.arrivals for reader in live):
            await asyncio.sleep(0.01)
        reading.append(asyncio.create_task(cycle(port, queued, 0.5)))
        while not all(reader.started for reader in queued):
            await asyncio.sleep(0.01)
        began = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        await asyncio.gather(*reading)
        told = time.monotonic() - began
        while alive(pid):
            await asyncio.sleep(0.01)
        gone = time.monotonic() - began
    ends = [sum(bool(reader.sha256) for reader in live), sum(reader.error == 503 for reader in live)]
    turned = sum(reader.error == 503 for reader in queued)
    print(f"SIGTERM: of 100 live streams {ends[0]} done, {ends[1]} ended by an error event; {turned} of 50 that")
    print(
        f"  waited were told; the last after {told:.2f} s, the process gone after {gone:.2f} s of {DRAIN} to drain"
    )


async def changed(settings: FaultSettings) -> None:
    """Another checkpoint under load, there and back."""
    count = 64
    right = {folder: truths(folder, count, CHARACTERS) for folder in (settings.checkpoint, settings.other)}
    with tempfile.TemporaryDirectory() as place:
        served = Path(place) / "served"
        shutil.copytree(settings.checkpoint, served)
        readers: list[Reader] = []
        stop = asyncio.Event()

        async def ask_on(first: int) -> None:
            while not stop.is_set():
                for seed in range(first, count, 16):
                    readers.append(Reader(seed, CHARACTERS))
                    await readers[-1].read(port, time.monotonic())

        with serving(f"--checkpoint={served}") as (pid, port):
            asking = [asyncio.create_task(ask_on(first)) for first in range(16)]
            for folder in (settings.other, settings.checkpoint):
                await asyncio.sleep(5)
                shutil.copytree(folder, served.with_name("next"))
                shutil.rmtree(served)
                served.with_name("next").rename(served)
                os.kill(pid, signal.SIGHUP)
            await asyncio.sleep(5)
            stop.set()
            results = await asyncio.gather(*asking, return_exceptions=True)
    names = list(dict.fromkeys(reader.checkpoint for reader in readers))
    texts = dict(zip(names, right.values(), strict=True))
    same = sum(reader.text == texts[reader.checkpoint][reader.seed] for reader in readers)
    failed = sum(result is not None for result in results)
    gap = max(b - a for one in readers for a, b in zip(one.arrivals, one.arrivals[1:], strict=False))
    print(
        f"SIGHUP twice under load: {len(readers)} requests, {failed} failed; {same} texts whole from the checkpoint"
    )
    print(f"  of their `start` ({', '.join(names)}); longest silence in a stream {gap:.2f} s")


async def failed_step(settings: FaultSettings) -> None:
    """NaN in what a step of 32 streams reads, so in their logits."""
    with running(ServerSettings(checkpoint=settings.checkpoint, port=0, device="cpu")) as server:
        port = server.servers[0].sockets[0].getsockname()[1]
        readers = [Reader(seed, 100_000) for seed in range(32)]
        reading = asyncio.create_task(cycle(port, readers, 0.1))
        while not all(reader.arrivals for reader in readers):
            await asyncio.sleep(0.01)
        backend: Any = server.engine.generator.backend
        began = time.monotonic()
        backend._cache.scales.fill(np.nan)  # of keys and values that the next step reads
        await reading
        told = time.monotonic() - began
        again = Reader(0, 1)
        await again.read(port, began)
        errors = sum(reader.error == 500 for reader in readers)
        print(f"NaN in a step: {errors} of 32 streams ended by an error event within {told:.2f} s; ", end="")
        print(f"the next text began after {again.arrivals[0]:.2f} s")


async def measure(settings: FaultSettings) -> None:
    """One fault after another."""
    right = truths(settings.checkpoint, settings.cuts, CHARACTERS)
    with serving(f"--checkpoint={settings.checkpoint}", f"--queue_size={settings.cuts}") as (_, port):
        await cut_and_resumed(settings, port, right)
    await killed(settings, right)
    await stopped(settings)
    await changed(settings)
    await failed_step(settings)


def main(settings: FaultSettings) -> None:
    """Break and print."""
    asyncio.run(measure(settings))


if __name__ == "__main__":
    sys.exit(run(FaultSettings, main, sys.argv[1:]))
