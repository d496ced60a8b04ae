"""nanoGPT's checkpoints give the same logits and texts here, and their pickles run nothing."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.checkpoint import read_checkpoint
from model.cli import run
from model.generation.generator import load_generator
from model.generation.sequence import TextSequence
from model.sampling.sampler import Sampling
from tests.tiny import CPU
from training.import_nanogpt import ImportSettings, import_nanogpt
from training.untrusted.reading import read_torch_file

CHARACTERS = "\n abcdefghij"
LAYERS = 3
HEADS = 4
WIDTH = 32
BLOCK = 24


def make_weights(bias: bool, seed: int = 0) -> dict[str, Tensor]:
    """Random weights under nanoGPT's names and in its shapes."""
    torch.manual_seed(seed)
    shapes = {"transformer.wte.weight": (len(CHARACTERS), WIDTH), "transformer.wpe.weight": (BLOCK, WIDTH)}
    norms = ["transformer.ln_f"]
    for layer in range(LAYERS):
        name = f"transformer.h.{layer}"
        norms += [f"{name}.ln_1", f"{name}.ln_2"]
        shapes[f"{name}.attn.c_attn.weight"] = (3 * WIDTH, WIDTH)
        shapes[f"{name}.attn.c_proj.weight"] = (WIDTH, WIDTH)
        shapes[f"{name}.mlp.c_fc.weight"] = (4 * WIDTH, WIDTH)
        shapes[f"{name}.mlp.c_proj.weight"] = (WIDTH, 4 * WIDTH)
    weights = {name: 0.3 * torch.randn(shape) for name, shape in shapes.items()}
    if bias:
        matrices = [name for name in weights if ".h." in name]
        weights |= {name.replace("weight", "bias"): torch.randn(len(weights[name])) for name in matrices}
        weights |= {f"{name}.bias": torch.randn(WIDTH) for name in norms}
    weights |= {f"{name}.weight": 1 + 0.3 * torch.randn(WIDTH) for name in norms}
    return weights | {"lm_head.weight": weights["transformer.wte.weight"]}


def reference(w: dict[str, Tensor], ids: list[int]) -> Tensor:
    """GPT-2's forward pass, written out from its definition: logits (T, V)."""

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * w[f"{name}.weight"] + w.get(f"{name}.bias", torch.zeros(()))

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", torch.zeros(()))

    size = WIDTH // HEADS
    x = w["transformer.wte.weight"][ids] + w["transformer.wpe.weight"][: len(ids)]
    future = torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1)
    for layer in range(LAYERS):
        name = f"transformer.h.{layer}"
        q, k, v = linear(norm(x, f"{name}.ln_1"), f"{name}.attn.c_attn").chunk(3, dim=-1)
        heads = []
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            scores = (q[:, part] @ k[:, part].T / size**0.5).masked_fill(future, float("-inf"))
            heads.append(scores.softmax(-1) @ v[:, part])
        x = x + linear(torch.cat(heads, dim=-1), f"{name}.attn.c_proj")
        inner = linear(norm(x, f"{name}.ln_2"), f"{name}.mlp.c_fc")
        x = x + linear(inner * 0.5 * (1 + torch.erf(inner / 2**0.5)), f"{name}.mlp.c_proj")
    return norm(x, "transformer.ln_f") @ w["lm_head.weight"].T


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write_files(tmp_path, make_weights(bias=False), bias=False)
    return tmp_path


def write_files(folder: Path, weights: dict[str, Tensor], bias: object, **changes: Any) -> None:
    """ckpt.pt and meta.pkl as nanoGPT writes them; `changes` are to what ckpt.pt holds, or to its model_args."""
    shape = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTH, "block_size": BLOCK}
    saved: dict[str, Any] = {
        "model": weights,
        "optimizer": {"state": {}, "param_groups": []},
        "model_args": shape | {"bias": bias, "vocab_size": len(CHARACTERS), "dropout": 0.2},
        "iter_num": 250,
        "best_val_loss": torch.tensor(1.5),
        "config": {"dataset": "shakespeare_char"},
    }
    for name, value in changes.items():
        (saved if name in saved else saved["model_args"])[name] = value
    torch.save(saved, folder / "ckpt.pt")
    by_id = dict(enumerate(CHARACTERS))
    meta = {"vocab_size": len(CHARACTERS), "itos": by_id, "stoi": {c: i for i, c in by_id.items()}}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))


