"""A real model, small enough to be made in milliseconds; what most tests run on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.analysis.report import Report, make_report
from model.analysis.text_index import TextIndex
from model.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from model.config import GPTConfig
from model.device import Numerics
from model.generation.generator import Generator, load_generator
from model.network import GPT
from model.sampling.ngram_draft import Draft, context_keys
from model.vocabulary import Vocabulary
from model.weights import from_tensors
from training.dataset import from_text
from training.index import make_index

CPU = Numerics("cpu", "float32")
WORDS = (
    "what light through yonder window breaks it is the east and juliet sun arise fair kill envious moon who "
    "already sick pale with grief that thou her maid art far more than she be not since vestal livery but green"
)
SPEAKERS = ("Romeo", "Juliet", "Nurse", "First Lord")
INT8 = Numerics("cpu", "int8")  # as a server computes without a GPU
HERE = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
DEVICES = [Numerics(name, "float32") for name, available in HERE.items() if available]
VOCABULARY = Vocabulary("\n !',-.:?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
LEARNED = GPTConfig(len(VOCABULARY), n_layer=2, n_head=2, n_embd=16, block_size=16)
ROTARY = replace(LEARNED, positions="rotary", norm="rmsnorm", activation="relu2", qk_norm=True)


def tiny_checkpoint(config: GPTConfig = ROTARY, seed: int = 0, **changes: Any) -> Checkpoint:
    """A checkpoint with random weights, large enough for its texts to depend on what they read."""
    config = replace(config, **changes)
    torch.manual_seed(seed)
    weights = {name: 8 * tensor for name, tensor in GPT(config).state_dict().items()}
    return Checkpoint(config, VOCABULARY, from_tensors(weights), {"val_loss": 4.0})


def tiny_generator(
    config: GPTConfig = ROTARY,
    slots: int = 4,
    numerics: Numerics = INT8,
    threads: int | None = None,
    checkpoint: Checkpoint | None = None,
    draft: Draft | None = None,
) -> Generator:
    """A generator over `tiny_checkpoint`, or another; with a draft, if one is given."""
    checkpoint = checkpoint or tiny_checkpoint(config)
    if draft is not None:
        checkpoint = replace(checkpoint, draft=draft)
    return load_generator(checkpoint, numerics, slots, threads)


def tiny_draft() -> Draft:
    """Draft tokens that are sometimes accepted, after contexts of up to two characters."""
    size = len(VOCABULARY)
    random = np.random.default_rng(0)
    contexts = [np.zeros((1, 0), np.int64), np.arange(size)[:, None], random.integers(0, size, (300, 2))]
    keys = np.unique(np.concatenate([context_keys(context, size) for context in contexts]))
    return Draft(keys, random.integers(0, 150, (len(keys), size)).astype(np.uint8))


def tiny_play(seed: int = 0, speeches: int = 200) -> str:
    """A play of words by chance, whose characters the tiny vocabulary has."""
    random = np.random.default_rng(seed)
    words = WORDS.split()
    parts = []
    for _ in range(speeches):
        lines = [" ".join(random.choice(words, random.integers(5, 9))).capitalize() for _ in range(3)]
        parts.append(f"{random.choice(SPEAKERS)}:\n" + ",\n".join(lines) + ".\n")
    return "\n".join(parts)


def tiny_index(text: str | None = None) -> TextIndex:
    """An index of nine tenths of the text, or of a play; it is compared with the last tenth."""
    dataset = from_text(tiny_play() if text is None else text, {"sha256": "0" * 64})
    return make_index(dataset, None)


def tiny_folder(folder: Path, config: GPTConfig = ROTARY, seed: int = 0, **changes: Any) -> Checkpoint:
    """`tiny_checkpoint` written to a folder and read back."""
    folder.mkdir(parents=True)
    write_checkpoint(folder, tiny_checkpoint(config, seed, **changes))
    return read_checkpoint(folder)


def report_of(text: str, checkpoint: Checkpoint, bits: float | None = None, **others: Any) -> Report:
    """A text's report by all that a checkpoint has for it."""
    return make_report(
        text,
        checkpoint.require_index(),
        checkpoint.draft,
        checkpoint.vocabulary,
        bits=bits,
        val_loss=checkpoint.training.get("val_loss"),
        **others,
    )
