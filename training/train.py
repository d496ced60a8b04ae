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
from training.best_effort import BestEffort
from training.dataset import Dataset
from training.distributed import Workers, join_workers
from training.resume import Progress, recovery_hint
from training.settings import NANOGPT_FLAGS, TrainSettings
from training.text_size import text_advice
from training.train_step import Objective
from training.trainer import Trainer, TrainingObserver

EVENT_FILES = "TensorBoard's event files"
MAX_ADVISED_EPOCHS = 30  # nanoGPT's Shakespeare model is at its best after about 20


def train(settings: TrainSettings, make_objective: Callable[[Dataset], Objective] | None = None) -> None:
    """Train with a progress bar; Ctrl-C or SIGTERM ends the run after the present step, with its state saved.

    Args:
        make_objective: returns what is minimised on a data set; None for the loss of its text.
    """
    keep_freed_memory()
    trainer: Trainer | None = None

    def hint() -> str:
        if trainer is None:  # a state in the folder may be another run's, unless this one is to resume it
            return recovery_hint(settings.resume)
        return recovery_hint(trainer.saved)

    with ExitStack() as stack:
        workers = stack.enter_context(join_workers(hint))
        stop = stack.enter_context(stop_signals())
        dataset = Dataset.load(settings.data)
        objective = None if make_objective is None else make_objective(dataset)
        console = ConsoleObserver(settings, dataset.vocabulary, workers)
        stack.callback(console.close)
        trainer = Trainer(settings, dataset, console, workers, objective)
        stack.callback(trainer.close)
        if workers.is_main:
            print_plan(trainer)
        seconds_per_step = trainer.time_steps()
        console.begin(trainer, seconds_per_step)
        finished = trainer.run(stop)
    if not workers.is_main:
        return
    if not finished:
        print(f"stopped at step {trainer.progress.step}; go on with the same command and --resume=True")
        raise KeyboardInterrupt
    if trainer.progress.step < settings.max_iters:
        count = trainer.progress.evaluations_since_best
        print(f"stopped early at step {trainer.progress.step}: no lower val loss in the last {count} evaluations")
    print(f"best val loss {trainer.progress.best:.4f} nats/char; checkpoint in {settings.out_dir}")


def print_plan(trainer: Trainer) -> None:
    """Print what the run will do."""
    settings = trainer.settings
    total = settings.max_iters * trainer.characters_per_step
    parameters = trainer.checkpoint().parameter_count
    print(f"number of parameters: {parameters / 1e6:.2f}M")
    if trainer.objective.teachers:
        identities = ", ".join(identity[:12] for identity in trainer.objective.teachers)
        print(f"teachers: {identities}; the train loss is by their probabilities")
    print(f"preset {settings.preset}, training on {trainer.device.type} in ", end="")
    print(f"{str(trainer.dtype).removeprefix('torch.')}, writing to {settings.out_dir}")
    print(f"{settings.max_iters:,} steps of {trainer.characters_per_step:,} characters: {total:,}, ", end="")
    epochs = total / len(trainer.dataset.train)
    print(f"{epochs:.1f} times the training text")
    vocab_size = len(trainer.dataset.vocabulary)
    on_gpu = trainer.device.type == "cuda"
    advice = text_advice(parameters, len(trainer.dataset.train), epochs, vocab_size, on_gpu)
    if advice is not None:
        print(advice)
    if epochs > MAX_ADVISED_EPOCHS:
        print(
            "a text read so often is learned by heart: use fewer --max_iters, a smaller network or a longer text; "
            "the weights kept are those of the best validation loss"
        )


class ConsoleObserver(TrainingObserver):
    """Shows a progress bar and lines, and writes TensorBoard's event files, in the main process only."""

    def __init__(self, settings: TrainSettings, vocabulary: Vocabulary, workers: Workers) -> None:
        self._settings = settings
        self._vocabulary = vocabulary
        self._quiet = not workers.is_main
        self._best_effort = BestEffort(self.warn)
        self._bar: tqdm[NoReturn] | None = None
        self._characters_per_step = 0
        self._write = event_writer(settings, self._best_effort) if workers.is_main else None

    def begin(self, trainer: Trainer, seconds_per_step: float) -> None:
        """Say how long the run will take, and show the bar."""
        self._characters_per_step = trainer.characters_per_step
        total = self._settings.max_iters * self._characters_per_step
        initial = trainer.progress.step * self._characters_per_step
        if not self._quiet:
            steps_left = (total - initial) / self._characters_per_step
            about = timedelta(seconds=round(steps_left * seconds_per_step))
            speed = self._characters_per_step / seconds_per_step
            print(f"{speed:,.0f} characters a second: about {about} and the evaluations", flush=True)
        self._bar = tqdm(
            total=total, initial=initial, unit="tok", unit_scale=True, dynamic_ncols=True, disable=self._quiet
        )

    def on_step(self, progress: Progress, loss: float) -> None:
        """Advance the bar."""
        if self._bar is not None:
            self._bar.update(self._characters_per_step)
            self._bar.set_postfix(step=progress.step, loss=f"{loss:.4f}", refresh=False)
            if progress.skipped and not self._quiet:
                self._bar.write(f"step {progress.step - 1}: the gradient is not finite; the step is skipped")
        self._record("loss/step", loss, progress.step)

    def on_evaluation(self, point: CurvePoint) -> None:
        """Show losses and the sample."""
        train_loss = "" if point["train"] is None else f"train loss {point['train']:.4f}, "
        tqdm.write(f"step {point['step']}: {train_loss}val loss {point['val']:.4f} nats/char")
        if point["sample"]:
            tqdm.write(f"{point['sample']}\n---------------")
        values = {
            "loss/train": point["train"],
            "loss/val": point["val"],
            "learning_rate": point["lr"],
            "tokens_per_second": point["tokens_per_second"],
        }
        for name, value in values.items():
            if value is not None:
                self._record(name, value, point["step"])

    def sample(self, network: GPT) -> str:
        """A sample text by the network as it is now, with the same seed each time."""
        return sample_text(network, self._vocabulary, self._settings.sample_tokens)

    def warn(self, message: str) -> None:
        """Print a line above the bar."""
        tqdm.write(message, file=sys.stderr)

    def close(self) -> None:
        """Leave the bar on the terminal as it is."""
        if self._bar is not None:
            self._bar.close()

    def _record(self, name: str, value: float, step: int) -> None:
        """Write one value for TensorBoard, if it is used."""
        if self._write is not None:
            self._best_effort.run(EVENT_FILES, partial(self._write, name, value, step), None)


def event_writer(settings: TrainSettings, best_effort: BestEffort) -> Callable[[str, float, int], None] | None:
    """A function that writes one scalar to TensorBoard's event files.

    None without --tensorboard, and if its folder cannot be written.

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
    writer = best_effort.run(EVENT_FILES, partial(SummaryWriter, str(settings.tensorboard)), None)
    return None if writer is None else writer.add_scalar


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """A context in which Ctrl-C and SIGTERM end nothing; the yielded function returns whether one was received."""
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
    """A text of `length` characters by the network as it is now, with the same seed each time."""
    if length == 0:
        return ""
    numerics = Numerics(str(next(network.parameters()).device), "float32")
    generator = Generator(EagerBackend(network, numerics, slots=1))
    start = vocabulary.encode(vocabulary.default_prompt)
    sequence = TextSequence(vocabulary, start, max_new_tokens=length)
    return "".join(chunk.text for chunk in generator.write(sequence))


if __name__ == "__main__":
    sys.exit(run(TrainSettings, train, sys.argv[1:], NANOGPT_FLAGS))
