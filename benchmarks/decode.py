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
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from pydantic_settings import BaseSettings

from benchmarks.peers import NANOGPT, PEERS, Peer, nanogpt_network
from model.checkpoint import Checkpoint, read_checkpoint
from model.cli import run, settings_config
from model.device import DeviceName, GenerationDtypeName, Numerics, choose_numerics
from model.generation.generator import Generator, load_generator
from model.generation.sequence import TextSequence
from model.vocabulary import Vocabulary

SHORT = 250  # characters that fit nanoGPT's window after a short prompt
LEAST = 1000  # in a turn beside peers
WARM = 8
PAUSE = 0.5  # seconds before a turn beside peers: the last turn's threads go on spinning for a while
BESIDE_PEERS = {"cpu": (1, 32), "cuda": (1, 512)}  # streams
ALONE = ((1, 1000), (1, 2000), (8, 1000), (32, 500), (128, 250))  # streams, and characters in each
ALSO = {"cuda": ((512, 500), (512, 2000))}


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
    """Threads of int8; all usable cores if not given"""
    rounds: int = Field(3, ge=1)
    """Times that everything takes its turn"""
    peers: bool = True
    """Also those of the peers that are installed"""
    plot: Path | None = None
    """File to draw Soliloquy and its peers to (.png or .svg)"""


Rates = dict[str, list[float]]


def write_all(generator: Generator, streams: list[TextSequence]) -> float:
    """Characters a second of these streams in all, their prompts included."""
    began, writing = time.perf_counter(), list(streams)
    for stream in streams:
        generator.add(stream)
    while writing:
        ended = {stream for stream, piece in generator.step(writing) if piece.finish_reason}
        writing = [stream for stream in writing if stream not in ended]
    return sum(len(stream.written) for stream in streams) / (time.perf_counter() - began)


def make_sequences(vocabulary: Vocabulary, count: int, length: int, prompt: str = "") -> list[TextSequence]:
    """Streams that differ by their sample's number."""
    ids = vocabulary.encode(prompt or vocabulary.default_prompt)
    return [TextSequence(vocabulary, ids, sample=sample, max_new_tokens=length) for sample in range(count)]


