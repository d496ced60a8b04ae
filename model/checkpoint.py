"""A checkpoint: a folder of plain files, no pickle. Owns their format; knows nothing of training or devices.

model.safetensors   weights, bf16 or fp32
config.json         `GPTConfig`, and the number of this format
vocab.json          the characters in id order
training.json       where the weights come from (`TrainingRecord`); optional
draft.safetensors   guesses for speculative decoding (`Draft`); optional, and not part of the checkpoint's identity
copies.safetensors  what it takes to judge texts by the training text (`TextIndex`); likewise
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from model.config import GPTConfig
from model.draft import Draft
from model.errors import CheckpointError, InputError
from model.files import recover
from model.index import TextIndex
from model.network import GPT
from model.vocabulary import Vocabulary

FORMAT = 1
DRAFT_FILE = "draft.safetensors"
INDEX_FILE = "copies.safetensors"


class CurvePoint(TypedDict):
    """One evaluation: losses in nats per character, AdamW's learning rate, characters a second so far, a text.

    `train`, the mean since the evaluation before, and `tokens_per_second` are None before the first step.
    """

    step: int
    train: float | None
    val: float
    lr: NotRequired[float]
    tokens_per_second: NotRequired[float | None]
    sample: NotRequired[str]


class TrainingRecord(TypedDict, total=False):
    """Where the weights come from."""

    dataset: dict[str, Any]  # name, characters, bytes, sha256
    recipe: dict[str, Any]  # every setting of the run
    curve: list[CurvePoint]
    val_loss: float  # the best, in nats per character: that of these weights
    val_method: str
    baselines: dict[str, float]  # validation losses of chance and of n-gram models, in nats per character
    date: str  # UTC, ISO 8601
    commit: str | None
    seconds: float


@dataclass(frozen=True)
class Checkpoint:
    """All that a generator needs, and where it came from.

    `identity` is the SHA-256 (hex) of the weights and the configuration as stored.
    """

    config: GPTConfig
    vocabulary: Vocabulary
    weights: dict[str, Tensor]
    training: TrainingRecord
    identity: str = ""
    draft: Draft | None = None
    index: TextIndex | None = None

    def network(self, dtype: torch.dtype = torch.float32) -> GPT:
        """A network with these weights, in evaluation mode, on the CPU."""
        with torch.device("meta"):
            network = GPT(self.config)
        weights = {name: tensor.to(dtype) for name, tensor in self.weights.items()}
        network.load_state_dict(weights, assign=True)
        return network.eval().requires_grad_(False)

    @property
    def parameter_count(self) -> int:
        """As nanoGPT counts: without position embeddings."""
        return sum(tensor.numel() for name, tensor in self.weights.items() if name != "positions.weight")


def write_checkpoint(folder: Path, checkpoint: Checkpoint, dtype: torch.dtype | None = None) -> None:
    """Write the checkpoint's files into an existing folder, weights as `dtype` if given.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    weights = {
        name: tensor.detach().to("cpu", dtype or tensor.dtype).contiguous()
        for name, tensor in checkpoint.weights.items()
    }
    (folder / "model.safetensors").write_bytes(save(weights))
    _write_json(folder / "config.json", {"format": FORMAT, **asdict(checkpoint.config)})
    checkpoint.vocabulary.save(folder / "vocab.json")
    _write_json(folder / "training.json", checkpoint.training)
    if checkpoint.draft is not None:
        checkpoint.draft.save(folder / DRAFT_FILE)
    if checkpoint.index is not None:
        checkpoint.index.save(folder / INDEX_FILE)


def read_checkpoint(folder: Path, with_index: bool = True) -> Checkpoint:
    """Read and check a checkpoint folder; `with_index` unless its index is to be made again.

    Raises:
        CheckpointError: names the file and what is wrong with it.
    """
    folder = recover(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such checkpoint folder")
    config = _read_config(folder / "config.json")
    vocabulary = Vocabulary.load(folder / "vocab.json")
    if len(vocabulary) != config.vocab_size:
        raise CheckpointError(
            f"{folder}: vocab.json has {len(vocabulary)} characters but config.json says "
            f"vocab_size {config.vocab_size}; the two files belong to different checkpoints"
        )
    path = folder / "model.safetensors"
    try:
        stored = path.read_bytes()  # not mapped: who copies a new checkpoint over it must not change this one
        weights = load(stored)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); is it missing or truncated?") from error
    check_shapes(path, config, weights)
    digest = hashlib.sha256(stored)
    digest.update((folder / "config.json").read_bytes())
    training = folder / "training.json"
    record = cast(TrainingRecord, _read_json(training) if training.exists() else {})
    path = folder / DRAFT_FILE
    draft = Draft.load(path, config.vocab_size) if path.exists() else None
    path = folder / INDEX_FILE
    index = TextIndex.load(path, record.get("dataset", {}).get("sha256")) if with_index and path.exists() else None
    return Checkpoint(config, vocabulary, weights, record, digest.hexdigest(), draft, index)


def check_shapes(path: Path, config: GPTConfig, weights: dict[str, Tensor]) -> None:
    """Refuse weights (from `path`) that are not exactly those of `config`'s network.

    Raises:
        CheckpointError: names the first tensor that is missing, unknown, or of the wrong shape or type.
    """
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in GPT(config).state_dict().items()}
    for name in sorted(expected.keys() | weights.keys()):
        if name not in weights:
            raise CheckpointError(f"{path}: has no tensor {name}, which config.json asks for")
        if name not in expected:
            raise CheckpointError(f"{path}: has a tensor {name}, which config.json does not ask for")
        if tuple(weights[name].shape) != expected[name]:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(weights[name].shape)}, config.json asks for {expected[name]}"
            )
        if not weights[name].is_floating_point():
            raise CheckpointError(f"{path}: {name} has type {weights[name].dtype}, not a float")


def _read_config(path: Path) -> GPTConfig:
    fields = _read_json(path)
    found = fields.pop("format", None)
    if found != FORMAT:
        raise CheckpointError(f"{path}: format {found!r} is not known here; this version reads format {FORMAT}")
    try:
        return GPTConfig(**fields)
    except (InputError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: must hold one JSON object")
    return value


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
