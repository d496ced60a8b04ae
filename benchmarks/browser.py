"""Whether the browser's engine writes the server's texts, and how fast it does.

python -m benchmarks.browser [--checkpoint=DIR] [--receipts=1000] [--reference_receipts=100] [--rounds=3]

Receipts of random requests (prompts, temperatures, filters, stop strings, several samples; a fifth of the
bundled model, the others of a smaller one and of a small network with learned positions) are written again by
`model.verify` with another number of threads, by WebAssembly in Node, in Chromium and in Firefox, and by the
reference in Node. Then the same text is written by all of them and by the server's generator with one thread,
in turns, so that the ratios hold whatever else runs. Then the page is timed from the click to the first
character, and its memory measured.

Needs Node, and Chromium (its path in CHROMIUM, or on the path) with Playwright. Without Firefox (FIREFOX, or on the
path) nothing is written there.
"""

import hashlib
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import Field
from pydantic_settings import BaseSettings
from tqdm import tqdm

from benchmarks.browser_engines import (
    chromium_page,
    firefox,
    write_in_chromium,
    write_in_firefox,
    write_in_node,
)
from benchmarks.browser_page import measure_page
from model.browser_weights import browser_weights
from model.checkpoint import Checkpoint, identity_of, read_checkpoint
from model.cli import run, settings_config
from model.config import GPTConfig
from model.device import Numerics
from model.errors import InputError
from model.generation.generator import Generator, load_generator
from model.generation.receipt import Digest, Parameters, Receipt
from model.network import GPT
from model.verify import verify_sample
from model.vocabulary import Vocabulary
from model.weights import from_tensors

INT8 = Numerics("cpu", "int8")
BUNDLED = "bundled"
SMALLER = "smaller"
LEARNED = "learned"  # positions
MODELS = (BUNDLED, SMALLER, LEARNED, SMALLER, LEARNED)  # of receipts, by their numbers
SPEED_LENGTH = 600  # characters: past the window of the bundled model
REFERENCE_LENGTH = 60
# https://github.com/karpathy/llama2.c/pull/370, on an M1 MacBook Air, of 2023; a token is a few characters.
LLAMA2_C = "published of llama2.c in WebAssembly: about 80 tokens/s of stories15M (its pull request 370, an M1)"


class BenchmarkSettings(BaseSettings):
    """Compare the browser's engine with the server's."""

    model_config = settings_config("benchmarks.browser", "SOLILOQUY_BENCHMARK_")

    checkpoint: Path = Path("checkpoints/shakespeare-char")
    """Checkpoint folder"""
    smaller: Path = Path("checkpoints/shakespeare-char-snapshots/000800")
    """Checkpoint folder of a smaller model"""
    receipts: int = Field(1000, ge=0)
    """Texts to write again"""
    first: int = Field(0, ge=0)
    """Number of the first of them, to go on with a run that was made in pieces"""
    models: str = f"{BUNDLED},{SMALLER},{LEARNED}"
    """Whose receipts are written again"""
    reference_receipts: int | None = Field(None, ge=0)
    """How many of the bundled model's the JavaScript reference writes again, which takes long; all if not given"""
    other_node: str = ""
    """Command of one more Node, such as one for another CPU: 'qemu-aarch64 -L FOLDER FOLDER/usr/bin/node'"""
    other_receipts: int | None = Field(None, ge=0)
    """How many of each model's it writes again; all if not given"""
    rounds: int = Field(3, ge=0)
    """Times that everything takes its turn when speeds are measured; 0: they are not"""
    page: bool = True
    """Measure how long the page takes until its first character, and its memory"""
    seed: int = Field(0, ge=0)
    """Of the random requests"""


class Case(NamedTuple):
    """A receipt, and its request as the engine takes it."""

    receipt: Receipt
    request: dict[str, Any]


def learned_checkpoint(vocabulary: Vocabulary) -> Checkpoint:
    """A small network with learned positions, LayerNorm, GELU and biases, of random weights."""
    torch.manual_seed(0)
    config = GPTConfig(len(vocabulary), n_layer=3, n_head=3, n_embd=96, block_size=64, bias=True)
    weights = from_tensors({name: 8 * tensor for name, tensor in GPT(config).state_dict().items()})
    return Checkpoint(config, vocabulary, weights, {}, identity_of(config, vocabulary, weights))


