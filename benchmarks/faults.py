"""What faults cost clients: cut connections, a killed server, a stopped one, a hot swap, a failed step.

python -m benchmarks.faults [--checkpoint=DIR] [--other=DIR] [--cuts=200]

Servers are processes of their own, except for the failed step, whose fault must be put into the server's memory.
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
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from pydantic_settings import BaseSettings

from app.settings import ServerSettings
from benchmarks.clients import Reader, alive, expected_texts, run_readers, serving
from benchmarks.serve import running
from model.cli import run, settings_config

CHARACTERS = 600
MEDIUM_CHARACTERS = 3000  # of a stream that may end while the server drains
ENDLESS_CHARACTERS = 100_000  # of one that does not
DRAIN_SECONDS = 5


class FaultSettings(BaseSettings):
    """Break servers of the benchmark's own on this machine."""

    model_config = settings_config("benchmarks.faults", "")

    checkpoint: Path = Path("checkpoints/shakespeare-char")
    """Checkpoint folder"""
    other: Path = Path("checkpoints/shakespeare-char-snapshots/000800")
    """Checkpoint folder to change to"""
    cuts: int = Field(200, ge=1)
    """Texts that are cut once at random"""


async def cut_and_resumed(settings: FaultSettings, port: int, expected: Sequence[str]) -> None:
    """Disconnect clients at random positions, and resume."""
    random_numbers = random.Random(0)
    readers = [Reader(seed, CHARACTERS, random_numbers.randint(1, CHARACTERS - 1)) for seed in range(settings.cuts)]
    await run_readers(port, readers, 2)
    for reader in readers:
        reader.disconnect_at = None
    await run_readers(port, readers, 2)
    same = sum(reader.text == expected[reader.seed] and reader.sha256 == reader.digest for reader in readers)
    print(f"cuts: {same} of {settings.cuts} resumed texts are the undisturbed ones")


async def killed(settings: FaultSettings, expected: Sequence[str]) -> None:
    """Kill a server while it writes, start it again on the same port, and resume."""
    readers = [Reader(seed, CHARACTERS) for seed in range(min(50, settings.cuts))]
    flag = f"--checkpoint={settings.checkpoint}"
    with serving(flag) as (pid, port):
        reading = asyncio.create_task(run_readers(port, readers, 0.1))
        while sum(bool(reader.arrivals) for reader in readers) < len(readers) / 2:
            await asyncio.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        await asyncio.gather(reading, return_exceptions=True)
    began = time.monotonic()
    with serving(flag, port=port):
        ready = time.monotonic() - began
        cut = sum(not reader.sha256 for reader in readers)
        await run_readers(port, [reader for reader in readers if not reader.sha256], 0.1)
    same = sum(reader.text == expected[reader.seed] and reader.sha256 == reader.digest for reader in readers)
    print(
        f"kill -9: {cut} texts cut; ready again after {ready:.1f} s; {same} of {len(readers)} are the undisturbed"
    )


async def stopped(settings: FaultSettings) -> None:
    """Send SIGTERM to a server with a hundred running streams and fifty queued ones."""
    flags = [
        f"--checkpoint={settings.checkpoint}",
        "--slots=100",
        "--queue_size=50",
        f"--drain_seconds={DRAIN_SECONDS}",
    ]
    with serving(*flags) as (pid, port):
        live = [Reader(seed, MEDIUM_CHARACTERS if seed % 2 else ENDLESS_CHARACTERS) for seed in range(100)]
        queued = [Reader(seed, 1000) for seed in range(50)]
        reading = [asyncio.create_task(run_readers(port, live, 1))]
        while not all(reader.arrivals for reader in live):
            await asyncio.sleep(0.01)
        reading.append(asyncio.create_task(run_readers(port, queued, 0.5)))
        while not all(reader.started for reader in queued):
            await asyncio.sleep(0.01)
        began = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        await asyncio.gather(*reading)
        last_stream_ended = time.monotonic() - began
        while alive(pid):
            await asyncio.sleep(0.01)
        process_ended = time.monotonic() - began
    done = sum(bool(reader.sha256) for reader in live)
    ended = sum(reader.error == 503 for reader in live)
    refused = sum(reader.error == 503 for reader in queued)
    print(f"SIGTERM: of 100 live streams {done} done, {ended} ended by an error event; {refused} of 50 that")
    print(
        f"  waited were told; the last after {last_stream_ended:.2f} s, the process gone after "
        f"{process_ended:.2f} s of {DRAIN_SECONDS} to drain"
    )


