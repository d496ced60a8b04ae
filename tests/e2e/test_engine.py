"""The browser's engine, in Node: both of its networks write the server's texts, character for character."""

import json
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from engine.build import MAX_BYTES, RESULT, build
from model.browser_weights import browser_weights
from model.checkpoint import Checkpoint, read_checkpoint
from model.config import GPTConfig
from model.generation.generator import Generator
from model.generation.sequence import make_sequences
from model.sampling.sampler import Sampling
from tests.e2e.conftest import BUNDLED
from tests.e2e.test_compatibility import RECORDED, REQUESTS
from tests.model.arithmetic_cases import (
    ANGLES,
    EXPONENTS,
    LOGARITHMS,
    exponential,
    logarithm,
    sine_and_cosine,
)
from tests.tiny import LEARNED, ROTARY, VOCABULARY, tiny_checkpoint, tiny_draft, tiny_generator

NODE = Path(__file__).parent / "node"
ENGINES = ("reference", "wasm")
DEFAULTS: dict[str, Any] = {
    "prompt": "\n",
    "max_new_tokens": 500,
    "temperature": 0.8,
    "top_k": 200,
    "top_p": None,
    "min_p": None,
    "num_samples": 1,
    "stop": [],
}
# Head sizes and widths that are no multiples of a vector, a window whose ring is not full after 16, all variants.
CONFIGS = {
    "rotary": ROTARY,
    "learned": LEARNED,
    "nanogpt": replace(LEARNED, bias=True, n_layer=1, n_embd=48, block_size=33),
    "odd": replace(ROTARY, n_head=3, n_embd=42, block_size=24, qk_norm=False, logit_scale=0.8),
    "mixed": replace(ROTARY, n_head=1, n_embd=70, norm="layernorm", activation="gelu", bias=True),
}

LONG = replace(ROTARY, n_layer=1, block_size=520)
WIDE = replace(ROTARY, n_layer=1, n_embd=528, block_size=16)


class Written(NamedTuple):
    """One sample."""

    text: str
    finish_reason: str


@pytest.fixture(scope="module")
def node() -> Callable[..., Any]:
    """Runs one of the programs for Node with a JSON input, and returns the JSON that it prints."""
    program = shutil.which("node")
    if "CI" not in os.environ and not program:
        pytest.skip("no Node on this machine")
    assert program

    def run(name: str, given: Any, *arguments: str) -> Any:
        command = [program, str(NODE / name), *arguments]
        done = subprocess.run(
            command, check=True, input=json.dumps(given), stdout=subprocess.PIPE, text=True, timeout=120
        )
        return json.loads(done.stdout)

    return run


def write_weights(checkpoint: Checkpoint, folder: Path) -> str:
    """The path of a checkpoint's file for browsers."""
    path = folder / "weights.safetensors"
    path.write_bytes(browser_weights(checkpoint))
    return str(path)


def random_requests(seed: int, count: int, window: int) -> list[dict[str, Any]]:
    """Requests of all kinds: prompts shorter and longer than the window, filters, stops, samples, temperatures."""
    chance = random.Random(seed)
    characters = VOCABULARY.characters
    requests = []
    for _ in range(count):
        length = chance.choice([1, 2, window - 1, window, window + 1, chance.randint(1, 3 * window)])
        parameters = {
            "prompt": "".join(chance.choices(characters, k=max(1, length))),
            "max_new_tokens": chance.choice([1, 2, 60, 150]),
            "temperature": chance.choice([0, 0, 0.1, 0.8, 1, 1.7, 1e-300]),
            "top_k": chance.choice([None, 200, 1, 5, 30]),
            "top_p": chance.choice([None, 1, 0.9, 0.3, 0]),
            "min_p": chance.choice([None, 0, 0.02, 0.5, 1]),
            "num_samples": chance.choice([1, 1, 3]),
            "stop": chance.choice(
                [[], [], ["e"], ["zz", "日"], ["ab", "abc", "b"], chance.choices(characters, k=2)]
            ),
        }
        requests.append({"seed": chance.choice([0, 1337, 2**32, 2**53 - 1]), "parameters": parameters})
    return requests


