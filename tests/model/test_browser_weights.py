import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file

from model.backends.cpu.buffers import Floats, quantise_weights
from model.backends.cpu.gemm import ZERO_POINT
from model.backends.cpu.microkernel import BLOCK_COLUMNS, CPU_FAMILY, K_GROUP
from model.browser_weights import BrowserWeightsSettings, browser_weights, write_browser_weights
from model.checkpoint import Checkpoint, read_checkpoint
from tests.tiny import LEARNED, ROTARY, tiny_checkpoint, tiny_draft, tiny_folder

CHECKPOINTS = [tiny_checkpoint(ROTARY), tiny_checkpoint(LEARNED, bias=True)]


def read(checkpoint: Checkpoint, folder: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The tensors of a checkpoint's file and what its metadata says of it."""
    path = folder / "weights"
    path.write_bytes(browser_weights(checkpoint))
    with safe_open(path, "numpy") as opened:
        description: dict[str, Any] = json.loads(opened.metadata()["soliloquy"])
    return load_file(path), description


def unpacked(columns: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.int8]:
    """The first corner of the matrix that `gemm.pack_columns` has packed."""
    blocks, k_groups, _ = columns.shape
    together = CPU_FAMILY.elements_together
    by_part = columns.reshape(blocks, k_groups, K_GROUP // together, BLOCK_COLUMNS, together)
    matrix = by_part.transpose(0, 3, 1, 2, 4).reshape(blocks * BLOCK_COLUMNS, k_groups * K_GROUP)
    corner: NDArray[np.int8] = (matrix.astype(np.int16) - ZERO_POINT).astype(np.int8)[: shape[0], : shape[1]]
    return corner


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=["rotary", "learned"])
def test_the_numbers_are_those_that_the_kernel_computes_with(checkpoint: Checkpoint, tmp_path: Path) -> None:
    kernel = quantise_weights(checkpoint.config, checkpoint.weights)
    tensors, _ = read(checkpoint, tmp_path)
    for name in ("qkv", "attention_output", "mlp_expand", "mlp_output"):
        for layer, matrix in enumerate(tensors[name]):
            assert np.array_equal(matrix, unpacked(getattr(kernel, name)[layer], matrix.shape))
        assert np.array_equal(tensors[f"{name}_scales"], getattr(kernel, f"{name}_scales"))
    vocab_size = checkpoint.config.vocab_size
    assert np.array_equal(tensors["head"], unpacked(kernel.head, tensors["head"].shape))
    head_scales: Floats = kernel.head_scales[:vocab_size]
    assert np.array_equal(tensors["head_scales"], head_scales)
    assert np.array_equal(tensors["tokens"], kernel.tokens)
    assert np.array_equal(tensors["norms"], kernel.norms)
    if checkpoint.config.positions == "learned":
        assert np.array_equal(tensors["positions"], kernel.positions)
    else:
        assert np.array_equal(tensors["frequencies"], kernel.frequencies)


def test_it_says_what_it_is_of_and_has_its_own_hash(tmp_path: Path) -> None:
    checkpoint = replace(tiny_folder(tmp_path / "checkpoint"), draft=tiny_draft())
    assert checkpoint.draft is not None
    tensors, description = read(checkpoint, tmp_path)
    assert np.array_equal(tensors["draft_keys"], checkpoint.draft.keys)
    assert np.array_equal(tensors["draft_surprisal"], checkpoint.draft.surprisal)
    content = json.loads(description["content"])
    assert content["checkpoint"] == checkpoint.identity
    assert content["numerics"] == "cpu-int8"
    assert content["vocabulary"] == list(checkpoint.vocabulary.characters)
    assert content["config"]["n_embd"] == ROTARY.n_embd
    file = browser_weights(checkpoint)
    data = file[8 + int.from_bytes(file[:8], "little") :]
    assert description["sha256"] == hashlib.sha256(description["content"].encode() + data).hexdigest()
    assert browser_weights(checkpoint) == file


def test_the_command_writes_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_folder(tmp_path / "checkpoint")
    out = tmp_path / "weights.safetensors"
    write_browser_weights(BrowserWeightsSettings(checkpoint=tmp_path / "checkpoint", out=out))
    assert out.read_bytes() == browser_weights(read_checkpoint(tmp_path / "checkpoint"))
    assert capsys.readouterr().out == f"{out}: {out.stat().st_size:,} bytes\n"