async def changed(settings: FaultSettings) -> None:
    """Swap the checkpoint under load, there and back."""
    count = 64
    expected = {
        folder: expected_texts(folder, count, CHARACTERS) for folder in (settings.checkpoint, settings.other)
    }
    with tempfile.TemporaryDirectory() as folder_of_server:
        served = Path(folder_of_server) / "served"
        shutil.copytree(settings.checkpoint, served)
        readers: list[Reader] = []
        stop = asyncio.Event()

        async def read_repeatedly(first_seed: int) -> None:
            while not stop.is_set():
                for seed in range(first_seed, count, 16):
                    reader = Reader(seed, CHARACTERS)
                    readers.append(reader)
                    await reader.read(port, time.monotonic())

        with serving(f"--checkpoint={served}") as (pid, port):
            reading = [asyncio.create_task(read_repeatedly(first_seed)) for first_seed in range(16)]
            for folder in (settings.other, settings.checkpoint):
                await asyncio.sleep(5)
                shutil.copytree(folder, served.with_name("next"))
                shutil.rmtree(served)
                served.with_name("next").rename(served)
                os.kill(pid, signal.SIGHUP)
            await asyncio.sleep(5)
            stop.set()
            results = await asyncio.gather(*reading, return_exceptions=True)
    names = list(dict.fromkeys(reader.checkpoint for reader in readers))
    texts = dict(zip(names, expected.values(), strict=True))
    same = sum(reader.text == texts[reader.checkpoint][reader.seed] for reader in readers)
    failed = sum(result is not None for result in results)
    longest_gap = 0.0
    for reader in readers:
        for before, after in pairwise(reader.arrivals):
            longest_gap = max(longest_gap, after - before)
    print(
        f"SIGHUP twice under load: {len(readers)} requests, {failed} failed; {same} texts whole from the checkpoint"
    )
    print(f"  of their `start` ({', '.join(names)}); longest silence in a stream {longest_gap:.2f} s")


async def failed_step(settings: FaultSettings) -> None:
    """Put NaN into the KV cache of 32 streams, so that the logits of the next step are NaN."""
    with running(ServerSettings(checkpoint=settings.checkpoint, port=0, device="cpu")) as server:
        port = server.servers[0].sockets[0].getsockname()[1]
        readers = [Reader(seed, ENDLESS_CHARACTERS) for seed in range(32)]
        reading = asyncio.create_task(run_readers(port, readers, 0.1))
        while not all(reader.arrivals for reader in readers):
            await asyncio.sleep(0.01)
        backend: Any = server.engine.generator.backend
        began = time.monotonic()
        backend._cache.scales.fill(np.nan)  # of keys and values that the next step reads
        await reading
        all_ended = time.monotonic() - began
        following = Reader(0, 1)
        await following.read(port, began)
        errors = sum(reader.error == 500 for reader in readers)
        print(f"NaN in a step: {errors} of 32 streams ended by an error event within {all_ended:.2f} s; ", end="")
        print(f"the next text began after {following.arrivals[0]:.2f} s")


async def measure(settings: FaultSettings) -> None:
    """Cause one fault after another."""
    expected = expected_texts(settings.checkpoint, settings.cuts, CHARACTERS)
    with serving(f"--checkpoint={settings.checkpoint}", f"--queue_size={settings.cuts}") as (_, port):
        await cut_and_resumed(settings, port, expected)
    await killed(settings, expected)
    await stopped(settings)
    await changed(settings)
    await failed_step(settings)


def main(settings: FaultSettings) -> None:
    """Break and print."""
    asyncio.run(measure(settings))


if __name__ == "__main__":
    sys.exit(run(FaultSettings, main, sys.argv[1:]))
