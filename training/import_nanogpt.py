"""Turn nanoGPT's checkpoint into a folder: `python -m training.import_nanogpt --ckpt=F --meta=F --out_dir=DIR`.

Both of nanoGPT's files are pickles, which can contain code. They are read without running any, and in memory
bounded by their own size (`training.untrusted.reading`).
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from model.atomic_files import names_in, replacing
from model.checkpoint import MAX_SIZES, Checkpoint, TrainingRecord, write_checkpoint
from model.cli import SettingsPath, run, settings_config
from model.config import GPTConfig
from model.errors import CheckpointError, InputError
from model.flags import ProgramSettings
from model.vocabulary import Vocabulary
from model.weights import TYPE_NAMES, from_tensors
from training.nanogpt import read_meta
from training.untrusted.reading import read_torch_file

NAMES = {
    "transformer.wte.": "tokens.",
    "transformer.wpe.": "positions.",
    "transformer.ln_f.": "norm.",
    "transformer.h.": "blocks.",
    ".ln_1.": ".norm_attention.",
    ".attn.c_proj.": ".attention.output.",
    ".ln_2.": ".norm_mlp.",
    ".mlp.c_fc.": ".mlp.expand.",
    ".mlp.c_proj.": ".mlp.output.",
}
PREFIXES = ("_orig_mod.", "module.")  # of torch.compile and of DistributedDataParallel
HEAD = "lm_head.weight"
EMBEDDING = "transformer.wte.weight"
SIZES = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")
GPT2_VOCABULARY_SIZES = (50257, 50304)  # GPT-2's, and rounded up as nanoGPT does
MAX_LOSS = 1e6  # nats per character; nanoGPT begins with 1e9, before it has measured any
MAX_SETTINGS = 1000
MAX_SETTING_LENGTH = 1000  # characters, or items
MAX_LISTED_SETTINGS = 3  # in one line
MAX_SHOWN_SETTING = 60  # of a text from the file, in a message


class ImportSettings(ProgramSettings):
    """Turn nanoGPT's ckpt.pt and meta.pkl into a checkpoint folder, without running any code in them."""

    model_config = settings_config("training.import_nanogpt", "SOLILOQUY_IMPORT_")

    ckpt: SettingsPath
    """nanoGPT's out-*/ckpt.pt"""
    meta: SettingsPath
    """nanoGPT's data/*/meta.pkl"""
    out_dir: SettingsPath
    """Checkpoint folder to write"""


@dataclass(frozen=True)
class Imported:
    """The checkpoint, and notes for the user about what could not be imported as it was."""

    checkpoint: Checkpoint
    notes: list[str]


def import_nanogpt(settings: ImportSettings) -> None:
    """Read both files, check that they fit together, write the folder in fp32."""
    if settings.out_dir.is_file() or names_in(settings.out_dir):
        raise InputError("out_dir", f"{settings.out_dir} already exists, and is not empty; use another folder")
    saved = read_ckpt(settings.ckpt)
    vocabulary = read_meta(settings.meta)
    imported = convert(saved, vocabulary, settings.ckpt, settings.meta)
    checkpoint = imported.checkpoint
    with replacing(settings.out_dir) as new:
        write_checkpoint(new, checkpoint)
    for note in imported.notes:
        print(note)
    print(f"number of parameters: {checkpoint.parameter_count / 1e6:.2f}M")
    print(f"vocabulary of {len(vocabulary)} characters from {settings.meta}")
    print(f"wrote {settings.out_dir}")


def read_ckpt(path: Path) -> dict[str, Any]:
    """The content of nanoGPT's ckpt.pt: tensors and plain values.

    Raises:
        CheckpointError: missing, damaged, not nanoGPT's, or a pickle that would run code.
    """
    saved = read_torch_file(path)
    parts = ("model", "model_args")
    if not isinstance(saved, dict) or not all(isinstance(saved.get(part), dict) for part in parts):
        raise CheckpointError(f"{path}: not nanoGPT's: it has no model and model_args")
    return saved