def texts_of(generator: Generator, request: dict[str, Any]) -> list[Written]:
    """What the server's generator writes."""
    parameters = request["parameters"]
    sampling = Sampling(parameters["temperature"], parameters["top_k"], parameters["top_p"], parameters["min_p"])
    sequences = make_sequences(
        VOCABULARY,
        sampling,
        prompt=parameters["prompt"],
        seed=request["seed"],
        num_samples=parameters["num_samples"],
        max_new_tokens=parameters["max_new_tokens"],
        stop=parameters["stop"],
    )
    written = []
    for sequence in sequences:
        chunks = list(generator.write(sequence))
        reason = chunks[-1].finish_reason
        assert reason is not None
        written.append(Written("".join(chunk.text for chunk in chunks), reason))
    return written


def samples_of(answer: dict[str, Any]) -> list[Written]:
    """What the engine has written for one request."""
    return [Written(*sample) for sample in answer["samples"]]


def bits_of(value: float) -> str:
    """The bits of a double in hex."""
    return struct.pack(">d", value).hex()


def test_arithmetic_is_bit_for_bit_the_servers(node: Callable[..., Any]) -> None:
    angles: list[float] = []
    for angle in ANGLES.tolist():
        angles += sine_and_cosine(angle)
    expected = {
        "logarithms": [bits_of(logarithm(x)) for x in LOGARITHMS.tolist()],
        "exponentials": [bits_of(exponential(x)) for x in EXPONENTS.tolist()],
        "angles": [bits_of(x) for x in angles],
    }
    given = {
        "logarithms": LOGARITHMS.tolist(),
        "exponentials": EXPONENTS.tolist(),
        "angles": ANGLES.tolist(),
    }
    assert node("arithmetic.mjs", given) == expected


@pytest.mark.parametrize("name", CONFIGS)
def test_both_networks_write_the_servers_texts(name: str, node: Callable[..., Any], tmp_path: Path) -> None:
    config: GPTConfig = CONFIGS[name]
    checkpoint = replace(tiny_checkpoint(config), draft=tiny_draft() if name != "learned" else None)
    generator = tiny_generator(checkpoint=checkpoint, threads=1)
    requests = random_requests(len(name), 16, config.block_size)
    expected = [texts_of(generator, request) for request in requests]
    file = write_weights(checkpoint, tmp_path)
    for engine in ENGINES:
        answers = node("engine.mjs", requests, engine, file)
        for request, answer, texts in zip(requests, answers, expected, strict=True):
            assert samples_of(answer) == texts, request


@pytest.mark.parametrize("config", [LONG, WIDE], ids=["window", "width"])
def test_sums_too_large_for_one_number_are_the_references(
    config: GPTConfig, node: Callable[..., Any], tmp_path: Path
) -> None:
    """Of more than 512 products with numbers of two bytes, in softmax and in the logits: WebAssembly adds the upper
    and the lower bytes apart, as the reference always does. Logits are compared, since a text hides small errors.
    """
    file = write_weights(tiny_checkpoint(config), tmp_path)
    ids = random.Random(3).choices(range(len(VOCABULARY)), k=config.block_size + 20)
    reference, wasm = node("logits.mjs", ids, file)
    assert wasm == reference


def test_draft_tokens_change_no_text(node: Callable[..., Any], tmp_path: Path) -> None:
    """As many as there is room for, whatever they cost: most are rejected, and what they wrote is overwritten."""
    checkpoint = replace(tiny_checkpoint(ROTARY), draft=tiny_draft())
    requests = random_requests(9, 12, ROTARY.block_size)
    file = write_weights(checkpoint, tmp_path)
    without = node("engine.mjs", requests, "wasm", file, "--no-draft")
    greedily = node("engine.mjs", requests, "wasm", file, "--free-drafts")
    assert [one["samples"] for one in greedily] == [one["samples"] for one in without]
    assert sum(one["steps"] for one in greedily) < sum(one["steps"] for one in without)


def test_draft_tokens_are_tried_as_far_as_they_pay(node: Callable[..., Any]) -> None:
    """And one slow step decides nothing.

    The lowest ratio to a single row had been taken: after a single row that was interrupted a further one seemed to
    cost nothing, which stayed so for ever, and seven draft tokens were tried in each step.
    """
    cheap = [[1 + step % 4, 10 + step % 4] for step in range(40)]
    dear = [[1 + step % 4, 10 + 9 * (step % 4)] for step in range(40)]
    cases = {
        "cheap": cheap,
        "dear": dear,
        "interrupted": [*dear, [1, 300], *dear[:3]],
        "begun": [[1, 300], [4, 37]],
    }
    found = {}
    for name, steps in cases.items():
        found[name] = node("step_costs.mjs", {"steps": steps, "probability": 0.8})
    assert found["cheap"] >= 4
    assert found["dear"] <= 1
    assert found["interrupted"] <= 2
    assert found["begun"] <= 3


