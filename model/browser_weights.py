"""The one file that a browser computes from: a checkpoint's quantised weights, its vocabulary and configuration.

A safetensors file. Its tensors (L layers, C = n_embd, W = block_size, V = vocab_size, D = head size):

tokens             F32 (V, C)          embeddings
positions          F32 (W, C)          only with learned positions
frequencies        F64 (D/2,)          of rotary angles; only with rotary positions
norms              F32 (2·L+1, 2, C)   weight and bias before each attention and each MLP, and at the end
qkv                I8 (L, 3·C, C)      a product's matrix, one row for each output, as whole numbers …
qkv_scales         F32 (L, 2, 3·C)     … and for each output the scale and the bias
attention_output, mlp_expand, mlp_output and their …_scales: likewise (C, C), (4·C, C) and (C, 4·C)
head               I8 (V, C)           the product that gives logits, with head_scales F32 (V,)
draft_keys         I64 (N,)            the n-gram table, if the checkpoint has one: see `Draft`
draft_surprisal    U8 (N, V)

Its metadata, `soliloquy`, is JSON of two strings: `content`, itself JSON with the format's number, the checkpoint's
identity, the numerics, the configuration and the vocabulary; and `sha256` of the bytes of `content` and then of all
tensors, in the order in which they stand.

`python -m model.browser_weights --out=FILE` writes it. Knows nothing of browsers but that they have no bf16.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import TensorSpec, serialize

from model.atomic_files import replacing_file
from model.checkpoint import Checkpoint, read_checkpoint
from model.cli import SettingsPath, run, settings_config
from model.config import NORM_EPSILONS, RMS_EPSILON, GPTConfig
from model.device import Numerics
from model.flags import ProgramSettings
from model.quantisation import quantise_channels
from model.weights import StoredWeights

BROWSER_FORMAT = 1
HEADER_LENGTH_BYTES = 8  # of a safetensors file: the length of the JSON that follows


class BrowserWeightsSettings(ProgramSettings):
    """Write the file from which a browser computes the same texts as the server."""

    model_config = settings_config("model.browser_weights", "SOLILOQUY_BROWSER_WEIGHTS_")

    checkpoint: SettingsPath = Path("checkpoints/shakespeare-char")
    """Checkpoint folder"""
    out: SettingsPath
    """File to write"""


def write_browser_weights(settings: BrowserWeightsSettings) -> None:
    """Write the file of a checkpoint."""
    content = browser_weights(read_checkpoint(settings.checkpoint, with_index=False))
    with replacing_file(settings.out) as path:
        path.write_bytes(content)
    print(f"{settings.out}: {len(content):,} bytes")


def browser_weights(checkpoint: Checkpoint) -> bytes:
    """Return the file's bytes: always the same for the same checkpoint."""
    tensors = _tensors(checkpoint)
    content = {
        "format": BROWSER_FORMAT,
        "checkpoint": checkpoint.identity,
        "numerics": Numerics("cpu", "int8").name,
        "config": {
            **asdict(checkpoint.config),
            "norm_epsilon": NORM_EPSILONS[checkpoint.config.norm],
            "qk_epsilon": RMS_EPSILON,
        },
        "vocabulary": checkpoint.vocabulary.characters,
    }
    return described_file(tensors, content)


def described_file(tensors: dict[str, NDArray[Any]], content: dict[str, Any]) -> bytes:
    """Return a safetensors file for browsers, with metadata `soliloquy` as above."""
    text = json.dumps(content, separators=(",", ":"))
    digest = hashlib.sha256(text.encode("ascii"))
    digest.update(_data_of(_serialise(tensors, {})))  # where tensors stand does not depend on the metadata
    # One entry, since safetensors writes several in any order.
    description = json.dumps({"content": text, "sha256": digest.hexdigest()})
    return _serialise(tensors, {"soliloquy": description})


def _tensors(checkpoint: Checkpoint) -> dict[str, NDArray[Any]]:
    """Return the tensors of the file by name."""
    config = checkpoint.config
    stored = checkpoint.weights
    tokens = _float32(stored, "tokens.weight")
    head, head_scales = quantise_channels(tokens)
    tensors: dict[str, NDArray[Any]] = {"tokens": tokens, "head": head, "head_scales": head_scales}
    if config.positions == "learned":
        tensors["positions"] = _float32(stored, "positions.weight")
    else:
        tensors["frequencies"] = np.array(config.rotary_frequencies, dtype=np.float64)
    tensors["norms"] = np.stack([_norm(config, stored, name) for name in _norm_names(config)])
    products = {
        "qkv": ("attention.query", "attention.key", "attention.value"),
        "attention_output": ("attention.output",),
        "mlp_expand": ("mlp.expand",),
        "mlp_output": ("mlp.output",),
    }
    for name, parts in products.items():
        layers = [_product(stored, f"blocks.{layer}", parts) for layer in range(config.n_layer)]
        tensors[name] = np.stack([whole_numbers for whole_numbers, _ in layers])
        tensors[f"{name}_scales"] = np.stack([scales for _, scales in layers])
    if checkpoint.draft is not None:
        tensors["draft_keys"] = checkpoint.draft.keys
        tensors["draft_surprisal"] = checkpoint.draft.surprisal
    return tensors


def _norm_names(config: GPTConfig) -> list[str]:
    names: list[str] = []
    for layer in range(config.n_layer):
        names.extend((f"blocks.{layer}.norm_attention", f"blocks.{layer}.norm_mlp"))
    return [*names, "norm"]


def _norm(config: GPTConfig, stored: StoredWeights, name: str) -> NDArray[np.float32]:
    """Return weight and bias (2, C) of a norm, 1 and 0 where it has none."""
    parameters = np.stack((np.ones(config.n_embd, np.float32), np.zeros(config.n_embd, np.float32)))
    for row, kind in enumerate(("weight", "bias")):
        if f"{name}.{kind}" in stored:
            parameters[row] = stored[f"{name}.{kind}"]
    return parameters


def _product(
    stored: StoredWeights, block: str, parts: Sequence[str]
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return whole numbers (N, K), and scales and biases (2, N), of matrices of a block, one below the other."""
    matrix = np.concatenate([_float32(stored, f"{block}.{part}.weight") for part in parts])
    whole_numbers, scales = quantise_channels(matrix)
    biases: list[NDArray[np.float32]] = []
    for part in parts:
        name = f"{block}.{part}.bias"
        outputs = len(stored[f"{block}.{part}.weight"])
        biases.append(_float32(stored, name) if name in stored else np.zeros(outputs, np.float32))
    return whole_numbers, np.stack((scales, np.concatenate(biases)))


def _float32(stored: StoredWeights, name: str) -> NDArray[np.float32]:
    values: NDArray[np.float32] = stored[name].astype(np.float32)
    return values


def _serialise(tensors: dict[str, NDArray[Any]], metadata: dict[str, str]) -> bytes:
    """Return a safetensors file: tensors by the size of their numbers, largest first, and then by name."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    specs: dict[str, TensorSpec] = {}
    for name, array in contiguous.items():
        specs[name] = TensorSpec(
            dtype=array.dtype.name, shape=array.shape, data_ptr=array.ctypes.data, data_len=array.nbytes
        )
    return bytes(serialize(specs, metadata))


def _data_of(file: bytes) -> bytes:
    """Return the tensors' bytes of a safetensors file."""
    header_bytes = int.from_bytes(file[:HEADER_LENGTH_BYTES], "little")
    return file[HEADER_LENGTH_BYTES + header_bytes :]


if __name__ == "__main__":
    sys.exit(run(BrowserWeightsSettings, write_browser_weights, sys.argv[1:]))