def do_import(folder: Path) -> int:
    names = [f"--ckpt={folder / 'ckpt.pt'}", f"--meta={folder / 'meta.pkl'}", f"--out_dir={folder / 'out'}"]
    return run(ImportSettings, import_nanogpt, names)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "_orig_mod.module.", "module._orig_mod."])
def test_logits_are_nanogpts(tmp_path: Path, bias: bool, prefix: str) -> None:
    weights = make_weights(bias)
    write_files(tmp_path, {prefix + name: tensor for name, tensor in weights.items()}, bias)
    assert do_import(tmp_path) == 0
    ids = torch.randint(len(CHARACTERS), (BLOCK,)).tolist()
    logits = read_checkpoint(tmp_path / "out").network()(torch.tensor([ids]))[0]
    torch.testing.assert_close(logits, reference(weights, ids), atol=1e-4, rtol=0)


def test_greedy_text_is_nanogpts_while_it_fits(files: Path) -> None:
    weights = make_weights(bias=False)
    assert do_import(files) == 0
    checkpoint = read_checkpoint(files / "out")
    ids = [3, 1, 4]
    while len(ids) < BLOCK:
        ids.append(int(reference(weights, ids)[-1].argmax()))
    sequence = TextSequence(checkpoint.vocabulary, ids[:3], Sampling(temperature=0), max_new_tokens=BLOCK - 3)
    text = "".join(chunk.text for chunk in load_generator(checkpoint, CPU, 1).write(sequence))
    assert text == checkpoint.vocabulary.decode(ids[3:])
    assert checkpoint.training["val_loss"] == 1.5


class Malicious:
    """Its pickle runs a command wherever pickles are trusted."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize(("name", "protocol"), [("ckpt.pt", 2), ("meta.pkl", 0), ("meta.pkl", 2), ("meta.pkl", 4)])
def test_a_pickle_that_would_run_code_is_refused_and_runs_none(
    files: Path, name: str, protocol: int, capsys: pytest.CaptureFixture[str]
) -> None:
    payload = {"model": {}, "model_args": {}, "itos": Malicious(files / "pwned")}
    if name == "ckpt.pt":
        torch.save(payload, files / name, pickle_protocol=protocol)
    else:
        (files / name).write_bytes(pickle.dumps(payload, protocol))
    assert do_import(files) == 2
    error = capsys.readouterr().err
    assert f"{name}: refused" in error
    assert "mkdir" in error
    assert error.count("\n") == 1
    assert not (files / "pwned").exists()
    assert not (files / "out").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "ckpt.pt").unlink(), "cannot be read"),
        (lambda folder: (folder / "ckpt.pt").write_bytes(b"PK\x03\x04 cut"), "cannot be read as a PyTorch file"),
        (lambda folder: torch.save([1], folder / "ckpt.pt"), "not nanoGPT's"),
        (lambda folder: (folder / "meta.pkl").write_bytes(b""), "meta.pkl: not a whole pickle"),
        (
            lambda folder: (folder / "meta.pkl").write_bytes(pickle.dumps({"itos": {0: "a"}})),
            "meta.pkl has 1 characters",
        ),
        (lambda folder: (folder / "out" / "deep").mkdir(parents=True), "already exists"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    files: Path, damage: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(files)
    assert do_import(files) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_checkpoint_of_before_bias_was_a_setting_has_biases(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint of before 2023-01-27 was refused: its model_args has no bias. nanoGPT's default is True."""
    weights = make_weights(bias=True)
    masks = {f"transformer.h.{layer}.attn.bias": torch.ones(1, 1, BLOCK, BLOCK).tril() for layer in range(LAYERS)}
    write_files(tmp_path, weights | masks, bias=True)
    saved = read_torch_file(tmp_path / "ckpt.pt")
    del saved["model_args"]["bias"]
    torch.save(saved, tmp_path / "ckpt.pt")
    assert do_import(tmp_path) == 0
    assert "model_args has no bias" in capsys.readouterr().out
    ids = [1, 2, 3]
    logits = read_checkpoint(tmp_path / "out").network()(torch.tensor([ids]))[0]
    torch.testing.assert_close(logits, reference(weights, ids), atol=1e-4, rtol=0)


