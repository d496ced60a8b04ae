"""HTTP clients that record what arrives and when, the texts that they should receive, and a server for them.

Shared by `benchmarks.load`, `benchmarks.soak`, `benchmarks.faults` and `benchmarks.attacks`.
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
    """One client: requests the text of a seed, and records what arrives. Times are seconds since `began`."""

    seed: int
    characters: int
    disconnect_at: int | None = None  # characters after which it disconnects; another `read` resumes there
    never_reads: bool = False
    fields: dict[str, Any] = field(default_factory=dict)  # of its request, beside or instead of those of all
    text: str = ""
    opened: float = 0.0
    started: float | None = None  # when the `start` event arrived
    arrivals: list[float] = field(default_factory=list)  # of the `text` events
    last_event_id: str = ""
    checkpoint: str = ""  # as the `start` event names it
    sha256: str = ""  # as the `done` event has it
    error: int | None = None  # status of an `error` event

    @property
    def digest(self) -> str:
        """SHA-256 of the text received so far."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    async def read(self, port: int, began: float) -> None:
        """Request the text, or the rest of it, and read to its end or to where this client disconnects.

        Raises:
            ConnectionError: the server refused, or the body ended too early.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        common = {"prompt": PROMPT, "seed": self.seed, "max_new_tokens": self.characters}
        body = json.dumps(common | self.fields).encode()
        head = (
            f"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        )
        resumed = f"\r\nlast-event-id: {self.last_event_id}" if self.last_event_id else ""
        writer.write(f"{head}{resumed}\r\nconnection: close\r\n\r\n".encode() + body)
        self.opened = time.monotonic() - began
        self.error = None
        try:
            if self.never_reads:
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
            elif name == "data" and self._record(event, json.loads(value), time.monotonic() - began):
                return
        raise ConnectionError("the body ended without a last event")

    def _record(self, event: str, data: dict[str, Any], now: float) -> bool:
        """Record an event; return True if it is the last that this client reads."""
        if event == "start":
            self.started = now
            self.checkpoint = data["checkpoint"]
        elif event == "text":
            self.arrivals.append(now)
            self.text += data["text"]
            return self.disconnect_at is not None and len(self.text) >= self.disconnect_at
        elif event == "done":
            self.sha256 = data["samples"][0]["sha256"]
        elif event == "error":
            self.error = data["status"]
        return event in ("done", "error")


def expected_texts(folder: Path, seeds: int, characters: int) -> list[str]:
    """The text of each seed from 0 on, by the generator without a server."""
    checkpoint = read_checkpoint(folder)
    generator = load_generator(checkpoint, choose_numerics("cpu", "auto"), 64)
    prompt = checkpoint.vocabulary.encode(PROMPT)
    sequences = [
        TextSequence(checkpoint.vocabulary, prompt, seed=seed, max_new_tokens=characters) for seed in range(seeds)
    ]
    texts = dict.fromkeys(sequences, "")
    waiting = list(sequences)
    active: list[TextSequence] = []
    while waiting or active:
        while waiting and generator.free_slots:
            sequence = waiting.pop()
            active.append(sequence)
            generator.add(sequence)
        for sequence, chunk in generator.step(active):
            texts[sequence] += chunk.text
            if chunk.finish_reason:
                active.remove(sequence)
    return [texts[sequence] for sequence in sequences]


@contextmanager
def serving(
    *flags: str, port: int = 0, log: Path = Path(os.devnull), folder: Path | None = None
) -> Iterator[tuple[int, int]]:
    """Run `python -m app`, on a free port by default; yield its process id and port. Its log goes into `log`.

    `folder` is the checkout whose server it is, the current folder by default.
    """
    command = [sys.executable, "-m", "app", f"--port={port}", "--device=cpu", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=folder)
    assert process.stderr is not None
    try:
        address = None
        while address is None:
            line = process.stderr.readline()
            assert line, "the server did not start"
            address = re.search(rb"running on http://\S+:(\d+)", line)
        with log.open("ab") as file, subprocess.Popen(["cat"], stdin=process.stderr, stdout=file):
            yield process.pid, int(address[1])
            process.terminate()
            process.wait(30)
    finally:
        process.kill()
        process.communicate()


def alive(pid: int) -> bool:
    """Whether a child process of this one is still running."""
    status = Path(f"/proc/{pid}/status").read_text()
    return "State:\tZ" not in status


def resident_bytes(pid: int) -> int:
    """The resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return 1024 * int(line.split()[1])
    raise ProcessLookupError(pid)


async def run_readers(port: int, readers: Sequence[Reader], opened_over: float) -> None:
    """Run all readers until those that read have ended; a reader whose connection breaks has no `sha256`.

    Args:
        opened_over: seconds over which the connections are opened, evenly.
    """
    began = time.monotonic()

    async def run_one(index: int, reader: Reader) -> None:
        await asyncio.sleep(opened_over * index / len(readers))
        await reader.read(port, began)

    tasks = [asyncio.create_task(run_one(index, reader)) for index, reader in enumerate(readers)]
    ending = [task for task, reader in zip(tasks, readers, strict=True) if not reader.never_reads]
    await asyncio.gather(*ending, return_exceptions=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
