"""Train a model: `python -m training.train --data=data/NAME --out_dir=checkpoints/NAME --preset=NAME`."""

import signal
import sys
import threading
from types import FrameType

import torch
from tqdm import tqdm

from model.backend import EagerBackend
from model.checkpoint import CurvePoint
from model.cli import run
from model.device import Numerics
from model.generator import Generator
from model.stream import Stream
from training.dataset import Dataset
from training.settings import TrainSettings
from training.trainer import Trainer


def train(settings: TrainSettings) -> None:
    """Run with a progress bar; Ctrl-C or SIGTERM ends it after the step under way, with its state saved."""
    dataset = Dataset.load(settings.data)
    characters = settings.batch_size * settings.block_size

    def on_step(loss: float) -> None:
        bar.update(characters)
        bar.set_postfix(step=trainer.progress.step, loss=f"{loss:.4f}", refresh=False)

    def on_evaluation(point: CurvePoint) -> None:
        train_loss = "" if point["train"] is None else f"train loss {point['train']:.4f}, "
        bar.write(f"step {point['step']}: {train_loss}val loss {point['val']:.4f} nats/char")
        if settings.sample_tokens:
            bar.write(f"{sample_text(trainer, settings.sample_tokens)}\n---------------")

    trainer = Trainer(settings, dataset, on_step, on_evaluation)
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    print(f"number of parameters: {trainer.checkpoint().parameter_count / 1e6:.2f}M")
    print(f"training on {trainer.device.type} in {str(trainer.dtype).removeprefix('torch.')}, ", end="")
    print(f"{settings.max_iters} steps of {characters:,} characters")
    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    total, initial = settings.max_iters * characters, trainer.progress.step * characters
    bar = tqdm(total=total, initial=initial, unit="tok", unit_scale=True, dynamic_ncols=True)
    try:
        finished = trainer.run(stop.is_set)
    finally:
        bar.close()
        for number, handler in previous.items():
            signal.signal(number, handler)
    if not finished:
        print(f"stopped at step {trainer.progress.step}; go on with the same command and --resume=True")
        raise KeyboardInterrupt
    print(f"best val loss {trainer.progress.best:.4f} nats/char; checkpoint in {settings.out_dir}")


def sample_text(trainer: Trainer, length: int) -> str:
    """What the network writes now, always with the same luck."""
    numerics = Numerics(trainer.device, torch.float32)
    generator = Generator(EagerBackend(trainer.network, numerics, slots=1))
    vocabulary = trainer.dataset.vocabulary
    start = vocabulary.encode(vocabulary.characters[0])  # the line break, in most texts
    stream = Stream(vocabulary, start, max_new_tokens=length)
    return "".join(piece.text for piece in generator.write(stream))


if __name__ == "__main__":
    sys.exit(run(TrainSettings, train, sys.argv[1:]))
