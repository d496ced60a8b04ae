"""A checkpoint: a folder of plain files, no pickle. Owns their format; knows nothing of training or devices.

model.safetensors   weights, bf16 or fp32
config.json         `GPTConfig`, and the number of this format
vocab.json          the characters in id order
training.json       where the weights come from (`TrainingRecord`); optional
draft.safetensors   n-gram table for speculative decoding (`Draft`); optional, and not part of the identity
copies.safetensors  index of the training text for reports (`TextIndex`); likewise

A checkpoint's identity is a hash of everything that decides its texts, see `identity_of`.
"""

import hashlib
import json
import math
from dataclasses import MISSING, asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NotRequired

import numpy as np
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from model.analysis.text_index import TextIndex
from model.atomic_files import FolderReader, check_file, printable, read_json, read_whole
from model.config import GPTConfig
from model.errors import CheckpointError, InputError
from model.sampling.ngram_draft import Draft
from model.vocabulary import Vocabulary
from model.weights import TYPE_NAMES, StoredWeights, dump_weights, load_weights, to_tensors

if TYPE_CHECKING:
    from torch import dtype

    from model.network import GPT

FORMAT = 1
CONFIG_FILE = "config.json"
RECORD_FILE = "training.json"
DRAFT_FILE = "draft.safetensors"
INDEX_FILE = "copies.safetensors"
MAX_SIZES = {"n_layer": 250, "n_embd": 1 << 16, "block_size": 1 << 16, "logit_scale": 1000}  # in untrusted files
MAX_HEADER_BYTES = 1 << 20


IDENTITY_DOMAIN = b"soliloquy checkpoint\n"
SOURCE_FIELDS = ("name", "characters", "bytes", "sha256")
MAX_NAME_LENGTH = 255  # characters, as of a file's name
MAX_COUNT = 2**53 - 1  # the largest integer that JavaScript represents exactly


Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Loss = Annotated[float, Field(ge=0, le=1e6)]  # nats per character


def _check_source(source: dict[str, Any]) -> dict[str, Any]:
    """The known fields of a data set's description, checked; others are dropped."""
    known = {name: source[name] for name in SOURCE_FIELDS if name in source}
    for name, value in known.items():
        if name in ("name", "sha256"):
            if not isinstance(value, str) or len(value) > MAX_NAME_LENGTH:
                raise ValueError(f"its {name} is not a text of up to {MAX_NAME_LENGTH} characters")
        elif type(value) is not int or not 0 <= value <= MAX_COUNT:
            raise ValueError(f"its {name} is not a whole number from 0 to {MAX_COUNT}")
    return known


def _check_recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    """A run's settings; only those that are shown somewhere are checked."""
    preset = recipe.get("preset")
    if preset is not None and (not isinstance(preset, str) or len(preset) > MAX_NAME_LENGTH):
        raise ValueError(f"its preset is not a text of up to {MAX_NAME_LENGTH} characters")
    steps = recipe.get("max_iters")
    if steps is not None and (type(steps) is not int or not 0 <= steps <= MAX_COUNT):
        raise ValueError(f"its max_iters is not a whole number from 0 to {MAX_COUNT}")
    return recipe


def _check_date(date: str) -> str:
    if not 1970 <= datetime.fromisoformat(date).year <= 9998:  # else not every time zone has it
        raise ValueError("its year is not from 1970 to 9998")
    return date


class CurvePoint(TypedDict):
    """One evaluation; losses in nats per character."""

    step: Count
    train: Loss | None  # mean since the evaluation before; None before the first step
    val: Loss
    lr: NotRequired[float]  # AdamW's
    tokens_per_second: NotRequired[float | None]  # from the beginning of the run; None before the first step
    sample: NotRequired[str]