def convert(saved: dict[str, Any], vocabulary: Vocabulary, path: Path, meta: Path) -> Imported:
    """The network under this project's names.

    Raises:
        CheckpointError: the parts do not fit together.
    """
    notes: list[str] = []
    config = _read_config(saved["model_args"], path, notes)
    if len(vocabulary) != config.vocab_size:
        tokens = " (GPT-2's tokens, not characters)" if config.vocab_size in GPT2_VOCABULARY_SIZES else ""
        raise CheckpointError(
            f"{path}: model_args has a vocab_size of {config.vocab_size}{tokens}, but {meta} has {len(vocabulary)} "
            "characters; the two files do not belong together"
        )
    weights = _read_weights(saved["model"], config, path)
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        renamed |= rename(name, tensor.float())
    record = TrainingRecord(recipe=_read_recipe(saved.get("config"), notes))
    loss = _plain_value(saved.get("best_val_loss"))
    if type(loss) is float and 0 <= loss < MAX_LOSS and _can_record({"val_loss": loss}):
        record["val_loss"] = loss
        record["val_method"] = "nanoGPT's own estimate, as stored in ckpt.pt"
    elif "best_val_loss" in saved:
        notes.append(f"best_val_loss is left out: {_shown(loss)} is not a loss that was measured")
    return Imported(Checkpoint(config, vocabulary, from_tensors(renamed), record), notes)


def _read_config(arguments: dict[Any, Any], path: Path, notes: list[str]) -> GPTConfig:
    """The architecture in model_args.

    Raises:
        CheckpointError: a value is missing, or out of range.
    """
    values: dict[str, Any] = {}
    for name in SIZES:
        if name not in arguments:
            raise CheckpointError(f"{path}: model_args has no {name}")
        value = _plain_value(arguments[name])
        if type(value) is not int or value < 1:
            raise CheckpointError(f"{path}: model_args: {name}: {_shown(value)} is not a whole number from 1 up")
        if value > MAX_SIZES.get(name, value):
            raise CheckpointError(f"{path}: model_args: {name}: {value:,} is more than {MAX_SIZES[name]:,}")
        values[name] = value
    bias = _plain_value(arguments.get("bias", True))
    if type(bias) is not bool:
        raise CheckpointError(f"{path}: model_args: bias: {_shown(bias)} is neither True nor False")
    if "bias" not in arguments:
        notes.append(
            "model_args has no bias: a checkpoint of January 2023 or before, with biases; nanoGPT's GELU was an "
            "approximation by tanh then, so that its logits differ a little from those here"
        )
    try:
        return GPTConfig(**values, bias=bias)
    except InputError as error:
        raise CheckpointError(f"{path}: model_args: {error}") from error


def expected_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of nanoGPT's tensors by its own names; without the head, which is tied to the embedding."""
    width = config.n_embd
    shapes: dict[str, tuple[int, ...]] = {
        EMBEDDING: (config.vocab_size, width),
        "transformer.wpe.weight": (config.block_size, width),
        "transformer.ln_f.weight": (width,),
    }
    for layer in range(config.n_layer):
        block = f"transformer.h.{layer}"
        shapes[f"{block}.ln_1.weight"] = (width,)
        shapes[f"{block}.attn.c_attn.weight"] = (3 * width, width)
        shapes[f"{block}.attn.c_proj.weight"] = (width, width)
        shapes[f"{block}.ln_2.weight"] = (width,)
        shapes[f"{block}.mlp.c_fc.weight"] = (4 * width, width)
        shapes[f"{block}.mlp.c_proj.weight"] = (width, 4 * width)
    if config.bias:
        biased = [name for name in shapes if ".h." in name or ".ln_f." in name]
        shapes |= {name.removesuffix("weight") + "bias": shapes[name][:1] for name in biased}
    return shapes


def _read_weights(model: dict[Any, Any], config: GPTConfig, path: Path) -> dict[str, Tensor]:
    """The network's tensors by nanoGPT's names, all of them checked.

    Raises:
        CheckpointError: names the first that is missing, unknown, duplicate, or not of this network.
    """
    weights = _without_prefixes(model, path)
    head = weights.pop(HEAD, None)
    expected = expected_shapes(config)
    for name, tensor in weights.items():
        if name not in expected:
            raise CheckpointError(f"{path}: has a tensor {_shown(name)}, which model_args does not ask for")
        if tuple(tensor.shape) != expected[name]:
            raise CheckpointError(
                f"{path}: {name} has the shape {tuple(tensor.shape)}, but model_args asks for {expected[name]}"
            )
        if str(tensor.dtype).removeprefix("torch.") not in TYPE_NAMES:
            raise CheckpointError(f"{path}: {name} has numbers of {tensor.dtype}, not of a floating-point type")
    for name in expected:
        if name not in weights:
            raise CheckpointError(f"{path}: has no tensor {name}, which model_args asks for")
    if sum(tensor.nbytes for tensor in weights.values()) > path.stat().st_size:
        raise CheckpointError(f"{path}: has tensors that share their numbers, as nanoGPT's do not")
    for name, tensor in weights.items():
        if not tensor.float().isfinite().all():
            raise CheckpointError(f"{path}: {name} has numbers that are not finite")
    if head is not None and (head.shape != expected[EMBEDDING] or not torch.equal(head, weights[EMBEDDING])):
        raise CheckpointError(f"{path}: {HEAD} is not tied to the embedding, as nanoGPT's is")
    return weights


