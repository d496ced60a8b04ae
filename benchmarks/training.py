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
    """One step as nanoGPT's train.py takes it: float32 on a CPU, bf16 on a GPU; AdamW fused on a GPU only."""
    settings, device = trainer.settings, trainer.device
    cuda = device.type == "cuda"
    dropouts = settings.dropout, settings.attention_dropout, settings.embedding_dropout
    network = GPT(trainer.network.config, *dropouts).to(device)
    forward = torch.compile(network) if compile else network
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1, fused=cuda)
    ids, length = trainer.dataset.train, settings.block_size

    def step() -> None:
        starts = torch.randint(len(ids) - length, (settings.batch_size,)).numpy()
        inputs, targets = (part.to(device) for part in gather(ids, starts, length))
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
    """Mean over `steps`, the device's queue emptied before and after."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    wait()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    wait()
    return (time.perf_counter() - began) / steps


def main(settings: BenchmarkSettings) -> None:
    """Warm both loops up, let them take turns, print medians and their ratio."""
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
        loops = {"nanoGPT's loop": nanogpt_loop(trainer, settings.compile), "Soliloquy": trainer.step}
        times: dict[str, list[float]] = {name: [] for name in loops}
        for step in loops.values():
            seconds_per_step(step, 2, trainer.device)
        for _ in range(settings.rounds):
            for name, step in loops.items():
                times[name].append(seconds_per_step(step, settings.steps, trainer.device))
        trainer.close()
    medians = {name: statistics.median(found) for name, found in times.items()}
    report(trainer, medians)


def report(trainer: Trainer, medians: dict[str, float]) -> None:
    """Print each loop's speed, the ratio, and on a known GPU the share of its peak that the model's own use."""
    each, parameters = trainer.characters_per_step, trainer.checkpoint().parameter_count
    config, slowest = trainer.network.config, medians["nanoGPT's loop"]
    print(f"{parameters / 1e6:.2f}M parameters, {each:,} characters a step, {trainer.device.type}")
    for name, seconds in medians.items():
        print(f"{name:16} {each / seconds:10,.0f} characters/s {slowest / seconds:6.2f} x")
    if trainer.device.type == "cuda":
        name = torch.cuda.get_device_name()
        flops = 6 * parameters + 12 * config.n_layer * config.n_embd * config.block_size  # as nanoGPT (PaLM) counts
        peak = next((value for key, value in PEAK_FLOPS.items() if name.startswith(key)), None)
        if peak is not None:
            print(f"model FLOPs utilisation {flops * each / medians['Soliloquy'] / peak:.1%} of {name}'s bf16 peak")


if __name__ == "__main__":
    sys.exit(run(BenchmarkSettings, main, sys.argv[1:]))