def random_request(chance: random.Random, vocabulary: Vocabulary, text: str) -> dict[str, Any]:
    """A request of any kind that a user may send."""
    start = chance.randrange(len(text) - 400)
    length = chance.choice([1, 5, 20, 20, 60, 300])
    characters = vocabulary.characters
    stop = chance.choice([[], [], ["\n"], [".", "and "], ["".join(chance.choices(characters, k=2))]])
    parameters = {
        "prompt": text[start : start + length],
        "max_new_tokens": chance.choice([5, 20, 40]),
        "temperature": chance.choice([0, 0.5, 0.8, round(chance.uniform(0.1, 2), 3)]),
        "top_k": chance.choice([None, 200, 1, 12]),
        "top_p": chance.choice([None, None, 0.9, round(chance.random(), 3)]),
        "min_p": chance.choice([None, None, 0.02, round(chance.random(), 3)]),
        "num_samples": chance.choice([1, 1, 1, 2, 3]),
        "stop": stop,
    }
    return {"seed": chance.randrange(1 << 53), "parameters": parameters}


def long_request(checkpoint: Checkpoint, length: int) -> dict[str, Any]:
    """A request for one unfiltered text."""
    parameters = {
        "prompt": checkpoint.vocabulary.default_prompt,
        "max_new_tokens": length,
        "temperature": 0.8,
        "top_k": None,
        "top_p": None,
        "min_p": None,
        "num_samples": 1,
        "stop": [],
    }
    return {"seed": 1337, "parameters": parameters}


def receipt_of(checkpoint: Checkpoint, request: dict[str, Any]) -> Receipt:
    """A receipt without digests."""
    parameters = Parameters(**request["parameters"])
    return Receipt(
        checkpoint=checkpoint.identity,
        numerics=INT8.name,
        seed=request["seed"],
        parameters=parameters,
        samples=[],
    )


def write_on_server(generator: Generator, checkpoint: Checkpoint, request: dict[str, Any]) -> list[str]:
    """The texts of the server's generator."""
    texts = []
    for sequence in receipt_of(checkpoint, request).sequences(checkpoint.vocabulary):
        texts.append("".join(chunk.text for chunk in generator.write(sequence)))
    return texts


def make_case(generator: Generator, checkpoint: Checkpoint, request: dict[str, Any]) -> Case:
    """The receipt that the server gives for a request."""
    digests = []
    for index, text in enumerate(write_on_server(generator, checkpoint, request)):
        digests.append(Digest(index=index, sha256=hashlib.sha256(text.encode()).hexdigest()))
    return Case(receipt_of(checkpoint, request).model_copy(update={"samples": digests}), request)


def is_verified(generator: Generator, checkpoint: Checkpoint, case: Case) -> bool:
    """Whether `model.verify` finds a receipt's texts identical."""
    sequences = case.receipt.sequences(checkpoint.vocabulary)
    return all(map(verify_sample, [generator] * len(sequences), sequences, case.receipt.samples))


def count_identical(cases: list[Case], answers: Any) -> int:
    """How many receipts have the digests of what was written."""
    identical = 0
    for case, answer in zip(cases, answers, strict=True):
        written = [hashlib.sha256(text.encode()).hexdigest() for text, _ in answer["samples"]]
        identical += written == [digest.sha256 for digest in case.receipt.samples]
    return identical


def compare_receipts(settings: BenchmarkSettings, checkpoint: Checkpoint, folder: Path) -> None:
    """Write receipts of several models again in all ways; print how many are identical."""
    generator = load_generator(checkpoint, INT8, slots=1, threads=1)
    [text] = write_on_server(generator, checkpoint, long_request(checkpoint, 4000))  # prompts are passages of it
    models = {
        BUNDLED: checkpoint,
        SMALLER: read_checkpoint(settings.smaller, with_index=False),
        LEARNED: learned_checkpoint(checkpoint.vocabulary),
    }
    for name, one in models.items():
        if name not in settings.models.split(","):
            continue
        generator = load_generator(one, INT8, slots=1, threads=1)
        cases = []
        for number in tqdm(range(settings.first, settings.first + settings.receipts), disable=None):
            if MODELS[number % len(MODELS)] == name:
                # A request depends on its number alone, so that a long run can be made in pieces.
                chance = random.Random(f"{settings.seed} {number}")
                cases.append(make_case(generator, one, random_request(chance, one.vocabulary, text)))
        print(f"\n{len(cases)} receipts from number {settings.first}, {name} model; identical:", flush=True)
        verifier = load_generator(one, INT8, slots=1, threads=2)
        print_count("model.verify", sum(is_verified(verifier, one, case) for case in cases), len(cases))
        weights = folder / name
        weights.write_bytes(browser_weights(one))
        compare_engines(settings, cases, weights, settings.reference_receipts if name == BUNDLED else None)