class TrainingRecord(TypedDict, total=False):
    """Where the weights come from."""

    dataset: Annotated[dict[str, Any], AfterValidator(_check_source)]  # name, characters, bytes, sha256
    recipe: Annotated[dict[str, Any], AfterValidator(_check_recipe)]  # every setting of the run
    curve: list[CurvePoint]
    val_loss: Loss  # the best: that of these weights
    val_method: str
    # Validation losses of a uniform distribution and of n-gram models, in nats per character.
    baselines: Annotated[dict[str, Loss], Field(max_length=100)]
    date: Annotated[str, AfterValidator(_check_date)]  # UTC, ISO 8601
    commit: str | None
    seconds: Annotated[float, Field(ge=0, le=MAX_COUNT)]


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a generator needs, and where it comes from.

    Attributes:
        identity: see `identity_of`; empty unless it was read from a folder.
        former_identity: of the same files, from when an identity did not cover the vocabulary; what names it is
            still recognised as of this checkpoint.
    """

    config: GPTConfig
    vocabulary: Vocabulary
    weights: StoredWeights
    training: TrainingRecord
    identity: str = ""
    former_identity: str = ""
    draft: Draft | None = None
    index: TextIndex | None = None

    def network(self, dtype: "dtype | None" = None) -> "GPT":
        """PyTorch's network with these weights (float32 if no type is given), in evaluation mode, on the CPU."""
        import torch  # noqa: PLC0415 - see `model.weights`

        from model.network import GPT  # noqa: PLC0415

        with torch.device("meta"):
            network = GPT(self.config)
        network.load_state_dict(to_tensors(self.weights, dtype or torch.float32), assign=True)
        return network.eval().requires_grad_(False)

    def require_index(self) -> TextIndex:
        """The index of the training text.

        Raises:
            InputError: there is none.
        """
        if self.index is None:
            raise InputError(
                "report", "this checkpoint has no index of its training text; training.index makes one"
            )
        return self.index

    @property
    def parameter_count(self) -> int:
        """The number of parameters as nanoGPT counts them: without position embeddings."""
        return sum(array.size for name, array in self.weights.items() if name != "positions.weight")


