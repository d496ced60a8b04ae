"""Measure a checkpoint's loss: `python -m training.evaluate --checkpoint=DIR --data=DIR`."""

import math
import sys
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from model.checkpoint import read_checkpoint
from model.cli import SettingsPath, run, settings_config
from model.device import choose_device, choose_numerics
from model.errors import InputError
from model.flags import DeviceFlag, ProgramSettings
from model.generation.generator import load_generator
from training.dataset import Dataset, translate
from training.evaluation import (
    Evaluation,
    estimate_as_nanogpt,
    evaluate,
    evaluate_backend,
    evaluate_rolling,
)


class EvaluateSettings(ProgramSettings):
    """Print a checkpoint's loss over a whole split, in nats and in bits per character."""

    model_config = settings_config("training.evaluate", "SOLILOQUY_EVALUATE_")

    checkpoint: SettingsPath = Path("checkpoints/shakespeare-char")
    """Checkpoint folder"""
    data: SettingsPath = Path("data/shakespeare-char")
    """Folder that training.prepare wrote"""
    split: Literal["val", "train"] = "val"
    """Which part of the text"""
    device: DeviceFlag = "auto"
    """Where to compute"""
    dtype: Literal["float32", "int8"] = "float32"
    """Number format; int8 by the generator's own kernel, on a CPU"""
    rolling: bool = False
    """Also the loss as served, through a rolling window (rotary models)"""
    nanogpt_batches: int = Field(0, ge=0)
    """Also nanoGPT's estimate, over so many random batches (nanoGPT itself takes 200)"""


def main(settings: EvaluateSettings) -> None:
    """Load both folders, evaluate, print."""
    checkpoint = read_checkpoint(settings.checkpoint)
    dataset = Dataset.load(settings.data)
    ids = dataset.val if settings.split == "val" else dataset.train
    ids = translate(ids, dataset.vocabulary, checkpoint.vocabulary)
    if settings.rolling and checkpoint.config.positions != "rotary":
        raise InputError("rolling", "learned positions cannot roll; leave the flag out")
    print(f"checkpoint {checkpoint.identity[:12]}, {settings.split} split of {dataset.source.get('name')}")
    print(f"number of parameters: {checkpoint.parameter_count:,}")
    if settings.dtype == "int8":
        if settings.nanogpt_batches:
            raise InputError("nanogpt_batches", "nanoGPT estimates in float32; leave out one of the flags")
        backend = load_generator(checkpoint, choose_numerics(settings.device, "int8"), slots=1).backend
        show(evaluate_backend(backend, ids, rolling=False, progress=True))
        if settings.rolling:
            show(evaluate_backend(backend, ids, rolling=True, progress=True))
        return
    network = checkpoint.network().to(choose_device(settings.device))
    show(evaluate(network, ids, torch.float32, progress=True))
    if settings.rolling:
        show(evaluate_rolling(network, ids, torch.float32, progress=True))
    if settings.nanogpt_batches:
        show(estimate_as_nanogpt(network, ids, torch.float32, settings.nanogpt_batches, progress=True))


def show(result: Evaluation) -> None:
    """Print a loss and how it was computed."""
    print(f"{result.method}; {result.characters:,} characters predicted")
    print(f"{result.loss:.4f} nats/char")
    print(f"{result.loss / math.log(2):.4f} bits/char", flush=True)


if __name__ == "__main__":
    sys.exit(run(EvaluateSettings, main, sys.argv[1:]))
