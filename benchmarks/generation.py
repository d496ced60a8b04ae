"""Characters a second: nanoGPT's way (no cache), then 1, 8 and 32 streams; and whether the cost stays flat.

python -m benchmarks.generation [--checkpoint=DIR] [--device=cpu] [--characters=1000]
"""

import statistics
import sys
import time
from pathlib import Path

import torch
from pydantic import Field
from pydantic_settings import BaseSettings

from model.checkpoint import Checkpoint, read_checkpoint
from model.cli import run, settings_config
from model.device import DeviceName, DtypeName, Numerics, choose_numerics
from model.generator import load_generator
from model.stream import Stream


class BenchmarkSettings(BaseSettings):
    """Measure generation, all in one run, so that the ratios hold whatever else the machine does."""

    model_config = settings_config("benchmarks.generation", "SOLILOQUY_BENCHMARK_")

    checkpoint: Path = Path("checkpoints/shakespeare-char")
    """Checkpoint folder"""
    device: DeviceName = "auto"
    """Where to compute"""
    dtype: DtypeName = "auto"
    """Number format"""
    characters: int = Field(1000, ge=300)
    """Characters to write in each stream"""


def make_stream(checkpoint: Checkpoint, length: int, sample: int = 0) -> Stream:
    """A stream after a prompt that fills the window, so that every character costs the same."""
    prompt = checkpoint.vocabulary.encode("ROMEO:\n" * checkpoint.config.block_size)
    return Stream(checkpoint.vocabulary, prompt, sample=sample, max_new_tokens=length)


def uncached(checkpoint: Checkpoint, numerics: Numerics, length: int) -> float:
    """Characters a second when the whole context is read again for each one."""
    network = checkpoint.network(numerics.dtype).to(numerics.device)
    stream = make_stream(checkpoint, length)
    began = time.perf_counter()
    with torch.inference_mode():
        for _ in range(length):
            context = stream.context(checkpoint.config.block_size)
            logits = network(torch.tensor([context], device=numerics.device))
            stream.accept(logits[0, -1].float().cpu().numpy())
    return length / (time.perf_counter() - began)


def together(checkpoint: Checkpoint, numerics: Numerics, length: int, count: int) -> float:
    """Characters a second of `count` streams in all."""
    generator = load_generator(checkpoint, numerics, count)
    streams = [make_stream(checkpoint, length, sample) for sample in range(count)]
    for stream in streams:
        generator.add(stream)
    began = time.perf_counter()
    while streams:
        ended = [stream for stream, piece in generator.step(streams) if piece.finish_reason]
        streams = [stream for stream in streams if stream not in ended]
    return count * (length - 1) / (time.perf_counter() - began)


def flatness(checkpoint: Checkpoint, numerics: Numerics, length: int) -> float:
    """Median cost of the last 100 characters over that of characters 100 to 200."""
    times = []
    last = time.perf_counter()
    for _ in load_generator(checkpoint, numerics, 1).write(make_stream(checkpoint, length)):
        now = time.perf_counter()
        times.append(now - last)
        last = now
    return statistics.median(times[-100:]) / statistics.median(times[100:200])


def main(settings: BenchmarkSettings) -> None:
    """Measure and print a table."""
    checkpoint = read_checkpoint(settings.checkpoint)
    numerics = choose_numerics(settings.device, settings.dtype)
    print(f"checkpoint {checkpoint.identity[:12]}, {numerics.name}, {settings.characters} characters a stream")
    base = uncached(checkpoint, numerics, settings.characters // 4)
    print(f"no cache, 1 stream   {base:8.0f} characters/s    1.0 x")
    for count in (1, 8, 32):
        rate = together(checkpoint, numerics, settings.characters, count)
        print(f"cache, {count:2} stream(s)  {rate:8.0f} characters/s  {rate / base:5.1f} x")
    ratio = flatness(checkpoint, numerics, settings.characters)
    print(f"cost of the last 100 characters over characters 100-200: {ratio:.2f} x")


if __name__ == "__main__":
    sys.exit(run(BenchmarkSettings, main, sys.argv[1:]))