KEPT = {
    "dataset": "shakespeare_char",
    "learning_rate": 1e-3,
    "compile": True,
    "dtype": torch.bfloat16,
    "betas": (0.9, 0.99),
    "names": {"b", "a"},
    "dropout": np.float64(0.2),
    "n_layer": np.int64(3),
    "loss": torch.tensor(2.5),
    "nothing": None,
}
LEFT_OUT = {
    "infinite": float("inf"),
    "not_a_number": np.float32("nan"),
    "nested": {"a": {"b": 1}},
    "weights": torch.zeros(3),
    "lines": "a\nb",
    "half a pair": "\ud800",
    "long": "x" * 10_000,
    "huge": 1 << 200,
    5: "a number for a name",
}


def test_settings_that_json_cannot_hold_are_left_out_with_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A config with inf, sets or NumPy numbers was written and could not be read, or was a traceback.

    Cause: the config was taken as it was. Fix: numbers, texts and lists of them are kept; the rest is named.
    """
    write_files(tmp_path, make_weights(bias=False), bias=False, config=KEPT | LEFT_OUT)
    assert do_import(tmp_path) == 0
    assert "config: left out, as a checkpoint cannot hold them: 'infinite'" in capsys.readouterr().out
    recipe = read_checkpoint(tmp_path / "out").training["recipe"]
    plain = {
        "dtype": "bfloat16",
        "betas": [0.9, 0.99],
        "names": ["a", "b"],
        "dropout": 0.2,
        "n_layer": 3,
        "loss": 2.5,
    }
    assert recipe == KEPT | plain


@pytest.mark.parametrize(
    "loss", [float("inf"), float("nan"), 1e9, -1.0, torch.tensor(float("inf")), torch.ones(2), "x"]
)
def test_a_loss_that_was_not_measured_is_left_out(
    loss: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A best_val_loss of inf or nan was written, and the checkpoint could not be read."""
    write_files(tmp_path, make_weights(bias=False), bias=False, best_val_loss=loss)
    assert do_import(tmp_path) == 0
    assert "best_val_loss is left out" in capsys.readouterr().out
    assert "val_loss" not in read_checkpoint(tmp_path / "out").training


