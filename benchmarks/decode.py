"""Characters a second of the bare generator, alone and compared with its peers on the same weights, in one run.

python -m benchmarks.decode [--checkpoint=DIR] [--device=cpu] [--rounds=3] [--peers=False] [--cpu=haswell]

Soliloquy and its peers are compared on a network of nanoGPT's shape, within its 256 positions. The other figures
are of the checkpoint. The programs take turns, so that the ratios hold whatever else the machine does; a figure is
the median of the rounds, with the lowest and the highest.

`--cpu` compiles for another CPU's instructions, as far as this machine has them, so that one machine shows what
others would do. PyTorch and the peers still use all that there are.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Literal, NamedTuple

import llvmlite.binding
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
from model.errors import InputError
from model.generation.generator import Generator, load_generator
from model.generation.sequence import TextSequence
from model.vocabulary import Vocabulary
from model.weights import from_tensors

PEER_LENGTH = 250  # characters, which fit nanoGPT's window after a short prompt
MIN_PEER_CHARACTERS = 1000  # in one measurement
WARM_UP_LENGTH = 8  # characters
PAUSE_SECONDS = 0.5  # before a measurement: threads of the program before go on spinning for a while
PEER_BATCHES = {"cpu": (1, 32), "cuda": (1, 512)}  # sequences at once
# What a machine must have to run code that is compiled for these.
CPU_FEATURES = {"haswell": ("avx2", "bmi2"), "znver3": ("avx2", "vaes"), "alderlake": ("avxvnni",)}
UNASSISTED = "1 stream of 1000 without speculation"


class Load(NamedTuple):
    """Sequences at once, and the characters of each."""

    sequences: int
    length: int


LOADS = (Load(1, 1000), Load(1, 2000), Load(8, 1000), Load(32, 500), Load(128, 250))
GPU_LOADS = (Load(512, 500), Load(512, 2000))


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
    cpu: Literal["native", "haswell", "znver3", "alderlake"] = "native"
    """CPU whose instructions int8 may use"""
    plot: Path | None = None
    """File to draw Soliloquy and its peers to (.png or .svg)"""


Rates = dict[str, list[float]]


def write_all(generator: Generator, sequences: list[TextSequence]) -> float:
    """Characters a second of these sequences together, the time to read their prompts included."""
    began = time.perf_counter()
    for sequence in sequences:
        generator.add(sequence)
    active = list(sequences)
    while active:
        ended = {sequence for sequence, chunk in generator.step(active) if chunk.finish_reason}
        active = [sequence for sequence in active if sequence not in ended]
    return sum(len(sequence.written) for sequence in sequences) / (time.perf_counter() - began)


def make_sequences(vocabulary: Vocabulary, count: int, length: int, prompt: str = "") -> list[TextSequence]:
    """Sequences of one prompt that differ by their sample's number."""
    ids = vocabulary.encode(prompt or vocabulary.default_prompt)
    return [TextSequence(vocabulary, ids, sample=sample, max_new_tokens=length) for sample in range(count)]


