"""Characters a second of the bare generator, alone and beside its peers on the same weights, all in one run.

python -m benchmarks.decode [--checkpoint=DIR] [--device=cpu] [--rounds=3] [--peers=False]

The peers write with a network of nanoGPT's shape, within its 256 positions; so does Soliloquy beside them. The rest
is of the checkpoint. Everything takes turns, so that the ratios hold whatever else the machine does; a figure is
the median of the rounds, beside the lowest and the highest.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import Field
from pydantic_settings import BaseSettings

from benchmarks.peers import PEERS
from model.checkpoint import Checkpoint, read_checkpoint
from model.cli import run, settings_config
from model.config import GPTConfig
from model.device import DeviceName, GenerationDtypeName, Numerics, choose_numerics
from model.generator import Generator, load_generator
from model.network import GPT
from model.stream import Stream
from model.vocabulary import Vocabulary

SHORT = 250  # characters that fit nanoGPT's window after a short prompt
BESIDE_PEERS = (1, 32)


class BenchmarkSettings(BaseSettings):
    """Measure generation."""

    model_config = settings_config("benchmarks.decode", "SOLILOQUY_BENCHMARK_")

    checkpoint: Path = Path("checkpoints/shakespeare-char")
    """Checkpoint folder"""
    device: DeviceName = "auto"
    """Where to compute"""
    dtype: GenerationDtypeName = "auto"
    """Number format"""
    threads: int | None = None
    """Threads of int8; all cores if not given"""
    rounds: int = Field(3, ge=1)
    """Times that everything takes its turn"""
    peers: bool = True
    """Also those of the peers that are installed (on a CPU)"""


Rates = dict[str, list[float]]


def write_all(generator: Generator, streams: list[Stream]) -> float:
    """Characters a second of these streams in all, their prompts included."""
    began, writing = time.perf_counter(), list(streams)
    for stream in streams:
        generator.add(stream)
    while writing:
        ended = {stream for stream, piece in generator.step(writing) if piece.finish_reason}
        writing = [stream for stream in writing if stream not in ended]
    return sum(len(stream.written) for stream in streams) / (time.perf_counter() - began)


def make_streams(vocabulary: Vocabulary, count: int, length: int, prompt: str = "\n") -> list[Stream]:
    """Streams that differ by their sample's number."""
    ids = vocabulary.encode(prompt)
    return [Stream(vocabulary, ids, sample=sample, max_new_tokens=length) for sample in range(count)]


def beside_peers(settings: BenchmarkSettings, numerics: Numerics, folder: Path) -> None:
    """One and many streams of nanoGPT's network, by every program in turn."""
    torch.manual_seed(0)
    network = GPT(GPTConfig(65)).eval().requires_grad_(False)
    vocabulary = Vocabulary(chr(32 + i) for i in range(65))
    checkpoint = Checkpoint(network.config, vocabulary, network.state_dict(), {})
    ours = load_generator(checkpoint, numerics, max(BESIDE_PEERS), settings.threads)
    programs: dict[str, Callable[[int, int], float]] = {
        "Soliloquy": lambda count, length: write_all(ours, make_streams(vocabulary, count, length, " "))
    }
    for name, make in PEERS.items():
        try:
            programs[name] = timed(make(network, folder))
        except ImportError as error:
            print(f"{name}: not installed ({error.name})")
    for count in BESIDE_PEERS:
        rates: Rates = {name: [] for name in programs}
        for _ in range(settings.rounds):
            for name, write in programs.items():
                if name == "nanoGPT's algorithm":
                    if count == 1:
                        rates[name].append(write(1, 60))
                    continue
                write(count, 8)  # warm
                rates[name].append(write(count, SHORT))
        print(f"\n{count} stream(s) of {SHORT} characters, nanoGPT's network")
        show({name: one for name, one in rates.items() if one}, "Soliloquy")