WTE = "transformer.wte.weight"
HOSTILE: dict[str, tuple[dict[str, Any], dict[Any, Any], str]] = {
    "a billion layers": ({"n_layer": 10**9}, {}, "n_layer: 1,000,000,000 is more than 250"),
    "a billion wide": ({"n_embd": 10**9, "n_head": 1}, {}, "n_embd: 1,000,000,000 is more than"),
    "a billion long": ({"block_size": 10**9}, {}, "block_size: 1,000,000,000 is more than"),
    "more layers than weights": ({"n_layer": 200}, {}, "has no tensor transformer.h.3.ln_1.weight"),
    "GPT-2's tokens": ({"vocab_size": 50304}, {}, "vocab_size of 50304 (GPT-2's tokens, not characters), but"),
    "a negative size": ({"n_layer": -1}, {}, "n_layer: -1 is not a whole number from 1 up"),
    "a size that is a text": ({"n_embd": "32"}, {}, "n_embd: '32' is not a whole number"),
    "a size that is a list": ({"n_embd": [[]]}, {}, "n_embd: a list is not a whole number"),
    "a size that is a tensor": ({"n_embd": torch.ones(3)}, {}, "n_embd: a Tensor is not a whole number"),
    "heads that do not fit": ({"n_head": 5}, {}, "n_embd: 32 is not a multiple of n_head (5)"),
    "a bias that is a text": ({"bias": "no"}, {}, "bias: 'no' is neither True nor False"),
    "no dictionary": ({"model_args": [1]}, {}, "not nanoGPT's: it has no model and model_args"),
    "a number for a name": ({}, {5: torch.zeros(1)}, "model has a Tensor named 5"),
    "a text for a tensor": ({}, {WTE: "x"}, "model has a str named 'transformer.wte.weight'"),
    "whole numbers": ({}, {WTE: torch.ones(12, 32, dtype=torch.int64)}, "has numbers of torch.int64"),
    "float8": ({}, {WTE: torch.ones(12, 32).to(torch.float8_e5m2)}, "has numbers of torch.float8_e5m2"),
    "not finite": (
        {},
        {"transformer.ln_f.weight": torch.full((32,), torch.nan)},
        "ln_f.weight has numbers that are not",
    ),
    "too large for fp32": (
        {},
        {"transformer.ln_f.weight": torch.full((32,), 1e300, dtype=torch.float64)},
        "ln_f.weight has numbers that are not finite",
    ),
    "another shape": (
        {},
        {"transformer.ln_f.weight": torch.ones(33)},
        "has the shape (33,), but model_args asks for (32,)",
    ),
    "an empty tensor": ({}, {"transformer.ln_f.weight": torch.ones(0)}, "has the shape (0,)"),
    "one more": ({}, {"transformer.h.9.ln_1.weight": torch.ones(32)}, "which model_args does not ask for"),
    "twice": ({}, {f"module.{WTE}": torch.ones(12, 32)}, "twice, with a prefix and without"),
    "not tied": ({}, {"lm_head.weight": torch.ones(12, 32)}, "lm_head.weight is not tied"),
    "a name of two lines": ({}, {"a\nb": torch.ones(1)}, "has a tensor 'a\\nb'"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_checkpoint_that_does_not_hold_what_it_says_is_refused_in_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An n_layer of a billion hung for minutes; other wrong values and weights were tracebacks.

    Cause: a network was made by model_args before they were compared with the weights. Fix: each is checked first.
    """
    changes, tensors, message = HOSTILE[name]
    write_files(tmp_path, make_weights(bias=False), **{"bias": False} | changes)
    saved = read_torch_file(tmp_path / "ckpt.pt")
    saved["model"] |= tensors
    torch.save(saved, tmp_path / "ckpt.pt")
    assert do_import(tmp_path) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_tensors_that_are_views_of_a_few_numbers_do_not_multiply_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = torch.zeros(4 * WIDTH * WIDTH)
    weights = make_weights(bias=False)
    write_files(tmp_path, {name: numbers[: w.numel()].view(w.shape) for name, w in weights.items()}, bias=False)
    assert do_import(tmp_path) == 2
    assert "share their numbers" in capsys.readouterr().err


META: dict[str, tuple[object, str]] = {
    "no dictionary": ([1], "it has no itos"),
    "no itos": ({"vocab_size": 65}, "it has no itos"),
    "a gap": ({"itos": {0: "a", 2: "b"}}, "does not tell what stands for each number"),
    "texts for numbers": ({"itos": {"0": "a"}}, "does not tell what stands for each number"),
    "a word": ({"itos": {0: "a", 1: "the"}}, "itos has 'the' for 1, not a character"),
    "half a pair": ({"itos": ["\udc80"]}, "itos has '\\udc80' for 0"),
    "no text": ({"itos": [None]}, "itos has a NoneType for 0"),
    "a character twice": ({"itos": ["a", "a"]}, "a character twice"),
    "none": ({"itos": {}}, "itos has 0 characters"),
    "another size": ({"itos": ["a"], "vocab_size": 50304}, "vocab_size is 50304, but itos has 1 characters"),
    "another order": ({"itos": ["a", "b"], "stoi": {"a": 1, "b": 0}}, "stoi and itos do not belong together"),
}


@pytest.mark.parametrize("name", META)
def test_a_meta_file_that_is_not_of_characters_is_refused_in_one_line(
    name: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, message = META[name]
    (files / "meta.pkl").write_bytes(pickle.dumps(content))
    assert do_import(files) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
