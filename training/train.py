"""Train a model: `python -m training.train --data=data/NAME`; several GPUs with `torchrun -m training.train …`."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import NoReturn

import torch
from tqdm import tqdm

from model.backends.eager import EagerBackend
from model.checkpoint import CurvePoint
from model.cli import run
from model.device import Numerics, keep_freed_memory
from model.errors import InputError
from model.generation.generator import Generator
from model.generation.sequence import TextSequence
from model.network import GPT
from model.vocabulary import Vocabulary
from training.dataset import Dataset
from training.distributed import Workers, join_workers
from training.extras import Extras
from training.run_folder import way_on
from training.settings import NANOGPT_FLAGS, TrainSettings
from training.trainer import Progress, Trainer, TrainingObserver

EVENT_FILES = "TensorBoard's event files"
MANY_PASSES = 30  # over the training text; nanoGPT's Shakespeare model is at its best after about 20


def train(settings: TrainSettings) -> None:
    """Run with a progress bar; Ctrl-C or SIGTERM ends it after the step under way, with its state saved."""
    keep_freed_memory()
    trainer: Trainer | None = None  # as long as it is none, what is in the folder may be another run's
    with ExitStack() as stack:
        workers = stack.enter_context(
            join_workers(lambda: way_on(settings.resume if trainer is None else trainer.saved))
        )
        stop = stack.enter_context(stop_signals())
        dataset = Dataset.load(settings.data)
        report = ConsoleReport(settings, dataset.vocabulary, workers)
        stack.callback(report.close)
        trainer = Trainer(settings, dataset, report, workers)
        stack.callback(trainer.close)
        if workers.leads:
            print_plan(trainer)
        seconds = trainer.time_steps()
        report.begin(trainer, seconds)
        finished = trainer.run(stop)
    if not workers.leads:
        return
    if not finished:
        print(f"stopped at step {trainer.progress.step}; go on with the same command and --resume=True")
        raise KeyboardInterrupt
    print(f"best val loss {trainer.progress.best:.4f} nats/char; checkpoint in {settings.out_dir}")


def print_plan(trainer: Trainer) -> None:
    """What the run will do."""
    settings, each = trainer.settings, trainer.characters_per_step
    total = settings.max_iters * each
    print(f"number of parameters: {trainer.checkpoint().parameter_count / 1e6:.2f}M")
    print(f"preset {settings.preset}, training on {trainer.device.type} in ", end="")
    print(f"{str(trainer.dtype).removeprefix('torch.')}, writing to {settings.out_dir}")
    print(f"{settings.max_iters:,} steps of {each:,} characters: {total:,}, ", end="")
    passes = total / len(trainer.dataset.train)
    print(f"{passes:.1f} times the training text")
    if passes > MANY_PASSES:
        print(
            "a text read so often is learned by heart: use fewer --max_iters, a smaller network or a longer text; "
            "the weights kept are those of the best validation loss"
        )


class ConsoleReport(TrainingObserver):
    """What a run shows: a progress bar, lines, TensorBoard's event files. Only the leading process shows it."""

    def __init__(self, settings: TrainSettings, vocabulary: Vocabulary, workers: Workers) -> None:
        self._settings, self._vocabulary, self._quiet = settings, vocabulary, not workers.leads
        self._extras = Extras(self.warn)
        self._bar: tqdm[NoReturn] | None = None
        self._write = event_writer(settings, self._extras) if workers.leads else None

    def begin(self, trainer: Trainer, seconds: float) -> None:
        """Say how long it will take at `seconds` a step, and show the bar."""
        self._each = trainer.characters_per_step
        total, initial = self._settings.max_iters * self._each, trainer.progress.step * self._each
        if not self._quiet:
            about = timedelta(seconds=round((total - initial) / self._each * seconds))
            print(f"{self._each / seconds:,.0f} characters a second: about {about} and the evaluations", flush=True)
        self._bar = tqdm(
            total=total, initial=initial, unit="tok", unit_scale=True, dynamic_ncols=True, disable=self._quiet
        )

    def step(self, progress: Progress, loss: float) -> None:
        """Move the bar on."""
        if self._bar is not None:
            self._bar.update(self._each)
            self._bar.set_postfix(step=progress.step, loss=f"{loss:.4f}", refresh=False)
            if progress.skipped and not self._quiet:
                self._bar.write(f"step {progress.step - 1}: the gradient is not finite; the step is skipped")
        self._record("loss/step", loss, progress.step)

    def evaluation(self, point: CurvePoint) -> None:
        """Show losses and the sample."""
        train_loss = "" if point["train"] is None else f"train loss {point['train']:.4f}, "
        tqdm.write(f"step {point['step']}: {train_loss}val loss {point['val']:.4f} nats/char")
        if point["sample"]:
            tqdm.write(f"{point['sample']}\n---------------")
        values = {"loss/train": point["train"], "loss/val": point["val"], "learning_rate": point["lr"]}
        for name, value in (values | {"tokens_per_second": point["tokens_per_second"]}).items():
            if value is not None:
                self._record(name, value, point["step"])

    def sample(self, network: GPT) -> str:
        """What the network writes now, always with the same luck."""
        return sample_text(network, self._vocabulary, self._settings.sample_tokens)

    def warn(self, message: str) -> None:
        """One line beside the bar."""
        tqdm.write(message, file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def _record(self, name: str, value: float, step: int) -> None:
        """One value for TensorBoard, if it is to have them."""
        if self._write is not None:
            self._extras.attempt(EVENT_FILES, partial(self._write, name, value, step), None)


def event_writer(settings: TrainSettings, extras: Extras) -> Callable[[str, float, int], None] | None:
    """Writes one scalar, if --tensorboard asks for it and its folder can be written.

    Raises:
        InputError: TensorBoard is not installed.
    """
    if settings.tensorboard is None:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - optional
    except ImportError as error:
        raise InputError(
            "tensorboard", "is not installed; pip install tensorboard, or leave the flag out"
        ) from error
    writer = extras.attempt(EVENT_FILES, partial(SummaryWriter, str(settings.tensorboard)), None)
    return None if writer is None else writer.add_scalar


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Within it Ctrl-C and SIGTERM end nothing; the yielded function says whether one came."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def sample_text(network: GPT, vocabulary: Vocabulary, length: int) -> str:
    """What the network writes now, always with the same luck."""
    if length == 0:
        return ""
    numerics = Numerics(next(network.parameters()).device, torch.float32)
    generator = Generator(EagerBackend(network, numerics, slots=1))
    start = vocabulary.encode(vocabulary.default_prompt)
    stream = TextSequence(vocabulary, start, max_new_tokens=length)
    return "".join(piece.text for piece in generator.write(stream))


if __name__ == "__main__":
    sys.exit(run(TrainSettings, train, sys.argv[1:], NANOGPT_FLAGS))