def compare_engines(
    settings: BenchmarkSettings, cases: list[Case], weights: Path, reference_receipts: int | None
) -> None:
    """Write one model's receipts again with the browser's engine, everywhere; not all of them by the reference."""
    requests = [case.request for case in cases]
    print_identical("WebAssembly, Node", cases, write_in_node("node", "wasm", weights, requests))
    with chromium_page(weights) as page:
        print_identical("WebAssembly, Chromium", cases, write_in_chromium(page, requests))
    if path := firefox():
        print_identical("WebAssembly, Firefox", cases, write_in_firefox(path, weights, requests))
    if settings.other_node:
        count = settings.other_receipts
        answers = write_in_node(settings.other_node, "wasm", weights, requests[:count])
        print_identical("WebAssembly, other Node", cases[:count], answers)
    some = cases[:reference_receipts]
    answers = write_in_node("node", "reference", weights, requests[:reference_receipts])
    print_identical("reference, Node", some, answers)


def print_identical(name: str, cases: list[Case], answers: Any) -> None:
    """Print how many receipts have the digests of what was written."""
    print_count(name, count_identical(cases, answers), len(cases))


def print_count(name: str, identical: int, of: int) -> None:
    """Print a line at once: the next one may take minutes."""
    print(f"  {name:23} {identical} of {of}", flush=True)


def rate_of(answers: Any) -> float:
    """Characters a second of the last answer: those before it have warmed the engine up."""
    last = answers[-1]
    seconds: float = last["milliseconds"] / 1000
    return sum(len(text) for text, _ in last["samples"]) / seconds


def compare_speeds(settings: BenchmarkSettings, checkpoint: Checkpoint, folder: Path) -> None:
    """Write one text in all ways, in turns; print characters a second."""
    weights = folder / "speed"
    weights.write_bytes(browser_weights(checkpoint))
    without_draft = Checkpoint(checkpoint.config, checkpoint.vocabulary, checkpoint.weights, {})
    servers = {
        "server, 1 thread": load_generator(checkpoint, INT8, slots=1, threads=1),
        "server, 1 thread, no drafts": load_generator(without_draft, INT8, slots=1, threads=1),
    }
    pair = [long_request(checkpoint, SPEED_LENGTH)] * 2
    short = [long_request(checkpoint, REFERENCE_LENGTH)] * 2
    rates: dict[str, list[float]] = {}
    with chromium_page(weights) as page:
        ways: dict[str, Callable[[], Any]] = {
            "Chromium": partial(write_in_chromium, page, pair),
            "Chromium, no drafts": partial(write_in_chromium, page, pair, drafts=False),
            "reference in Chromium": partial(write_in_chromium, page, short, engine="reference"),
            "Node": partial(write_in_node, "node", "wasm", weights, pair),
            "Node, no drafts": partial(write_in_node, "node", "wasm", weights, pair, "--no-draft"),
            "reference in Node": partial(write_in_node, "node", "reference", weights, short),
        }
        for _ in range(settings.rounds):
            for name, generator in servers.items():
                for _ in range(2):
                    began = time.perf_counter()
                    write_on_server(generator, checkpoint, pair[0])
                    rate = SPEED_LENGTH / (time.perf_counter() - began)
                rates.setdefault(name, []).append(rate)
            for name, write in ways.items():
                rates.setdefault(name, []).append(rate_of(write()))
    base = statistics.median(rates["server, 1 thread, no drafts"])
    load = os.getloadavg()[0]
    print(f"\none text, characters a second (of the server's with one thread and no drafts); load {load:.1f}:")
    for name, found in rates.items():
        middle = statistics.median(found)
        print(f"  {name:28} {middle:7.0f}  {middle / base:6.2f}  ({min(found):.0f} to {max(found):.0f})")
    print(f"  {LLAMA2_C}")


def compare(settings: BenchmarkSettings) -> None:
    """Compare texts, then speeds."""
    checkpoint = read_checkpoint(settings.checkpoint, with_index=False)
    if not shutil.which("node"):
        raise InputError("node", "is not on the path")
    with tempfile.TemporaryDirectory() as folder:
        if settings.receipts:
            compare_receipts(settings, checkpoint, Path(folder))
        if settings.rounds:
            compare_speeds(settings, checkpoint, Path(folder))
    if settings.page:
        measure_page(settings.checkpoint)


if __name__ == "__main__":
    sys.exit(run(BenchmarkSettings, compare, sys.argv[1:]))