def write_checkpoint(folder: Path, checkpoint: Checkpoint, dtype: "np.dtype[Any] | None" = None) -> None:
    """Write the checkpoint's files into an existing folder, weights as `dtype` if given.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    weights = {name: array.astype(dtype or array.dtype, copy=False) for name, array in checkpoint.weights.items()}
    (folder / "model.safetensors").write_bytes(dump_weights(weights))
    _write_json(folder / CONFIG_FILE, {"format": FORMAT, **asdict(checkpoint.config)})
    checkpoint.vocabulary.save(folder / "vocab.json")
    _write_json(folder / RECORD_FILE, checkpoint.training)
    if checkpoint.draft is not None:
        checkpoint.draft.save(folder / DRAFT_FILE)
    if checkpoint.index is not None:
        checkpoint.index.save(folder / INDEX_FILE)


def read_checkpoint(folder: Path, with_index: bool = True) -> Checkpoint:
    """Read and check a checkpoint folder; without its index if that is to be replaced.

    Raises:
        CheckpointError: names the file and what is wrong with it.
    """
    try:
        if not folder.is_dir():
            raise CheckpointError(f"{folder}: no such checkpoint folder")
        return read_whole(folder, lambda files: _read(files, with_index))
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read ({error})") from error


def has_checkpoint(folder: Path) -> bool:
    """Whether a folder has a checkpoint: it has a configuration."""
    return _is_present(FolderReader(folder).path(CONFIG_FILE))


def _read(files: FolderReader, with_index: bool) -> Checkpoint:
    folder = files.folder
    config = _read_config(files.path(CONFIG_FILE))
    vocabulary = Vocabulary.load(files.path("vocab.json"))
    if len(vocabulary) != config.vocab_size:
        raise CheckpointError(
            f"{folder}: vocab.json has {len(vocabulary)} characters but config.json says "
            f"vocab_size {config.vocab_size}; the two files belong to different checkpoints"
        )
    weights, former_identity = _read_weights(files, config)
    identity = identity_of(config, vocabulary, weights)
    record = TrainingRecord()
    record_path = files.path(RECORD_FILE)
    if _is_present(record_path):
        record = _read_record(record_path)
    draft = None
    draft_path = files.path(DRAFT_FILE)
    if _is_present(draft_path):
        draft = Draft.load(draft_path, config.vocab_size)
    index = None
    index_path = files.path(INDEX_FILE)
    if with_index and _is_present(index_path):
        index = TextIndex.load(index_path, record.get("dataset", {}).get("sha256"))
    return Checkpoint(config, vocabulary, weights, record, identity, former_identity, draft, index)


def identity_of(config: GPTConfig, vocabulary: Vocabulary, weights: StoredWeights) -> str:
    """The SHA-256 (hex) of everything that decides a text: the weights, the configuration, the vocabulary.

    It covers the values, not the files: a checkpoint that is written again, or with other white space, keeps it.
    What is hashed, in this order:

    1. `IDENTITY_DOMAIN`;
    2. one line of JSON (ASCII, keys sorted, no spaces) with `config`, the fields that are not at their defaults (so
       that a field that is added later changes no identity), `vocabulary`, a list of the characters, and `tensors`,
       [name, type by PyTorch's name, shape] of each, by name;
    3. the bytes of each tensor, by name.

    The n-gram table, the index and the training record do not decide a text, and are left out.
    """
    names = sorted(weights)
    content = {
        "config": _config_content(config),
        "vocabulary": vocabulary.characters,
        "tensors": [[name, f"torch.{weights[name].dtype.name}", list(weights[name].shape)] for name in names],
    }
    line = json.dumps(content, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(IDENTITY_DOMAIN + line.encode("ascii") + b"\n")
    for name in names:
        digest.update(np.ascontiguousarray(weights[name]).view(np.uint8).data)
    return digest.hexdigest()


def _config_content(config: GPTConfig) -> dict[str, Any]:
    """The fields that are not at their defaults, converted to the types of the defaults: 1.0, not 1."""
    content: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if value != field.default:
            content[field.name] = value if field.default is MISSING else type(field.default)(value)
    return content


def check_shapes(path: Path, config: GPTConfig, weights: StoredWeights) -> None:
    """Refuse weights (from `path`) that do not fit the network of `config`, or are not finite.

    Raises:
        CheckpointError: names the first tensor that is missing, unknown, of the wrong shape or type, or not finite.
    """
    expected = config.weight_shapes
    for name in sorted(expected.keys() | weights.keys()):
        if name not in weights:
            raise CheckpointError(f"{path}: has no tensor {name}, which config.json asks for")
        if name not in expected:
            raise CheckpointError(f"{path}: has a tensor {name}, which config.json does not ask for")
        if weights[name].shape != expected[name]:
            raise CheckpointError(
                f"{path}: {name} has shape {weights[name].shape}, config.json asks for {expected[name]}"
            )
        if weights[name].dtype.name not in TYPE_NAMES:
            known = ", ".join(TYPE_NAMES)
            raise CheckpointError(f"{path}: {name} has type {weights[name].dtype}, not one of {known}")
        if not np.isfinite(weights[name].astype(np.float32)).all():
            raise CheckpointError(f"{path}: {name} has numbers that are not finite")


def _read_weights(files: FolderReader, config: GPTConfig) -> tuple[StoredWeights, str]:
    """The weights, checked, and the checkpoint's `former_identity`."""
    path = files.path("model.safetensors")
    max_bytes = MAX_HEADER_BYTES + sum(8 * math.prod(shape) for shape in config.weight_shapes.values())
    try:
        check_file(path, max_bytes)
        stored = (
            path.read_bytes()
        )  # not mapped: a new checkpoint copied over the file must not change these weights
        weights = load_weights(stored)
        digest = hashlib.sha256(stored)
        digest.update(files.path(CONFIG_FILE).read_bytes())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); is it missing or truncated?") from error
    check_shapes(path, config, weights)
    return weights, digest.hexdigest()


def _is_present(path: Path) -> bool:
    """Whether there is a file, or a broken link: then reading it reports an error, instead of ignoring it."""
    return path.exists() or path.is_symlink()


def _read_record(path: Path) -> TrainingRecord:
    """The record, checked, without characters that cannot be shown."""
    try:
        record = printable(_read_json(path))
        return TypeAdapter(TrainingRecord).validate_python(record, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        location = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"{path}: {location}: {first['msg']}, not {first['input']!r:.60}") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


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
    for name, maximum in MAX_SIZES.items():
        if getattr(config, name) > maximum:
            raise CheckpointError(f"{path}: {name}: {getattr(config, name):,} is more than {maximum:,}")
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
