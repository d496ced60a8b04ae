"""Whether the browser's engine writes the server's texts, and how fast it does.

python -m benchmarks.browser [--checkpoint=DIR] [--receipts=1000] [--reference_receipts=100] [--rounds=3]

Receipts of random requests (prompts, temperatures, filters, stop strings, several samples; a third of them of a
small network with learned positions) are written again by `model.verify` with another number of threads, by
WebAssembly in Node and in Chromium, and by the JavaScript reference in Node. Then the same text is written by all
of them and by the server's generator with one thread, in turns, so that the ratios hold whatever else runs.

Needs Node, and Chromium (its path in CHROMIUM, or `chromium` on the path) with Playwright.
"""

import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from playwright.sync_api import Page, Route, sync_playwright
from pydantic import Field
from pydantic_settings import BaseSettings
from tqdm import tqdm

from model.browser_weights import browser_weights
from model.checkpoint import Checkpoint, identity_of, read_checkpoint
from model.cli import run, settings_config
from model.config import GPTConfig
from model.device import Numerics
from model.errors import InputError
from model.generation.generator import Generator, load_generator
from model.generation.receipt import Digest, Parameters, Receipt
from model.network import GPT
from model.verify import is_identical
from model.vocabulary import Vocabulary
from model.weights import from_tensors

ROOT = Path(__file__).parent.parent
ENGINE_SCRIPT = ROOT / "tests" / "e2e" / "node" / "engine.mjs"
INT8 = Numerics("cpu", "int8")
SHARE_OF_LEARNED = 3  # every so many receipts, one is of learned positions
SPEED_LENGTH = 600  # characters: past the window of the bundled model
REFERENCE_LENGTH = 60
ORIGIN = "http://engine.test"
MEDIA_TYPES = {".js": "text/javascript", ".wasm": "application/wasm"}
IN_CHROMIUM = """async ({ requests, drafts }) => {
    const load = (path) => import(`/static/engine/${path}.js`);
    const { readWeights } = await load("weights");
    const { readDraft } = await load("draft");
    const { TextGenerator } = await load("generator");
    const { WebAssemblyNetwork } = await load("webassembly");
    globalThis.weights ??= readWeights(await (await fetch("/weights")).arrayBuffer());
    globalThis.network ??= new WebAssemblyNetwork(
        weights, await WebAssembly.compileStreaming(fetch("/static/engine/network.wasm")));
    const generator = new TextGenerator(network, weights.vocabulary, drafts ? readDraft(weights) : null);
    return requests.map(({ seed, parameters }) => {
        const start = performance.now();
        const samples = [];
        for (let sample = 0; sample < parameters.num_samples; sample++) {
            const characters = Array.from(generator.write(parameters, seed, sample)).flat();
            samples.push([characters.map(({ char }) => char).join(""), ""]);
        }
        return { samples, milliseconds: performance.now() - start };
    });
}"""


class BenchmarkSettings(BaseSettings):
    """Compare the browser's engine with the server's."""

    model_config = settings_config("benchmarks.browser", "SOLILOQUY_BENCHMARK_")

    checkpoint: Path = Path("checkpoints/shakespeare-char")
    """Checkpoint folder, of rotary positions"""
    receipts: int = Field(1000, ge=0)
    """Texts to write again"""
    reference_receipts: int | None = Field(None, ge=0)
    """How many of each kind the JavaScript reference writes again, which takes long; all if not given"""
    rounds: int = Field(3, ge=1)
    """Times that everything takes its turn"""
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
    length = chance.choice([1, 5, 20, 300])
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
    return all(map(is_identical, [generator] * len(sequences), sequences, case.receipt.samples))


