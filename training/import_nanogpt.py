"""Turn nanoGPT's checkpoint into a folder: `python -m training.import_nanogpt --ckpt=F --meta=F --out_dir=DIR`.

Both of nanoGPT's files are pickles, which can carry code. Neither is ever allowed to run any.
"""

import pickle
import sys
from pathlib import Path
from typing import Any

import torch
from pydantic_settings import BaseSettings
from torch import Tensor

from model.checkpoint import Checkpoint, TrainingRecord, check_shapes, write_checkpoint
from model.cli import SettingsPath, run, settings_config
from model.config import GPTConfig
from model.errors import CheckpointError, InputError
from model.files import names_in, replacing
from model.vocabulary import Vocabulary

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


class ImportSettings(BaseSettings):
    """Turn nanoGPT's ckpt.pt and meta.pkl into a checkpoint folder, without running any code in them."""

    model_config = settings_config("training.import_nanogpt", "SOLILOQUY_IMPORT_")

    ckpt: SettingsPath
    """nanoGPT's out-*/ckpt.pt"""
    meta: SettingsPath
    """nanoGPT's data/*/meta.pkl"""
    out_dir: SettingsPath
    """Checkpoint folder to write"""


def import_nanogpt(settings: ImportSettings) -> None:
    """Read both files, check that they fit together, write the folder in fp32."""
    if settings.out_dir.is_file() or names_in(settings.out_dir):
        raise InputError("out_dir", f"{settings.out_dir} already exists, and is not empty; use another folder")
    saved = read_ckpt(settings.ckpt)
    vocabulary = read_meta(settings.meta)
    checkpoint = convert(saved, vocabulary, settings.ckpt)
    with replacing(settings.out_dir) as new:
        write_checkpoint(new, checkpoint)
    print(f"number of parameters: {checkpoint.parameter_count / 1e6:.2f}M")
    print(f"vocabulary of {len(vocabulary)} characters from {settings.meta}")
    print(f"wrote {settings.out_dir}")


def read_ckpt(path: Path) -> dict[str, Any]:
    """nanoGPT's ckpt.pt, tensors and plain values only.

    Raises:
        CheckpointError: missing, truncated, or a pickle that would run code.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        lines = [line for line in str(error).splitlines() if line.startswith(("Trying to load", "Unsupported"))]
        reason = lines[0] if lines else "weights-only load failed"
        raise CheckpointError(f"{path}: refused, it is not plain weights and may run code ({reason})") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: cannot be read as a PyTorch checkpoint ({error})") from error
    if not isinstance(saved, dict) or not isinstance(saved.get("model"), dict) or "model_args" not in saved:
        raise CheckpointError(f"{path}: not nanoGPT's: it has no model and model_args")
    return saved


class PlainUnpickler(pickle.Unpickler):
    """Reads strings, numbers, lists and dictionaries; refuses every name a pickle could call."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Called for each class or function that the pickle names."""
        raise pickle.UnpicklingError(f"it names {module_name}.{global_name}, which could run code")


def read_meta(path: Path) -> Vocabulary:
    """The characters in nanoGPT's meta.pkl, in id order.

    Raises:
        CheckpointError: missing, malformed, or a pickle that would run code.
    """
    try:
        with path.open("rb") as file:
            characters = PlainUnpickler(file).load()["itos"]
        return Vocabulary(characters[i] for i in range(len(characters)))
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: refused, {error}") from error
    except (OSError, EOFError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: not nanoGPT's meta.pkl ({error!r})") from error


def convert(saved: dict[str, Any], vocabulary: Vocabulary, path: Path) -> Checkpoint:
    """The same network under this project's names.

    Raises:
        CheckpointError: the parts do not fit together.
    """
    known = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size", "bias")
    try:
        config = GPTConfig(**{name: saved["model_args"][name] for name in known})
    except (KeyError, TypeError, InputError) as error:
        raise CheckpointError(f"{path}: model_args: {error}") from error
    if len(vocabulary) != config.vocab_size:
        raise CheckpointError(
            f"{path}: has a vocabulary of {config.vocab_size}, but the meta file has {len(vocabulary)} characters"
        )
    weights = {name.removeprefix("_orig_mod."): tensor for name, tensor in saved["model"].items()}
    head = weights.pop("lm_head.weight", None)
    if head is not None and not torch.equal(head, weights.get("transformer.wte.weight", head)):
        raise CheckpointError(f"{path}: lm_head.weight is not tied to the embedding, as nanoGPT's is")
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if not name.endswith(".attn.bias"):  # the causal mask of old versions, not a parameter
            renamed |= rename(name, tensor.float())
    check_shapes(path, config, renamed)
    record = TrainingRecord(recipe=dict(saved.get("config") or {}))
    if "best_val_loss" in saved:
        record["val_loss"] = float(saved["best_val_loss"])
        record["val_method"] = "nanoGPT's own estimate, as stored in ckpt.pt"
    return Checkpoint(config, vocabulary, renamed, record)


def rename(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """One of nanoGPT's tensors under our name; its fused query, key and value become three."""
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    if ".attn.c_attn." in name:
        parts = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
        return {name.replace(".attn.c_attn.", f".attention.{part}."): rows for part, rows in parts}
    return {name: tensor}


if __name__ == "__main__":
    sys.exit(run(ImportSettings, import_nanogpt, sys.argv[1:]))
