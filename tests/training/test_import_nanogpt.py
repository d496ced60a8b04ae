"""Promise 3: nanoGPT's checkpoints are at home, and their pickles run nothing."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.checkpoint import read_checkpoint
from model.cli import run
from model.generator import load_generator
from model.sampling import Sampling
from model.stream import Stream
from tests.tiny import CPU
from training.import_nanogpt import ImportSettings, import_nanogpt

CHARACTERS = "\n abcdefghij"
LAYERS, HEADS, WIDTH, BLOCK = 3, 4, 32, 24


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


def write_files(folder: Path, weights: dict[str, Tensor], bias: bool) -> None:
    shape = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTH, "block_size": BLOCK}
    saved = {
        "model": weights,
        "optimizer": {"state": {}, "param_groups": []},
        "model_args": shape | {"bias": bias, "vocab_size": len(CHARACTERS), "dropout": 0.2},
        "iter_num": 250,
        "best_val_loss": torch.tensor(1.5),
        "config": {"dataset": "shakespeare_char"},
    }
    torch.save(saved, folder / "ckpt.pt")
    by_id = dict(enumerate(CHARACTERS))
    meta = {"vocab_size": len(CHARACTERS), "itos": by_id, "stoi": {c: i for i, c in by_id.items()}}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))


def do_import(folder: Path) -> int:
    names = [f"--ckpt={folder / 'ckpt.pt'}", f"--meta={folder / 'meta.pkl'}", f"--out_dir={folder / 'out'}"]
    return run(ImportSettings, import_nanogpt, names)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_logits_are_nanogpts(tmp_path: Path, bias: bool, compiled: bool) -> None:
    weights = make_weights(bias)
    prefix = "_orig_mod." if compiled else ""
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
    stream = Stream(checkpoint.vocabulary, ids[:3], Sampling(temperature=0), max_new_tokens=BLOCK - 3)
    text = "".join(piece.text for piece in load_generator(checkpoint, CPU, 1).write(stream))
    assert text == checkpoint.vocabulary.decode(ids[3:])
    assert checkpoint.training["val_loss"] == 1.5


class Malicious:
    """A pickle of this runs a command where pickles are trusted."""

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
        (lambda folder: (folder / "ckpt.pt").write_bytes(b"PK\x03\x04 cut"), "cannot be read"),
        (lambda folder: torch.save([1], folder / "ckpt.pt"), "not nanoGPT's"),
        (lambda folder: (folder / "meta.pkl").write_bytes(b""), "not nanoGPT's meta.pkl"),
        (lambda folder: (folder / "meta.pkl").write_bytes(pickle.dumps({"itos": {0: "a"}})), "meta file has 1"),
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
