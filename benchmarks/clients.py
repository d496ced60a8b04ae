"""Clients that note what they get and when, the texts that they should get, and a server of their own to ask.

What `benchmarks.load`, `benchmarks.soak` and `benchmarks.faults` have in common.
"""

import asyncio
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.checkpoint import read_checkpoint
from model.device import choose_numerics
from model.generation.generator import load_generator
from model.generation.sequence import TextSequence

PROMPT = "ROMEO:"


@dataclass
class Reader:
    """One client: asks for the text of a seed, and notes what came when (seconds since `began`).

    `cut_at`: leave after so many characters; read again, it goes on from there. `sha256` is what `done` says,
    `error` what an `error` event says, `checkpoint` what `start` says.
    """

    seed: int
    characters: int
    cut_at: int | None = None
    deaf: bool = False
    text: str = ""
    opened: float = 0.0
    started: float | None = None
    arrivals: list[float] = field(default_factory=list)
    last_event_id: str = ""
    checkpoint: str = ""
    sha256: str = ""
    error: int | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of what has come."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    async def read(self, port: int, began: float) -> None:
        """Open, read to the end, or leave as this client does.

        Raises:
            ConnectionError: the server refused, or the body ended too early.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        body = json.dumps({"prompt": PROMPT, "seed": self.seed, "max_new_tokens": self.characters}).encode()
        head = (
            f"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        )
        resumed = f"\r\nlast-event-id: {self.last_event_id}" if self.last_event_id else ""
        writer.write(f"{head}{resumed}\r\nconnection: close\r\n\r\n".encode() + body)
        self.opened, self.error = time.monotonic() - began, None
        try:
            if self.deaf:
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                await asyncio.sleep(3600)
            await self._read(reader, began)
        finally:
            writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader, began: float) -> None:
        status = await reader.readline()
        if b" 200 " not in status:
            raise ConnectionError(status.decode(errors="replace").strip())
        event = ""
        while line := await reader.readline():
            name, _, value = line.decode().rstrip().partition(": ")
            if name == "event":
                event = value
            elif name == "id":
                self.last_event_id = value
            elif name == "data" and self._take(event, json.loads(value), time.monotonic() - began):
                return
        raise ConnectionError("the body ended without a last event")

    def _take(self, event: str, data: dict[str, Any], now: float) -> bool:
        """Note an event; True if it is the last that this client wants."""
        if event == "start":
            self.started, self.checkpoint = now, data["checkpoint"]
        elif event == "text":
            self.arrivals.append(now)
            self.text += data["text"]
            return self.cut_at is not None and len(self.text) >= self.cut_at
        elif event == "done":
            self.sha256 = data["samples"][0]["sha256"]
        elif event == "error":
            self.error = data["status"]
        return event in ("done", "error")


def truths(folder: Path, seeds: int, characters: int) -> list[str]:
    """The text of each seed from 0 on, by the generator alone."""
    checkpoint = read_checkpoint(folder)
    generator = load_generator(checkpoint, choose_numerics("cpu", "auto"), 64)
    prompt = checkpoint.vocabulary.encode(PROMPT)
    streams = [
        TextSequence(checkpoint.vocabulary, prompt, seed=seed, max_new_tokens=characters) for seed in range(seeds)
    ]
    waiting, texts, active = list(streams), dict.fromkeys(streams, ""), list[TextSequence]()
    while waiting or active:
        while waiting and generator.free_slots:
            active.append(waiting.pop())
            generator.add(active[-1])
        for stream, piece in generator.step(active):
            texts[stream] += piece.text
            if piece.finish_reason:
                active.remove(stream)
    return [texts[stream] for stream in streams]


@contextmanager
def serving(*flags: str, port: int = 0, log: Path = Path(os.devnull)) -> Iterator[tuple[int, int]]:
    """`python -m app`, on a free port by default: its process id and port. What it says goes into `log`."""
    command = [sys.executable, "-m", "app", f"--port={port}", "--device=cpu", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stderr is not None
    try:
        first = next(filter(None, (re.search(rb"running on http://\S+:(\d+)", line) for line in process.stderr)))
        with log.open("ab") as file, subprocess.Popen(["cat"], stdin=process.stderr, stdout=file):
            yield process.pid, int(first[1])
            process.terminate()
            process.wait(30)
    finally:
        process.kill()
        process.communicate()


def alive(pid: int) -> bool:
    """False once a process of ours has ended."""
    status = Path(f"/proc/{pid}/status").read_text()
    return "State:\tZ" not in status


def resident(pid: int) -> int:
    """Bytes of memory that the process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


async def cycle(port: int, readers: Sequence[Reader], opened_over: float) -> None:
    """All readers, opened evenly over so many seconds. Whose connection breaks has no `sha256`."""
    began = time.monotonic()

    async def one(index: int, reader: Reader) -> None:
        await asyncio.sleep(opened_over * index / len(readers))
        await reader.read(port, began)

    tasks = [asyncio.create_task(one(*pair)) for pair in enumerate(readers)]
    normal = [task for task, reader in zip(tasks, readers, strict=True) if not reader.deaf]
    await asyncio.gather(*normal, return_exceptions=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
