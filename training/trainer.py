"""The training loop: steps, evaluations, the best checkpoint kept, and the state to resume from.

Owns when things happen in a run; what a step does is `training.train_step`'s, what a resumed run restores is
`training.resume`'s, and how files are replaced is `training.run_folder`'s. Knows nothing of the terminal.

Only the main process evaluates, saves and prints; the others take the same steps.
"""

import copy
import dataclasses
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property, partial

import torch

from model.analysis.text_index import TextIndex
from model.checkpoint import Checkpoint, CurvePoint, TrainingRecord
from model.device import choose_device
from model.errors import DivergedError, InputError, SoliloquyError
from model.network import GPT
from model.sampling.ngram_draft import Draft
from training.best_effort import BestEffort
from training.dataset import Dataset, EpochBatches, RandomBatches, split_calibration
from training.distributed import Workers
from training.draft import make_draft
from training.ema import MovingAverage
from training.evaluation import Evaluation, evaluate, fit_logit_scale
from training.index import make_index
from training.ngram import baselines
from training.optimizers import learning_rate_factor, make_optimizers
from training.resume import Progress, RunParts, collect_state, has_state, restore_state, resume
from training.run_folder import RunFolder, checkpoint_of, current_commit, snapshot_steps
from training.settings import TrainSettings
from training.train_step import Objective, TrainStep, training_dtype

NOT_IN_RECIPE = {"data", "out_dir", "resume", "tensorboard", "teachers"}  # paths, and what changes no weight
MAX_SKIPPED_STEPS = 2  # in a row, without a finite gradient; one more ends the run


class TrainingObserver:
    """Hears what happens in a run, and writes its sample texts. This one does nothing."""

    def on_step(self, progress: Progress, loss: float) -> None:
        """A step was taken, with this mean loss in nats per character."""

    def on_evaluation(self, point: CurvePoint) -> None:
        """An evaluation was made and saved."""

    def sample(self, network: GPT) -> str:
        """A text by `network`, which is in evaluation mode; leaves PyTorch's random state as it is."""
        return ""

    def warn(self, message: str) -> None:
        """Optional work has failed, and the run goes on without it."""