def timed(write: Callable[[list[list[int]], int], None]) -> Callable[[int, int], float]:
    """Characters a second of a peer. nanoGPT's window is full from the beginning, as it mostly is."""

    def measure(count: int, length: int) -> float:
        prompt = [1] * (256 if length == 60 else 1)
        began = time.perf_counter()
        write([prompt] * count, length)
        return count * length / (time.perf_counter() - began)

    return measure


def of_checkpoint(settings: BenchmarkSettings, checkpoint: Checkpoint, numerics: Numerics) -> None:
    """One stream with and without guesses, many streams, long ones, and the first character's wait."""
    began = time.perf_counter()
    generator = load_generator(checkpoint, numerics, 128, settings.threads)
    print(
        f"\ncheckpoint {checkpoint.identity[:12]}, {numerics.name}, loaded in {time.perf_counter() - began:.1f} s"
    )
    draft, vocabulary = generator.draft, checkpoint.vocabulary
    rates: Rates = {}
    for _ in range(settings.rounds):
        for count, length in ((1, 1000), (1, 2000), (8, 1000), (32, 500), (128, 250)):
            rates.setdefault(f"{count} stream(s) of {length}", []).append(
                write_all(generator, make_streams(vocabulary, count, length))
            )
        generator.draft = None
        rates.setdefault("1 stream of 1000 without guesses", []).append(
            write_all(generator, make_streams(vocabulary, 1, 1000))
        )
        generator.draft = draft
    show(rates, "1 stream of 1000 without guesses")
    for length in (1, 256, 2000):
        waits = [first_wait(generator, vocabulary, length) for _ in range(5 * settings.rounds)]
        print(f"first character after a prompt of {length:4}: {1e3 * statistics.median(waits):6.1f} ms")
    generator.draft = None
    costs = sorted(flatness(generator, vocabulary) for _ in range(settings.rounds))
    print(f"without guesses, characters 9,000-10,000 cost {statistics.median(costs):.2f} x 300-1,300", end="")
    print(f" ({costs[0]:.2f}-{costs[-1]:.2f})")
    if sys.platform.startswith("linux"):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        print(f"resident memory: {pages * os.sysconf('SC_PAGE_SIZE') / 1e6:.0f} MB (128 slots, and this benchmark)")


def first_wait(generator: Generator, vocabulary: Vocabulary, length: int) -> float:
    """Seconds from a request to its first character."""
    [stream] = make_streams(vocabulary, 1, 1, ("ROMEO:\n" * length)[:length])
    began = time.perf_counter()
    list(generator.write(stream))
    return time.perf_counter() - began


def flatness(generator: Generator, vocabulary: Vocabulary) -> float:
    """How much dearer the last thousand of ten thousand characters are than the first after the window is full."""
    [stream] = make_streams(vocabulary, 1, 10_000)
    times = {}
    for _ in generator.write(stream):
        times[len(stream.written)] = time.perf_counter()

    def cost(first: int, last: int) -> float:
        return times[last] - times[min(place for place in times if place >= first)]

    return cost(9000, 10_000) / cost(300, 1300)


def show(rates: Rates, base: str) -> None:
    """A table with ratios of the base's rate to each, by rounds."""
    for name, one in rates.items():
        ratios = sorted(b / a for a, b in zip(one, rates[base], strict=True))
        ratio = (
            f"{base}: {statistics.median(ratios):6.2f} x ({ratios[0]:.2f}-{ratios[-1]:.2f})" if name != base else ""
        )
        low, high = min(one), max(one)
        print(
            f"{name:34} {statistics.median(one):9,.0f} characters/s ({low:,.0f}-{high:,.0f})  {ratio}", flush=True
        )


def main(settings: BenchmarkSettings) -> None:
    """Measure and print."""
    checkpoint = read_checkpoint(settings.checkpoint)
    numerics = choose_numerics(settings.device, settings.dtype)
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    of_checkpoint(settings, checkpoint, numerics)
    if settings.peers and numerics.device.type == "cpu":
        with tempfile.TemporaryDirectory() as folder:
            beside_peers(settings, numerics, Path(folder))


if __name__ == "__main__":
    sys.exit(run(BenchmarkSettings, main, sys.argv[1:]))