def beside_peers(settings: BenchmarkSettings, numerics: Numerics, folder: Path) -> None:
    """One and many streams of nanoGPT's network, by every program in turn."""
    network, vocabulary = nanogpt_network(), Vocabulary(chr(32 + i) for i in range(65))
    checkpoint = Checkpoint(network.config, vocabulary, network.state_dict(), {})
    counts = BESIDE_PEERS[numerics.device.type]
    ours = load_generator(checkpoint, numerics, max(counts), settings.threads)
    show_flatness(ours, vocabulary, settings.rounds)
    peers, measured = open_peers(folder, numerics.device.type), dict[int, Rates]()
    for count in counts:
        rates: Rates = {"Soliloquy": []}
        texts = max(1, LEAST // (count * SHORT))
        for _ in range(settings.rounds):
            time.sleep(PAUSE)
            write_all(ours, make_sequences(vocabulary, count, WARM, " "))
            turns = [write_all(ours, make_sequences(vocabulary, count, SHORT, " ")) for _ in range(texts)]
            rates["Soliloquy"].append(statistics.harmonic_mean(turns))
            for name in [name for name in peers if count != 32 or name != NANOGPT]:
                time.sleep(PAUSE)
                try:
                    rates.setdefault(name, []).append(rate_of(peers[name], count, texts, name == NANOGPT))
                except (BrokenProcessPool, RuntimeError) as error:
                    print(f"{name}: failed at {count} stream(s) ({error or type(error).__name__})")
                    del peers[name], rates[name]
        print(f"\n{texts} x {count} stream(s) of {SHORT} characters, nanoGPT's network")
        show(rates, "Soliloquy")
        measured[count] = rates
    if settings.plot:
        draw(measured, settings.plot)


def open_peers(folder: Path, device: str) -> dict[str, Peer]:
    """Those that are installed."""
    peers = {}
    for name in PEERS[device]:
        try:
            peers[name] = Peer(name, Path(tempfile.mkdtemp(dir=folder)), device)
        except ImportError as error:
            print(f"{name}: not installed ({error.name})")
    return peers


def rate_of(peer: Peer, count: int, texts: int, full: bool) -> float:
    """Characters a second of texts one after another; with a full window, as nanoGPT's mostly is, short ones."""
    prompts, length = ([[1] * 256] * count, 60) if full else ([[1]] * count, SHORT)
    peer.rate(prompts, WARM if peer.device == "cpu" else length)  # another length would be compiled anew
    return statistics.harmonic_mean([peer.rate(prompts, length) for _ in range(texts)])


def of_checkpoint(settings: BenchmarkSettings, checkpoint: Checkpoint, numerics: Numerics) -> None:
    """One stream with and without guesses, many streams, long ones, and the first character's wait."""
    began = time.perf_counter()
    work = (*ALONE, *ALSO.get(numerics.device.type, ()))
    generator = load_generator(checkpoint, numerics, max(count for count, _ in work), settings.threads)
    print(
        f"\ncheckpoint {checkpoint.identity[:12]}, {numerics.name}, loaded in {time.perf_counter() - began:.1f} s"
    )
    draft, vocabulary = generator.draft, checkpoint.vocabulary
    rates: Rates = {}
    for _ in range(settings.rounds):
        for count, length in work:
            rates.setdefault(f"{count} stream(s) of {length}", []).append(
                write_all(generator, make_sequences(vocabulary, count, length))
            )
        generator.draft = None
        rates.setdefault("1 stream of 1000 without guesses", []).append(
            write_all(generator, make_sequences(vocabulary, 1, 1000))
        )
        generator.draft = draft
    show(rates, "1 stream of 1000 without guesses")
    roofline(generator, statistics.median(rates["1 stream of 1000 without guesses"]))
    for length in (1, 256, 2000):
        waits = [first_wait(generator, vocabulary, length) for _ in range(5 * settings.rounds)]
        print(f"first character after a prompt of {length:4}: {1e3 * statistics.median(waits):6.1f} ms")
    generator.draft = None
    show_flatness(generator, vocabulary, settings.rounds)
    if sys.platform.startswith("linux"):
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        print(f"resident memory: {resident / 1e6:.0f} MB ({generator.backend.slots} slots, and this benchmark)")
    if numerics.device.type == "cuda":
        taken, name = torch.cuda.max_memory_allocated(), torch.cuda.get_device_name()
        print(f"{name}: {taken / 1e6:.0f} MB taken by tensors")


def draw(measured: dict[int, Rates], path: Path) -> None:
    """Bars of the medians, on a logarithmic scale."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional

    figure = Figure(figsize=(8, 2.8), layout="constrained")
    for axes, (count, rates) in zip(figure.subplots(1, len(measured), sharey=True), measured.items(), strict=True):
        names = list(rates)[::-1]
        bars = axes.barh(names, [statistics.median(rates[name]) for name in names], color="#8a8378")
        bars[-1].set_color("#7a2e1d")
        axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
        axes.set_xscale("log")
        axes.set_xlim(10, 60_000)
        axes.set_title(f"{count} stream{'s' * (count > 1)}, characters/s", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def roofline(generator: Generator, rate: float) -> None:
    """What one stream without guesses (at `rate`) takes of what this machine's memory and int8 units can give."""
    from model.backends.cpu import amx  # noqa: PLC0415 - int8 only
    from model.backends.cpu.backend import Int8Backend  # noqa: PLC0415
    from model.backends.cpu.gemm import gemm  # noqa: PLC0415

    if not isinstance(generator.backend, Int8Backend):
        return
    read, threads = generator.backend.bytes_per_step, generator.backend.threads
    words = np.ones(read // threads // 8, dtype=np.int64)  # as much as a step reads, each thread its part
    tiles = amx.request_amx()
    rows = 64 if tiles else 4
    columns, out = np.ones((4, 64, 64), dtype=np.uint8), np.zeros((rows, 64), dtype=np.int32)
    some = np.ones((rows, 256), dtype=np.int8)
    ops = rows * 64 * 256

    @numba.njit(nogil=True)
    def many(x: NDArray[np.int8], c: NDArray[np.uint8], o: NDArray[np.int32], count: int) -> None:
        if tiles:
            amx.configure_tiles()
        for _ in range(count):
            gemm(x, rows, c, 4, 64, o, tiles)
        if tiles:
            amx.release_tiles()

    many(some, columns, out, 1), read_through(words, 1)
    with ThreadPoolExecutor(threads) as pool:
        own = [(words.copy(), out.copy()) for _ in range(threads)]

        def multiply_all() -> None:
            list(pool.map(lambda memory: many(some, columns, memory[1], 10_000), own))

        def read_all() -> None:
            list(pool.map(lambda memory: read_through(memory[0], 50), own))

        bandwidth = 50 * threads * words.nbytes / min(timed_once(read_all) for _ in range(20))
        peak = threads * 10_000 * ops / min(timed_once(multiply_all) for _ in range(5))
    macs = generator.backend.products_per_row
    print(f"{threads} thread(s): memory {bandwidth / 1e9:.0f} GB/s, of which one stream without guesses ", end="")
    print(f"takes {read * rate / bandwidth:.0%}; int8 {peak / 1e9:.0f} GMAC/s, of which {macs * rate / peak:.0%}")


@numba.njit(nogil=True)
def read_through(values: NDArray[np.int64], count: int) -> int:
    """A sum, so that all values are read, so many times."""
    found = 0
    for i in range(count):
        for value in values:
            found += value ^ i
    return found


def timed_once(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def first_wait(generator: Generator, vocabulary: Vocabulary, length: int) -> float:
    """Seconds from a request to its first character."""
    [stream] = make_sequences(vocabulary, 1, 1, ("ROMEO:\n" * length)[:length])
    began = time.perf_counter()
    list(generator.write(stream))
    return time.perf_counter() - began


def show_flatness(generator: Generator, vocabulary: Vocabulary, rounds: int) -> None:
    """Print whether the cost of a character stays the same."""
    costs = sorted(flatness(generator, vocabulary) for _ in range(rounds))
    print(f"{generator.backend.config.positions} positions, without guesses: characters 9,000-10,000 cost ", end="")
    print(f"{statistics.median(costs):.2f} x 300-1,300 ({costs[0]:.2f}-{costs[-1]:.2f})")


def flatness(generator: Generator, vocabulary: Vocabulary) -> float:
    """How much dearer the last thousand of ten thousand characters are than the first after the window is full."""
    [stream] = make_sequences(vocabulary, 1, 10_000, " ")
    times = {}
    for _ in generator.write(stream):
        times[len(stream.written)] = time.perf_counter()

    def cost(first: int, last: int) -> float:
        """Seconds a character; some come together."""
        first, last = (min(place for place in times if place >= near) for near in (first, last))
        return (times[last] - times[first]) / (last - first)

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
    if settings.peers and numerics.device.type in PEERS:
        with tempfile.TemporaryDirectory() as folder:
            beside_peers(settings, numerics, Path(folder))


if __name__ == "__main__":
    sys.exit(run(BenchmarkSettings, main, sys.argv[1:]))