class Trainer:
    """One run.

    Raises:
        InputError, DataError, DeviceError, CheckpointError, SaveError: what cannot be used, before the first step.
    """

    def __init__(
        self,
        settings: TrainSettings,
        dataset: Dataset,
        observer: TrainingObserver | None = None,
        workers: Workers | None = None,
        objective: Objective | None = None,
    ) -> None:
        split = split_calibration(dataset.train, settings.calibration, settings.block_size)
        self.settings = settings
        self.dataset = dataset
        self.observer = observer or TrainingObserver()
        self.workers = workers or Workers()
        self.objective = objective or Objective()
        self.best_effort = BestEffort(self.observer.warn)
        self.device = torch.device(choose_device(settings.device))
        self.dtype = training_dtype(self.device, settings.dtype)
        if settings.batch_size % self.workers.world_size:
            raise InputError(
                "batch_size",
                f"{settings.batch_size} rows cannot be shared by {self.workers.world_size} processes",
            )
        torch.manual_seed(settings.seed)  # the weights
        self.network = GPT(
            settings.architecture(len(dataset.vocabulary)),
            settings.dropout,
            settings.attention_dropout,
            settings.embedding_dropout,
        ).to(self.device)
        self.average = MovingAverage(self.network, settings.ema) if settings.ema else None
        self.optimizers = make_optimizers(self.network, settings)
        self._parts = RunParts(
            self.network, self.average, self.optimizers, dataset.fingerprint, self.objective.teachers
        )
        self.progress = Progress()
        self.commit = current_commit()  # now: the source may change while the run goes on
        self.folder: RunFolder | None = None
        if self.workers.is_main:
            self.folder = RunFolder(settings.out_dir, settings.resume, settings.snapshots > 0)
        if settings.resume:
            try:
                self.progress = resume(settings, self._parts)
            except SoliloquyError:
                self.close()
                raise
        batches = EpochBatches if settings.batches == "epochs" else RandomBatches
        rows = settings.batch_size * settings.gradient_accumulation_steps
        self.characters_per_step = rows * settings.block_size  # read by all processes together
        self._calibration_ids = split.calibration
        self._train_step = TrainStep(
            self.network,
            self.optimizers,
            batches(split.train, rows, settings.block_size, settings.seed),
            settings,
            self.workers,
            self.dtype,
            self.objective,
        )

    @property
    def evaluated_network(self) -> GPT:
        """What is evaluated, sampled and kept: the average of the weights if there is one, else the network."""
        return self.network if self.average is None else self.average.network

    @property
    def out_of_patience(self) -> bool:
        """Whether the last `patience` evaluations found no lower loss; only the main process knows."""
        if not self.workers.is_main or not self.settings.patience:
            return False
        return self.progress.evaluations_since_best >= self.settings.patience

    @property
    def saved(self) -> bool:
        """Whether any process of this run has saved a state to resume from."""
        return has_state(self.settings.out_dir)

    def close(self) -> None:
        """Let another run use the folder."""
        if self.folder is not None:
            self.folder.close()

    def run(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to `max_iters`, or until the run is out of patience; return False if `stop()` ended it before.

        Either way the state is saved.

        Raises:
            DivergedError: three steps in a row, or an evaluation, were not finite; nothing of them is saved.
            SaveError: the disk is full.
        """
        try:
            finished = self._run(stop)
            if not finished:
                self._save()
            return finished
        finally:
            self.close()

    def _run(self, stop: Callable[[], bool]) -> bool:
        progress = self.progress
        if self.workers.is_main and not progress.baselines:
            progress.baselines = self.best_effort.run("baselines", self._compute_baselines, {})
        began = time.monotonic() - progress.seconds
        while progress.step < self.settings.max_iters:
            if progress.step % self.settings.eval_interval == 0:
                self._evaluate()
            self._snapshot()
            # All processes stop at the same step.
            stopped, out_of_patience = self.workers.all_reduce_sum(stop(), self.out_of_patience)
            if stopped:
                return False
            if out_of_patience:
                return True
            loss = self.train_step()
            progress.losses.append(loss)
            progress.step += 1
            progress.seconds = time.monotonic() - began
            self.observer.on_step(progress, loss)
        self._evaluate()
        self._snapshot()
        return True

    def time_steps(self, steps: int = 2) -> float:
        """Seconds per step on this machine, the mean over `steps` steps after one to warm up; all are undone."""
        before = copy.deepcopy(self._state())
        self.train_step()
        began = time.monotonic()
        for _ in range(steps):
            self.train_step()
        seconds = (time.monotonic() - began) / steps
        self.progress = restore_state(before, self._parts)
        return seconds

    def train_step(self) -> float:
        """Take the next step; return the mean loss in nats per character. The caller counts the step.

        Raises:
            DivergedError: there was no finite gradient for more than `MAX_SKIPPED_STEPS` steps in a row.
        """
        progress = self.progress
        result = self._train_step.take(progress.step)
        if result.finite:
            progress.skipped = 0
            if self.average is not None:
                self.average.update(progress.step)
            return result.loss
        progress.skipped += 1
        if progress.skipped > MAX_SKIPPED_STEPS:
            raise DivergedError(
                f"step {progress.step}: loss {result.loss}, and no finite gradient for {progress.skipped} steps; "
                f"{self._divergence_hint()}"
            )
        return result.loss

    def checkpoint(self, val_method: str = "") -> Checkpoint:
        """The evaluated network as it is now."""
        network = self.evaluated_network
        return checkpoint_of(network, self.dataset.vocabulary, self._record(val_method))

    @cached_property
    def draft(self) -> Draft | None:
        """The n-gram table that goes with the weights; None if it cannot be made."""
        make = partial(make_draft, self.dataset.train, self.network.config.vocab_size)
        return self.best_effort.run("draft table", make, None)

    @cached_property
    def index(self) -> TextIndex | None:
        """The index of the training text that goes with the weights; None if it cannot be made."""
        return self.best_effort.run(
            "index of the training text", partial(make_index, self.dataset, self.draft), None
        )

    def _evaluate(self) -> None:
        """Measure the validation loss once per step number, keep the weights if it is the lowest, save."""
        progress = self.progress
        if not self.workers.is_main or (progress.curve and progress.curve[-1]["step"] == progress.step):
            return
        self._calibrate()
        result = evaluate(self.evaluated_network, self.dataset.val, self.dtype, self.settings.eval_blocks)
        if not math.isfinite(result.loss):
            raise DivergedError(
                f"step {progress.step}: the validation loss is {result.loss}; {self._divergence_hint()}"
            )
        finite = [loss for loss in progress.losses if math.isfinite(loss)]
        point = CurvePoint(
            step=progress.step,
            train=sum(finite) / len(finite) if finite else None,
            val=result.loss,
            lr=self.settings.learning_rate * learning_rate_factor(progress.step, self.settings),
            tokens_per_second=self._characters_per_second(),
            sample=self.best_effort.run("samples", partial(self.observer.sample, self.evaluated_network), ""),
        )
        progress.curve.append(point)
        progress.losses.clear()
        improved = result.loss < progress.best
        progress.best = min(result.loss, progress.best)
        self._save(result if improved else None)
        self.observer.on_evaluation(point)

    def _calibrate(self) -> None:
        """Put the network into evaluation mode, its logits scaled to fit the calibration text if there is one."""
        network = self.evaluated_network.eval()
        if len(self._calibration_ids):
            network.logit_scale = fit_logit_scale(network, self._calibration_ids, self.dtype)

    def _divergence_hint(self) -> str:
        """What a user can do about numbers that are no longer finite."""
        if self.saved:
            return "what was saved last is whole: go on from it with --resume=True and a smaller --learning_rate"
        return "nothing was saved yet: begin again with a smaller --learning_rate"

    def _compute_baselines(self) -> dict[str, float]:
        return baselines(self.dataset.train, self.dataset.val, len(self.dataset.vocabulary))

    def _characters_per_second(self) -> float | None:
        """The speed from the beginning of the run to now, evaluations included; None before the first step."""
        progress = self.progress
        return progress.step * self.characters_per_step / progress.seconds if progress.seconds else None

    def _save(self, best: Evaluation | None = None) -> None:
        """Save the state; with `best`, the evaluation of the present weights, also these as the best ones."""
        if self.folder is None:
            return
        checkpoint = None
        if best is not None:
            checkpoint = dataclasses.replace(self.checkpoint(best.method), draft=self.draft, index=self.index)
        self.folder.save(self._state(), checkpoint)

    def _snapshot(self) -> None:
        """Keep the weights if a snapshot is due at this step."""
        settings = self.settings
        step = self.progress.step
        if self.folder is not None and step in snapshot_steps(settings.max_iters, settings.snapshots):
            self._calibrate()
            self.best_effort.run("snapshots", partial(self.folder.snapshot, step, self.checkpoint()), None)

    def _state(self) -> dict[str, object]:
        return collect_state(self._parts, self.progress)

    def _record(self, val_method: str) -> TrainingRecord:
        recipe = self.settings.model_dump(mode="json", exclude=NOT_IN_RECIPE)
        if self.objective.teachers:
            recipe["teachers"] = list(self.objective.teachers)
        return TrainingRecord(
            dataset=self.dataset.source,
            recipe=recipe | {"device": self.device.type, "dtype": str(self.dtype).removeprefix("torch.")},
            curve=self.progress.curve,
            val_loss=self.progress.best,
            val_method=val_method,
            baselines=self.progress.baselines,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=self.commit,
            seconds=round(self.progress.seconds, 1),
        )