def test_the_bundled_model_writes_what_is_recorded(node: Callable[..., Any], tmp_path: Path) -> None:
    """The texts by which users' receipts are known, past the window too."""
    file = write_weights(read_checkpoint(BUNDLED, with_index=False), tmp_path)
    requests = []
    names = ("samples and stops", "greedy past the window")
    for name in names:
        body = REQUESTS[name]
        given = {field: value for field, value in body.items() if field != "seed" and value != ""}
        requests.append({"seed": body["seed"], "parameters": DEFAULTS | given})
    answers = node("engine.mjs", requests, "wasm", file)
    assert [answer["sha256"] for answer in answers] == [RECORDED["texts"][name] for name in names]
    [short] = node("engine.mjs", [set_length(requests[1], 30)], "reference", file)
    assert answers[1]["samples"][0][0].startswith(short["samples"][0][0])


def set_length(request: dict[str, Any], length: int) -> dict[str, Any]:
    """The same request for another number of characters."""
    return request | {"parameters": request["parameters"] | {"max_new_tokens": length}}


def damaged_files(file: bytes) -> dict[str, tuple[bytes, str]]:
    """Files that are not what they should be, and a part of what is said of each."""
    header_bytes = int.from_bytes(file[:8], "little")
    other = browser_weights(tiny_checkpoint(ROTARY, seed=1))
    return {
        "empty": (b"", "not complete"),
        "cut": (file[: len(file) // 2], "damaged"),
        "cut in its header": (file[: header_bytes // 2], "not complete"),
        "one bit": (file[:-100] + bytes([file[-100] ^ 1]) + file[-99:], "damaged"),
        "longer": (file + bytes(8), "damaged"),
        "a page": (b"<!doctype html><title>Not found</title>", "not a file of Soliloquy's weights"),
        "another character": (file.replace(rb"\\\"A\\\"", rb"\\\"a\\\"", 1), "damaged"),
        "another number of layers": (file.replace(b'n_layer\\\\\\":2', b'n_layer\\\\\\":1'), "damaged"),
        "another model's": (other, "of another model"),
    }


def test_a_file_that_is_not_right_is_refused_in_a_sentence(node: Callable[..., Any], tmp_path: Path) -> None:
    checkpoint = replace(tiny_checkpoint(ROTARY), identity="a" * 64)
    file = browser_weights(checkpoint)
    whole = tmp_path / "whole"
    whole.write_bytes(file)
    paths = [str(whole)]
    cases = damaged_files(file)
    for name, (content, _) in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        paths.append(str(path))
    accepted, *refused = node("weights.mjs", {"checkpoint": "a" * 64, "paths": paths})
    assert accepted is None
    for (name, (_, part)), message in zip(cases.items(), refused, strict=True):
        assert part in message, name
        assert message.endswith(".")
        assert message.count("\n") == 0


def test_requests_that_no_text_can_be_written_for_are_refused(node: Callable[..., Any], tmp_path: Path) -> None:
    file = write_weights(tiny_checkpoint(ROTARY), tmp_path)
    requests = [{"seed": 0, "parameters": DEFAULTS | {"prompt": prompt}} for prompt in ("", "日", "\ud800")]
    errors = [answer["error"] for answer in node("engine.mjs", requests, "wasm", file)]
    assert errors[0] == "The text to go on from is empty."
    assert errors[1] == 'The model has never seen "日".'
    assert "never seen" in errors[2]


def test_the_committed_webassembly_is_small() -> None:
    assert RESULT.stat().st_size <= MAX_BYTES


@pytest.mark.skipif(find_spec("ziglang") is None, reason="the compiler, the extra `engine`, is not installed")
def test_the_committed_webassembly_is_what_the_source_builds(tmp_path: Path) -> None:
    built = tmp_path / "network.wasm"
    build(built)
    assert built.read_bytes() == RESULT.read_bytes(), (
        f"run `{sys.executable} -m engine.build` and commit the result"
    )