def write_in_node(engine: str, weights: Path, requests: list[dict[str, Any]], *options: str) -> Any:
    """The answers of the engine in Node."""
    command = ["node", str(ENGINE_SCRIPT), engine, str(weights), *options]
    done = subprocess.run(command, input=json.dumps(requests), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@contextmanager
def chromium_page(weights: Path) -> Iterator[Page]:
    """A page of an origin with the engine's files and the weights."""

    def answer(route: Route) -> None:
        path = route.request.url.removeprefix(ORIGIN)
        if path == "/weights":
            route.fulfill(path=weights)
        elif path.startswith("/static/"):
            file = ROOT / path.removeprefix("/")
            route.fulfill(path=file, content_type=MEDIA_TYPES[file.suffix])
        else:
            route.fulfill(body="<!doctype html>", content_type="text/html")

    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page()
        page.route("**/*", answer)
        page.goto(ORIGIN)
        yield page
        browser.close()


def write_in_chromium(page: Page, requests: list[dict[str, Any]], drafts: bool) -> Any:
    """The answers of WebAssembly in Chromium."""
    return page.evaluate(IN_CHROMIUM, {"requests": requests, "drafts": drafts})


def count_identical(cases: list[Case], answers: Any) -> int:
    """How many receipts have the digests of what was written."""
    identical = 0
    for case, answer in zip(cases, answers, strict=True):
        written = [hashlib.sha256(text.encode()).hexdigest() for text, _ in answer["samples"]]
        identical += written == [digest.sha256 for digest in case.receipt.samples]
    return identical


def compare_receipts(settings: BenchmarkSettings, checkpoint: Checkpoint, folder: Path) -> None:
    """Write receipts again in all ways; print how many are identical."""
    chance = random.Random(settings.seed)
    generator = load_generator(checkpoint, INT8, slots=1, threads=1)
    [text] = write_on_server(generator, checkpoint, long_request(checkpoint, 4000))  # prompts are passages of it
    learned = learned_checkpoint(checkpoint.vocabulary)
    learned_count = settings.receipts // SHARE_OF_LEARNED
    counts = {"rotary": settings.receipts - learned_count, "learned": learned_count}
    for name, one in (("rotary", checkpoint), ("learned", learned)):
        writer = generator if one is checkpoint else load_generator(one, INT8, slots=1, threads=1)
        requests = [random_request(chance, one.vocabulary, text) for _ in range(counts[name])]
        cases = [make_case(writer, one, request) for request in tqdm(requests, name, disable=None)]
        weights = folder / name
        weights.write_bytes(browser_weights(one))
        verifier = load_generator(one, INT8, slots=1, threads=2)
        print(f"\n{len(cases)} receipts, {name} positions; identical:", flush=True)
        print(f"  model.verify          {sum(is_verified(verifier, one, case) for case in cases)}", flush=True)
        print(
            f"  WebAssembly, Node     {count_identical(cases, write_in_node('wasm', weights, requests))}",
            flush=True,
        )
        with chromium_page(weights) as page:
            answers = write_in_chromium(page, requests, drafts=True)
        print(f"  WebAssembly, Chromium {count_identical(cases, answers)}", flush=True)
        some = cases[: settings.reference_receipts]
        answers = write_in_node("reference", weights, [case.request for case in some])
        print(f"  reference, Node       {count_identical(some, answers)} of {len(some)}", flush=True)


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
    generators = {
        "server, 1 thread": load_generator(checkpoint, INT8, slots=1, threads=1),
        "server, 1 thread, no drafts": load_generator(without_draft, INT8, slots=1, threads=1),
    }
    request = long_request(checkpoint, SPEED_LENGTH)
    short = long_request(checkpoint, REFERENCE_LENGTH)
    rates: dict[str, list[float]] = {}
    with chromium_page(weights) as page:
        for _ in range(settings.rounds):
            for name, generator in generators.items():
                for _ in range(2):
                    began = time.perf_counter()
                    write_on_server(generator, checkpoint, request)
                    rate = SPEED_LENGTH / (time.perf_counter() - began)
                rates.setdefault(name, []).append(rate)
            pair = [request, request]
            rates.setdefault("Chromium", []).append(rate_of(write_in_chromium(page, pair, True)))
            rates.setdefault("Chromium, no drafts", []).append(rate_of(write_in_chromium(page, pair, False)))
            rates.setdefault("Node", []).append(rate_of(write_in_node("wasm", weights, pair)))
            rates.setdefault("Node, no drafts", []).append(
                rate_of(write_in_node("wasm", weights, pair, "--no-draft"))
            )
            rates.setdefault("reference in Node", []).append(
                rate_of(write_in_node("reference", weights, [short, short]))
            )
    base = statistics.median(rates["server, 1 thread, no drafts"])
    print("\none text, characters a second (of the server's with one thread and no drafts):")
    for name, found in rates.items():
        middle = statistics.median(found)
        print(f"  {name:28} {middle:7.0f}  {middle / base:6.2f}  ({min(found):.0f} to {max(found):.0f})")


def compare(settings: BenchmarkSettings) -> None:
    """Compare texts, then speeds."""
    checkpoint = read_checkpoint(settings.checkpoint, with_index=False)
    if not shutil.which("node"):
        raise InputError("node", "is not on the path")
    with tempfile.TemporaryDirectory() as folder:
        if settings.receipts:
            compare_receipts(settings, checkpoint, Path(folder))
        compare_speeds(settings, checkpoint, Path(folder))


if __name__ == "__main__":
    sys.exit(run(BenchmarkSettings, compare, sys.argv[1:]))