def compare_with_peers(settings: BenchmarkSettings, numerics: Numerics, folder: Path) -> None:
    """Write one and many texts at once with nanoGPT's network, by every program in turn."""
    network = nanogpt_network()
    vocabulary = Vocabulary(chr(32 + i) for i in range(65))
    checkpoint = Checkpoint(network.config, vocabulary, from_tensors(network.state_dict()), {})
    counts = PEER_BATCHES[numerics.device_type]
    ours = load_generator(checkpoint, numerics, max(counts), settings.threads)
    show_flatness(ours, vocabulary, settings.rounds)
    peers = open_peers(folder, numerics.device_type)
    measured: dict[int, Rates] = {}
    for count in counts:
        rates: Rates = {"Soliloquy": []}
        repeats = max(1, MIN_PEER_CHARACTERS // (count * PEER_LENGTH))
        for _ in range(settings.rounds):
            time.sleep(PAUSE_SECONDS)
            write_all(ours, make_sequences(vocabulary, count, WARM_UP_LENGTH, " "))
            own_rates = [
                write_all(ours, make_sequences(vocabulary, count, PEER_LENGTH, " ")) for _ in range(repeats)
            ]
            rates["Soliloquy"].append(statistics.harmonic_mean(own_rates))
            for name in list(peers):
                if name == NANOGPT and count == 32:  # too slow on a CPU
                    continue
                time.sleep(PAUSE_SECONDS)
                try:
                    rates.setdefault(name, []).append(rate_of(peers[name], count, repeats, name == NANOGPT))
                except (BrokenProcessPool, RuntimeError) as error:
                    print(f"{name}: failed at {count} stream(s) ({error or type(error).__name__})")
                    del peers[name]
                    del rates[name]
        print(f"\n{repeats} x {count} stream(s) of {PEER_LENGTH} characters, nanoGPT's network")
        show(rates, "Soliloquy")
        measured[count] = rates
    if settings.plot:
        draw(measured, settings.plot)


def open_peers(folder: Path, device: str) -> dict[str, Peer]:
    """The peers that are installed, each in its process."""
    peers: dict[str, Peer] = {}
    for name in PEERS[device]:
        try:
            peers[name] = Peer(name, Path(tempfile.mkdtemp(dir=folder)), device)
        except ImportError as error:
            print(f"{name}: not installed ({error.name})")
    return peers


def rate_of(peer: Peer, count: int, repeats: int, full_window: bool) -> float:
    """Characters a second of a peer, the mean of several measurements.

    Args:
        full_window: fill the window before, as it mostly is in nanoGPT, and write a shorter text.
    """
    prompt = [1] * 256 if full_window else [1]
    length = 60 if full_window else PEER_LENGTH
    prompts = [prompt] * count
    peer.rate(prompts, WARM_UP_LENGTH if peer.device == "cpu" else length)  # a GPU would compile for each length
    return statistics.harmonic_mean([peer.rate(prompts, length) for _ in range(repeats)])


def measure_checkpoint(settings: BenchmarkSettings, checkpoint: Checkpoint, numerics: Numerics) -> None:
    """Measure one stream with and without speculation, many and long streams, the first character's latency."""
    began = time.perf_counter()
    loads = LOADS + GPU_LOADS if numerics.device_type == "cuda" else LOADS
    slots = max(load.sequences for load in loads)
    generator = load_generator(checkpoint, numerics, slots, settings.threads)
    print(
        f"\ncheckpoint {checkpoint.identity[:12]}, {numerics.name}, loaded in {time.perf_counter() - began:.1f} s"
    )
    draft = generator.draft
    vocabulary = checkpoint.vocabulary
    rates: Rates = {}
    for _ in range(settings.rounds):
        for load in loads:
            rate = write_all(generator, make_sequences(vocabulary, load.sequences, load.length))
            rates.setdefault(f"{load.sequences} stream(s) of {load.length}", []).append(rate)
        generator.draft = None
        rate = write_all(generator, make_sequences(vocabulary, 1, 1000))
        rates.setdefault(UNASSISTED, []).append(rate)
        generator.draft = draft
    show(rates, UNASSISTED)
    show_roofline(generator, statistics.median(rates[UNASSISTED]))
    for length in (1, 256, 2000):
        latencies = [first_latency(generator, vocabulary, length) for _ in range(5 * settings.rounds)]
        print(f"first character after a prompt of {length:4}: {1e3 * statistics.median(latencies):6.1f} ms")
    generator.draft = None
    show_flatness(generator, vocabulary, settings.rounds)
    if sys.platform.startswith("linux"):
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        print(f"resident memory: {resident / 1e6:.0f} MB ({generator.backend.slots} slots, and this benchmark)")
    if numerics.device_type == "cuda":
        allocated = torch.cuda.max_memory_allocated()
        print(f"{torch.cuda.get_device_name()}: {allocated / 1e6:.0f} MB taken by tensors")


def draw(measured: dict[int, Rates], path: Path) -> None:
    """Draw the medians as bars, on a logarithmic scale, into a file."""
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


def show_roofline(generator: Generator, rate: float) -> None:
    """Print what share of the machine's memory bandwidth and int8 peak one stream without speculation uses.

    Args:
        rate: the stream's characters a second.
    """
    from model.backends.cpu import amx  # noqa: PLC0415 - int8 only
    from model.backends.cpu.backend import Int8Backend  # noqa: PLC0415
    from model.backends.cpu.gemm import gemm  # noqa: PLC0415
    from model.backends.cpu.microkernel import CPU_FAMILY  # noqa: PLC0415

    if not isinstance(generator.backend, Int8Backend):
        return
    bytes_per_step = generator.backend.bytes_per_step
    threads = generator.backend.threads
    words = np.ones(bytes_per_step // threads // 8, dtype=np.int64)  # what one thread reads in a step
    tiles = amx.request_amx()
    rows = 64 if tiles else 4
    columns = np.ones((4, 64, 64), dtype=np.uint8)
    out = np.zeros((rows, 64), dtype=np.int32)
    inputs = np.ones((rows, 256), dtype=CPU_FAMILY.row_dtype)
    macs_per_product = rows * 64 * 256

    @numba.njit(nogil=True)
    def multiply_repeatedly(
        x: NDArray[np.signedinteger[Any]], c: NDArray[np.uint8], o: NDArray[np.int32], count: int
    ) -> None:
        if tiles:
            amx.configure_tiles()
        for _ in range(count):
            gemm(x, rows, c, 4, 64, o, tiles, 0)
        if tiles:
            amx.release_tiles()

    multiply_repeatedly(inputs, columns, out, 1)  # compiles it
    read_through(words, 1)
    words_of_threads = [words.copy() for _ in range(threads)]
    outputs_of_threads = [out.copy() for _ in range(threads)]

    def multiply_in_thread(out_of_thread: NDArray[np.int32]) -> None:
        multiply_repeatedly(inputs, columns, out_of_thread, 10_000)

    def read_in_thread(words_of_thread: NDArray[np.int64]) -> None:
        read_through(words_of_thread, 50)

    with ThreadPoolExecutor(threads) as pool:

        def multiply_all() -> None:
            list(pool.map(multiply_in_thread, outputs_of_threads))

        def read_all() -> None:
            list(pool.map(read_in_thread, words_of_threads))

        bandwidth = 50 * threads * words.nbytes / min(seconds_of(read_all) for _ in range(20))
        peak = threads * 10_000 * macs_per_product / min(seconds_of(multiply_all) for _ in range(5))
    macs = generator.backend.products_per_row
    print(
        f"{threads} thread(s): memory {bandwidth / 1e9:.0f} GB/s, of which one stream without speculation ", end=""
    )
    print(f"takes {bytes_per_step * rate / bandwidth:.0%}; ", end="")
    print(f"int8 {peak / 1e9:.0f} GMAC/s, of which {macs * rate / peak:.0%}")


@numba.njit(nogil=True)
def read_through(values: NDArray[np.int64], count: int) -> int:
    """Read all values `count` times; return a sum that depends on them, so that no read is optimised away."""
    total = 0
    for i in range(count):
        for value in values:
            total += value ^ i
    return total


def seconds_of(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def first_latency(generator: Generator, vocabulary: Vocabulary, length: int) -> float:
    """Seconds from a request with a prompt of `length` characters to its first character."""
    [sequence] = make_sequences(vocabulary, 1, 1, ("ROMEO:\n" * length)[:length])
    began = time.perf_counter()
    list(generator.write(sequence))
    return time.perf_counter() - began


def show_flatness(generator: Generator, vocabulary: Vocabulary, rounds: int) -> None:
    """Print whether the cost of a character stays the same."""
    costs = sorted(flatness(generator, vocabulary) for _ in range(rounds))
    positions = generator.backend.config.positions
    print(f"{positions} positions, without speculation: characters 9,000-10,000 cost ", end="")
    print(f"{statistics.median(costs):.2f} x 300-1,300 ({costs[0]:.2f}-{costs[-1]:.2f})")


def flatness(generator: Generator, vocabulary: Vocabulary) -> float:
    """The cost of the last thousand of ten thousand characters over that of a thousand after the window is full."""
    [sequence] = make_sequences(vocabulary, 1, 10_000, " ")
    times: dict[int, float] = {}  # by the number of characters written; several may be written in one step
    for _ in generator.write(sequence):
        times[len(sequence.written)] = time.perf_counter()

    def seconds_per_character(near_first: int, near_last: int) -> float:
        first = min(count for count in times if count >= near_first)
        last = min(count for count in times if count >= near_last)
        return (times[last] - times[first]) / (last - first)

    return seconds_per_character(9000, 10_000) / seconds_per_character(300, 1300)


def show(rates: Rates, base: str) -> None:
    """Print a table of rates, with the ratio of the base's rate to each, by rounds."""
    for name, measured in rates.items():
        comparison = ""
        if name != base:
            ratios = sorted(base_rate / rate for rate, base_rate in zip(measured, rates[base], strict=True))
            comparison = f"{base}: {statistics.median(ratios):6.2f} x ({ratios[0]:.2f}-{ratios[-1]:.2f})"
        spread = f"({min(measured):,.0f}-{max(measured):,.0f})"
        print(f"{name:36} {statistics.median(measured):9,.0f} characters/s {spread}  {comparison}", flush=True)


def restart_for_cpu(cpu: str) -> int:
    """Run this program again with code for another CPU, in a fresh process; return its exit code.

    Raises:
        InputError: this machine lacks instructions of that CPU.
    """
    features = llvmlite.binding.get_host_cpu_features()
    missing = [feature for feature in CPU_FEATURES[cpu] if not features.get(feature)]
    if missing:
        raise InputError("cpu", f"{cpu} needs {', '.join(missing)}, which this machine does not have")
    command = [sys.executable, "-m", "benchmarks.decode", *sys.argv[1:]]
    return subprocess.run(command, env=os.environ | {"NUMBA_CPU_NAME": cpu}, check=False).returncode


def show_machine() -> None:
    """Print this machine's CPU and the instructions that products are made of."""
    from model.backends.cpu.amx import has_amx  # noqa: PLC0415 - int8 only
    from model.backends.cpu.microkernel import CPU_FAMILY  # noqa: PLC0415

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    compiled_for = os.environ.get("NUMBA_CPU_NAME") or llvmlite.binding.get_host_cpu_name()
    products = f"AMX and {CPU_FAMILY.name}" if has_amx() else CPU_FAMILY.name
    print(f"{name}, {os.cpu_count()} core(s); compiled for {compiled_for}: int8 products by {products}")


def main(settings: BenchmarkSettings) -> None:
    """Measure and print."""
    if settings.cpu != "native" and os.environ.get("NUMBA_CPU_NAME") != settings.cpu:
        sys.exit(restart_for_cpu(settings.cpu))
    show_machine()
    checkpoint = read_checkpoint(settings.checkpoint)
    numerics = choose_numerics(settings.device, settings.dtype)
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    measure_checkpoint(settings, checkpoint, numerics)
    if settings.peers and numerics.device_type in PEERS:
        with tempfile.TemporaryDirectory() as folder:
            compare_with_peers(settings, numerics, Path(folder))


if __name__ == "__main__":
    sys.exit(run(BenchmarkSettings, main, sys.argv[1:]))