def _without_prefixes(model: dict[Any, Any], path: Path) -> dict[str, Tensor]:
    """The tensors without the prefixes that wrappers add to their names, and without old versions' causal masks."""
    weights: dict[str, Tensor] = {}
    for given, tensor in model.items():
        if not isinstance(given, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(
                f"{path}: model has a {type(tensor).__name__} named {_shown(given)}, not a tensor"
            )
        name = given
        while name.startswith(PREFIXES):
            name = name.partition(".")[2]
        if name in weights:
            raise CheckpointError(f"{path}: has the tensor {_shown(name)} twice, with a prefix and without")
        if not name.endswith(".attn.bias"):
            weights[name] = tensor
    return weights


def _read_recipe(config: object, notes: list[str]) -> dict[str, Any]:
    """The run's settings that a checkpoint's record can hold; a note is added about the others."""
    recipe: dict[str, Any] = {}
    left_out: list[str] = []
    for name, value in (config if isinstance(config, dict) else {}).items():
        plain = _plain_value(value)
        if isinstance(name, str) and len(recipe) < MAX_SETTINGS and _fits_record(name, plain):
            recipe[name] = plain
        else:
            left_out.append(_shown(name))
    if left_out:
        listed = ", ".join(left_out[:MAX_LISTED_SETTINGS])
        if len(left_out) > MAX_LISTED_SETTINGS:
            listed += f" and {len(left_out) - MAX_LISTED_SETTINGS:,} more"
        notes.append(f"config: left out, as a checkpoint cannot hold them: {listed}")
    return recipe


def _fits_record(name: str, value: object) -> bool:
    """Whether a setting is short, and of a kind that a checkpoint's record can hold."""
    items = value if isinstance(value, list) else [value]
    if not _is_short(name) or len(items) > MAX_SETTING_LENGTH:
        return False
    return all(_is_short(item) for item in items) and _can_record({"recipe": {name: value}})


def _can_record(record: dict[str, Any]) -> bool:
    """Whether reading a checkpoint accepts these fields in its record."""
    try:
        TypeAdapter(TrainingRecord).validate_python(record, strict=True)
    except ValidationError:
        return False
    return True


def _plain_value(value: object) -> Any:
    """The value, with types, tensors of one number, sets and tuples turned into texts, numbers and lists."""
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.item()
    if isinstance(value, set):
        return sorted(value, key=repr)
    if isinstance(value, tuple):
        return list(value)
    return value


def _is_short(value: object) -> bool:
    """Whether a value is a short printable text, None, or a number that JSON can hold."""
    if isinstance(value, str):
        return len(value) <= MAX_SETTING_LENGTH and value.isprintable()
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or (isinstance(value, int) and abs(value) < 1 << 63)


def _shown(value: object) -> str:
    """A value from the file as a message shows it: itself, cut if it is long, or its type."""
    if value is None or isinstance(value, bool | int | float | str):
        text = repr(value)
        return text if len(text) <= MAX_SHOWN_SETTING else f"{text[:MAX_SHOWN_SETTING]}…"
    return f"a {type(value).__name__}"


def rename(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """One of nanoGPT's tensors under this project's name; the fused query, key and value become three tensors."""
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    if ".attn.c_attn." not in name:
        return {name: tensor}
    renamed: dict[str, Tensor] = {}
    for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
        renamed[name.replace(".attn.c_attn.", f".attention.{part}.")] = rows
    return renamed


if __name__ == "__main__":
    sys.exit(run(ImportSettings, import_nanogpt, sys.argv[1:]))
