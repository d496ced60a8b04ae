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
import math
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NotRequired, cast

import torch
from pydantic import AfterValidator, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from model.config import GPTConfig
from model.draft import Draft
from model.errors import CheckpointError, InputError
from model.files import check_file, read_json, recover
from model.index import TextIndex
from model.network import GPT
from model.vocabulary import Vocabulary

FORMAT = 1
DRAFT_FILE = "draft.safetensors"
INDEX_FILE = "copies.safetensors"
LARGEST = {"n_layer": 250, "n_embd": 1 << 16, "block_size": 1 << 16, "logit_scale": 1000}  # in a stranger's file
MOST_HEADER = 1 << 20  # bytes
TYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def _check_source(source: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(source.get("name", ""), str):
        raise ValueError("its name is not a text")
    return source


def _check_date(date: str) -> str:
    datetime.fromisoformat(date).timestamp()
    return date


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

    dataset: Annotated[dict[str, Any], AfterValidator(_check_source)]  # name, characters, bytes, sha256
    recipe: dict[str, Any]  # every setting of the run
    curve: list[CurvePoint]
    val_loss: float  # the best, in nats per character: that of these weights
    val_method: str
    baselines: dict[str, float]  # validation losses of chance and of n-gram models, in nats per character
    date: Annotated[str, AfterValidator(_check_date)]  # UTC, ISO 8601
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
    try:
        folder = recover(folder)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read ({error})") from error
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such checkpoint folder")
    config = _read_config(folder / "config.json")
    vocabulary = Vocabulary.load(folder / "vocab.json")
    if len(vocabulary) != config.vocab_size:
        raise CheckpointError(
            f"{folder}: vocab.json has {len(vocabulary)} characters but config.json says "
            f"vocab_size {config.vocab_size}; the two files belong to different checkpoints"
        )
    weights, identity = _read_weights(folder, config)
    path = folder / "training.json"
    record = _read_record(path) if _is_there(path) else TrainingRecord()
    path = folder / DRAFT_FILE
    draft = Draft.load(path, config.vocab_size) if _is_there(path) else None
    path, sha256 = folder / INDEX_FILE, record.get("dataset", {}).get("sha256")
    index = TextIndex.load(path, sha256) if with_index and _is_there(path) else None
    return Checkpoint(config, vocabulary, weights, record, identity, draft, index)


def check_shapes(path: Path, config: GPTConfig, weights: dict[str, Tensor]) -> None:
    """Refuse weights (from `path`) that are not exactly those of `config`'s network, or not finite.

    Raises:
        CheckpointError: names the first tensor that is missing, unknown, of the wrong shape or type, or not finite.
    """
    expected = _shapes(config)
    for name in sorted(expected.keys() | weights.keys()):
        if name not in weights:
            raise CheckpointError(f"{path}: has no tensor {name}, which config.json asks for")
        if name not in expected:
            raise CheckpointError(f"{path}: has a tensor {name}, which config.json does not ask for")
        if tuple(weights[name].shape) != expected[name]:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(weights[name].shape)}, config.json asks for {expected[name]}"
            )
        if weights[name].dtype not in TYPES:
            raise CheckpointError(f"{path}: {name} has type {weights[name].dtype}, not one of {TYPES}")
        if not weights[name].float().isfinite().all():
            raise CheckpointError(f"{path}: {name} has numbers that are not finite")


def _shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in GPT(config).state_dict().items()}


def _read_weights(folder: Path, config: GPTConfig) -> tuple[dict[str, Tensor], str]:
    """The weights, checked, and the checkpoint's identity."""
    path = folder / "model.safetensors"
    largest = MOST_HEADER + sum(8 * math.prod(shape) for shape in _shapes(config).values())
    try:
        check_file(path, largest)
        stored = path.read_bytes()  # not mapped: who copies a new checkpoint over it must not change this one
        weights = load(stored)
        digest = hashlib.sha256(stored)
        digest.update((folder / "config.json").read_bytes())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); is it missing or truncated?") from error
    check_shapes(path, config, weights)
    return weights, digest.hexdigest()


def _is_there(path: Path) -> bool:
    """Also if it is a link that leads nowhere: then somebody meant it to be there."""
    return path.exists() or path.is_symlink()


def _read_record(path: Path) -> TrainingRecord:
    record = _read_json(path)
    try:
        TypeAdapter(TrainingRecord).validate_python(record, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"{path}: {where}: {first['msg']}, not {first['input']!r:.60}") from error
    return cast(TrainingRecord, record)


def _read_config(path: Path) -> GPTConfig:
    if not path.exists() and (path.parent / "ckpt.pt").exists():
        raise CheckpointError(
            f"{path.parent}: holds nanoGPT's ckpt.pt; python -m training.import_nanogpt makes a checkpoint of it"
        )
    fields = _read_json(path)
    found = fields.pop("format", None)
    if found != FORMAT:
        raise CheckpointError(f"{path}: format {found!r} is not known here; this version reads format {FORMAT}")
    try:
        config = GPTConfig(**fields)
    except (InputError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    for name, most in LARGEST.items():
        if getattr(config, name) > most:
            raise CheckpointError(f"{path}: {name}: {getattr(config, name):,} is more than {most:,}")
    return config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: must hold one JSON object")
    return value


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
