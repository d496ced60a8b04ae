"""Characters a second of training: nanoGPT's loop, then Soliloquy's, on the same network and batches.

python -m benchmarks.training [--data=data/shakespeare-char] [--device=auto] [--steps=8] [--compile=True]
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import Field
from pydantic_settings import BaseSettings
from torch.nn import functional as F

from model.cli import run, settings_config
from model.device import DeviceName, keep_freed_memory
from model.network import GPT
from training.dataset import Dataset, gather
from training.settings import TrainSettings
from training.trainer import Trainer

PEAK_FLOPS = {"NVIDIA H200": 989e12, "NVIDIA H100": 989e12, "NVIDIA A100": 312e12}  # dense bf16, vendor's figure


class BenchmarkSettings(BaseSettings):
    """Measure training, the two loops in turns, so that the ratio holds whatever else the machine does."""

    model_config = settings_config("benchmarks.training", "SOLILOQUY_BENCHMARK_")

    data: Path = Path("data/shakespeare-char")
    """Folder that training.prepare wrote"""
    device: DeviceName = "auto"
    """Where to compute"""
    batch_size: int = Field(16, ge=1)
    """Rows of 256 characters per step"""
    steps: int = Field(4, ge=1)
    """Steps of each loop in a round"""
    rounds: int = Field(3, ge=1)
    """Times that the loops take turns"""
    compile: bool = False
    """Compile both networks"""


def nanogpt_loop(trainer: Trainer, compile: bool) -> Callable[[], None]:
    """A function that takes one step as nanoGPT's train.py does.

    It computes in float32 on a CPU and in bf16 on a GPU, and fuses AdamW on a GPU only.
    """
    settings = trainer.settings
    device = trainer.device
    cuda = device.type == "cuda"
    dropouts = settings.dropout, settings.attention_dropout, settings.embedding_dropout
    network = GPT(trainer.network.config, *dropouts).to(device)
    forward = torch.compile(network) if compile else network
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1, fused=cuda)
    ids = trainer.dataset.train
    length = settings.block_size

    def step() -> None:
        starts = torch.randint(len(ids) - length, (settings.batch_size,)).numpy()
        inputs, targets = gather(ids, starts, length)
        inputs = inputs.to(device)
        targets = targets.to(device)
        network.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=cuda):
            logits = forward(inputs)
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def seconds_per_step(step: Callable[[], object], steps: int, device: torch.device) -> float:
    """The mean over `steps`; the device finishes all its work before the clock starts and before it stops."""

    def synchronize() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    synchronize()
    return (time.perf_counter() - began) / steps


def main(settings: BenchmarkSettings) -> None:
    """Warm both loops up, run them in turns, print medians and their ratio."""
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        training = TrainSettings(
            data=settings.data,
            out_dir=Path(folder) / "run",
            preset="shakespeare-char",  # nanoGPT's network, dropout and optimizer
            batch_size=settings.batch_size,
            device=settings.device,
            compile=settings.compile,
        )
        trainer = Trainer(training, Dataset.load(settings.data))
        loops = {"nanoGPT's loop": nanogpt_loop(trainer, settings.compile), "Soliloquy": trainer.train_step}
        times: dict[str, list[float]] = {name: [] for name in loops}
        for step in loops.values():
            seconds_per_step(step, 2, trainer.device)
        for _ in range(settings.rounds):
            for name, step in loops.items():
                times[name].append(seconds_per_step(step, settings.steps, trainer.device))
        trainer.close()
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    report(trainer, medians)


def report(trainer: Trainer, medians: dict[str, float]) -> None:
    """Print each loop's speed, the ratio, and on a known GPU the model FLOPs utilisation."""
    characters = trainer.characters_per_step
    parameters = trainer.checkpoint().parameter_count
    config = trainer.network.config
    baseline = medians["nanoGPT's loop"]
    print(f"{parameters / 1e6:.2f}M parameters, {characters:,} characters a step, {trainer.device.type}")
    for name, seconds in medians.items():
        print(f"{name:16} {characters / seconds:10,.0f} characters/s {baseline / seconds:6.2f} x")
    if trainer.device.type == "cuda":
        name = torch.cuda.get_device_name()
        attention_flops = 12 * config.n_layer * config.n_embd * config.block_size
        flops_per_character = 6 * parameters + attention_flops  # as nanoGPT counts, after PaLM
        flops_per_second = flops_per_character * characters / medians["Soliloquy"]
        for gpu, peak in PEAK_FLOPS.items():
            if name.startswith(gpu):
                print(f"model FLOPs utilisation {flops_per_second / peak:.1%} of {name}'s bf16 peak")


if __name__ == "__main__":
    sys.exit(run(BenchmarkSettings, main, sys.argv[1:]))
