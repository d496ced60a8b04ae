"""Measure a checkpoint's loss: `python -m training.evaluate --checkpoint=DIR --data=DIR`."""

import math
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from pydantic_settings import BaseSettings

from model.checkpoint import read_checkpoint
from model.cli import run, settings_config
from model.device import DeviceName, choose_device
from model.errors import DataError, InputError
from model.vocabulary import Vocabulary
from training.dataset import Dataset, Ids
from training.evaluation import Evaluation, estimate_as_nanogpt, evaluate, evaluate_rolling


class EvaluateSettings(BaseSettings):
    """Print a checkpoint's loss over a whole split, in nats and in bits per character."""

    model_config = settings_config("training.evaluate", "SOLILOQUY_EVALUATE_")

    checkpoint: Path = Path("checkpoints/shakespeare-char")
    """Checkpoint folder"""
    data: Path = Path("data/shakespeare-char")
    """Folder that training.prepare wrote"""
    split: Literal["val", "train"] = "val"
    """Which part of the text"""
    device: DeviceName = "auto"
    """Where to compute, in float32"""
    rolling: bool = False
    """Also the loss as served, through a rolling window (rotary models)"""
    nanogpt_batches: int = Field(0, ge=0)
    """Also nanoGPT's estimate, over so many random batches (nanoGPT itself takes 200)"""


def main(settings: EvaluateSettings) -> None:
    """Load both folders, evaluate in float32, print."""
    checkpoint = read_checkpoint(settings.checkpoint)
    dataset = Dataset.load(settings.data)
    ids = dataset.val if settings.split == "val" else dataset.train
    ids = translate(ids, dataset.vocabulary, checkpoint.vocabulary)
    network = checkpoint.network().to(choose_device(settings.device))
    print(f"checkpoint {checkpoint.identity[:12]}, {settings.split} split of {dataset.source.get('name')}")
    print(f"number of parameters: {checkpoint.parameter_count:,}")
    show(evaluate(network, ids, torch.float32, progress=True))
    if settings.rolling:
        if checkpoint.config.positions != "rotary":
            raise InputError("rolling", "learned positions cannot roll; leave the flag out")
        show(evaluate_rolling(network, ids, torch.float32, progress=True))
    if settings.nanogpt_batches:
        show(estimate_as_nanogpt(network, ids, torch.float32, settings.nanogpt_batches, progress=True))


def show(result: Evaluation) -> None:
    """Print a loss and how it was computed."""
    print(f"{result.method}; {result.characters:,} characters predicted")
    print(f"{result.loss:.4f} nats/char")
    print(f"{result.loss / math.log(2):.4f} bits/char", flush=True)


def translate(ids: Ids, data: Vocabulary, model: Vocabulary) -> Ids:
    """The same text in the model's ids.

    Raises:
        DataError: the text has characters that the model does not know.
    """
    if data.characters == model.characters:
        return ids
    unknown = [c for c in data.characters if c not in model.characters]
    if unknown:
        raise DataError(f"the data set has characters that the model has never seen: {''.join(unknown)!r}")
    table = np.array(model.encode("".join(data.characters)), dtype=np.uint16)
    translated: Ids = table[ids]
    return translated


if __name__ == "__main__":
    sys.exit(run(EvaluateSettings, main, sys.argv[1:]))
