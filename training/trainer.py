"""The training loop: steps, evaluations, the best checkpoint kept, and the state to resume from.

A run that was stopped and resumed takes the same steps as one that was not: each step's batch and dropout are
functions of the seed and the step's number. Knows nothing of the terminal.
"""

import copy
import dataclasses
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Annotated, Any, cast

import numpy as np
import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from model.checkpoint import Checkpoint, CurvePoint, TrainingRecord
from model.device import choose_device, training_dtype
from model.errors import CheckpointError, DivergedError, InputError
from model.network import GPT
from training.dataset import Dataset, EpochBatches, RandomBatches, hold_out
from training.distributed import Workers
from training.draft import make_draft
from training.evaluation import Evaluation, evaluate, fit_logit_scale
from training.extras import Extras
from training.index import make_index
from training.ngram import baselines
from training.optimizers import check_states, learning_rate_factor, make_optimizers, step_all
from training.run_folder import (
    RESUME_FILE,
    RunFolder,
    current_commit,
    has_state,
    load_state,
    snapshot_steps,
    unusable,
)
from training.settings import TrainSettings

SKIPS_ALLOWED = 2  # steps in a row without a finite gradient; one more ends the run


@dataclasses.dataclass
class Progress:
    """How far a run has come; all that changes besides weights and optimizers."""

    step: Annotated[int, Field(ge=0)] = 0
    seconds: float = 0.0
    curve: list[CurvePoint] = dataclasses.field(default_factory=list)
    best: float = float("inf")
    losses: list[float] = dataclasses.field(default_factory=list)  # of the steps since the last evaluation
    skipped: int = 0  # steps in a row without a finite gradient
    baselines: dict[str, float] = dataclasses.field(default_factory=dict)  # found once, when the run begins


class TrainingObserver:
    """Is told what happens in a run, and writes the sample texts; this one does nothing."""

    def step(self, progress: Progress, loss: float) -> None:
        """A step has been taken, with this mean loss in nats per character."""

    def evaluation(self, point: CurvePoint) -> None:
        """An evaluation has been made and saved."""

    def sample(self, network: GPT) -> str:
        """A text by `network`, in evaluation mode, without touching PyTorch's random state."""
        return ""

    def warn(self, message: str) -> None:
        """Something that the run can do without has failed."""


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
    ) -> None:
        train, self.held_out = hold_out(dataset.train, settings.calibration, settings.block_size)
        self.settings, self.dataset = settings, dataset
        self.observer, self.workers = observer or TrainingObserver(), workers or Workers()
        self.extras = Extras(self.observer.warn)
        self.device = choose_device(settings.device)
        self.dtype = training_dtype(self.device, settings.dtype)
        if settings.batch_size % self.workers.count:
            raise InputError(
                "batch_size", f"{settings.batch_size} rows cannot be shared by {self.workers.count} processes"
            )
        torch.manual_seed(settings.seed)
        config = settings.architecture(len(dataset.vocabulary))
        dropouts = settings.dropout, settings.attention_dropout, settings.embedding_dropout
        self.network = GPT(config, *dropouts).to(self.device)
        self.optimizers = make_optimizers(self.network, settings)
        batches = EpochBatches if settings.batches == "epochs" else RandomBatches
        rows = settings.batch_size * settings.gradient_accumulation_steps
        self.batch = batches(train, rows, settings.block_size, settings.seed)
        self.progress = Progress()
        self.commit = current_commit()  # now: the source may change while the run goes on
        self.folder: RunFolder | None = None
        if self.workers.leads:
            self.folder = RunFolder(settings.out_dir, settings.resume, settings.snapshots > 0)
        if settings.resume:
            try:
                self._resume(load_state(settings.out_dir, self.device))
            except CheckpointError:
                self.close()
                raise
        self.forward: nn.Module = cast(nn.Module, torch.compile(self.network)) if settings.compile else self.network
        if self.workers.count > 1:
            self.forward = DistributedDataParallel(self.forward)

    @property
    def saved(self) -> bool:
        """Whether there is something of this run to resume, whichever process saved it."""
        return has_state(self.settings.out_dir)

    def close(self) -> None:
        """Let another run use the folder."""
        if self.folder is not None:
            self.folder.close()

    def run(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to `max_iters`; return False if `stop()` ended it early. Either way the state is saved.

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
        settings, progress = self.settings, self.progress
        if self.workers.leads and not progress.baselines:
            progress.baselines = self.extras.attempt("baselines", self._baselines, {})
        began = time.monotonic() - progress.seconds
        while progress.step < settings.max_iters:
            if progress.step % settings.eval_interval == 0:
                self._evaluate()
            self._snapshot()
            if any(self.workers.total(stop())):
                return False
            loss = self.step()
            progress.losses.append(loss)
            progress.step += 1
            progress.seconds = time.monotonic() - began
            self.observer.step(progress, loss)
        self._evaluate()
        self._snapshot()
        return True

    def time_steps(self, steps: int = 2) -> float:
        """Seconds a step takes here, measured on `steps` of them that then leave no trace (one more warms up)."""
        before = copy.deepcopy(self._state())
        self.step()
        began = time.monotonic()
        for _ in range(steps):
            self.step()
        seconds = (time.monotonic() - began) / steps
        self._restore(before)
        return seconds

    def checkpoint(self, val_method: str = "") -> Checkpoint:
        """The network as it is now."""
        record = self._record(val_method)
        config = dataclasses.replace(self.network.config, logit_scale=self.network.logit_scale)
        return Checkpoint(config, self.dataset.vocabulary, self.network.state_dict(), record)

    @cached_property
    def companions(self) -> dict[str, Any]:
        """What goes with the weights: a table of guesses, and an index of the training text."""
        attempt, dataset = self.extras.attempt, self.dataset
        draft = attempt("draft table", lambda: make_draft(dataset.train, self.network.config.vocab_size), None)
        index = attempt("index of the training text", lambda: make_index(dataset, draft), None)
        return {"draft": draft, "index": index}

    @property
    def characters_per_step(self) -> int:
        """Characters read by one step, of all processes together."""
        return self.batch.batch_size * self.settings.block_size

    def step(self) -> float:
        """One step of all processes together; returns the mean loss in nats per character."""
        step, accumulation = self.progress.step, self.settings.gradient_accumulation_steps
        draws = np.random.SeedSequence((self.settings.seed, step, self.workers.rank))
        torch.manual_seed(int(draws.generate_state(1)[0]))
        self.network.train()
        inputs, targets = self.batch(step)
        own = self.workers.rows(len(inputs))
        total = torch.zeros((), device=self.device)
        parts = list(
            zip(inputs[own].tensor_split(accumulation), targets[own].tensor_split(accumulation), strict=True)
        )
        for i, (x, y) in enumerate(parts):
            with self._together(last=i == len(parts) - 1):
                loss = self._loss(x, y) / targets.numel()
                (loss * self.workers.count).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        [mean] = self.workers.total(total.item())
        factor = learning_rate_factor(step, self.settings)
        if step_all(self.optimizers, self.network, factor, self.settings.grad_clip):
            self.progress.skipped = 0
        else:
            self.progress.skipped += 1
            if self.progress.skipped > SKIPS_ALLOWED:
                raise DivergedError(
                    f"step {step}: loss {mean}, and no finite gradient for {self.progress.skipped} steps; "
                    f"{self._way_on}"
                )
        return mean

    def _together(self, last: bool) -> Any:
        """Processes exchange gradients in the last part of a step only."""
        if last or not isinstance(self.forward, DistributedDataParallel):
            return nullcontext()
        return self.forward.no_sync()

    def _loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Summed loss in nats of rows (B, T)."""
        inputs, targets = (part.to(self.device, non_blocking=True) for part in (inputs, targets))
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits = self.forward(inputs)  # (B, T, V)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum")

    def _evaluate(self) -> None:
        """Measure the validation loss once per step number, keep the weights if it is the best, save."""
        progress, settings = self.progress, self.settings
        if not self.workers.leads or (progress.curve and progress.curve[-1]["step"] == progress.step):
            return
        self._calibrate()
        result = evaluate(self.network, self.dataset.val, self.dtype, settings.eval_blocks)
        if not math.isfinite(result.loss):
            raise DivergedError(f"step {progress.step}: the validation loss is {result.loss}; {self._way_on}")
        finite = [loss for loss in progress.losses if math.isfinite(loss)]
        point = CurvePoint(
            step=progress.step,
            train=sum(finite) / len(finite) if finite else None,
            val=result.loss,
            lr=settings.learning_rate * learning_rate_factor(progress.step, settings),
            tokens_per_second=self._speed(),
            sample=self.extras.attempt("samples", lambda: self.observer.sample(self.network), ""),
        )
        progress.curve.append(point)
        progress.losses.clear()
        improved = result.loss < progress.best
        progress.best = min(result.loss, progress.best)
        self._save(result if improved else None)
        self.observer.evaluation(point)

    @property
    def _way_on(self) -> str:
        """What to do about numbers that are no longer finite."""
        if self.saved:
            return "what was saved last is whole: go on from it with --resume=True and a smaller --learning_rate"
        return "nothing was saved yet: begin again with a smaller --learning_rate"

    def _baselines(self) -> dict[str, float]:
        return baselines(self.dataset.train, self.dataset.val, len(self.dataset.vocabulary))

    def _calibrate(self) -> None:
        """Put the network into evaluation mode, its logits scaled to fit the held-out text."""
        self.network.eval()
        if len(self.held_out):
            self.network.logit_scale = fit_logit_scale(self.network, self.held_out, self.dtype)

    def _speed(self) -> float | None:
        """Characters a second from the beginning to now, evaluations included."""
        progress = self.progress
        return progress.step * self.characters_per_step / progress.seconds if progress.seconds else None

    def _save(self, best: Evaluation | None = None) -> None:
        if self.folder is not None:
            checkpoint = dataclasses.replace(self.checkpoint(best.method), **self.companions) if best else None
            self.folder.save(self._state(), checkpoint)

    def _snapshot(self) -> None:
        """Keep the weights at about `snapshots` steps, close together at first: most changes early."""
        settings, step = self.settings, self.progress.step
        if self.folder is not None and step in snapshot_steps(settings.max_iters, settings.snapshots):
            self._calibrate()
            self.extras.attempt("snapshots", partial(self.folder.snapshot, step, self.checkpoint()), None)

    def _state(self) -> dict[str, Any]:
        return {
            "architecture": repr(self.network.config),
            "dataset": self.dataset.fingerprint,
            "weights": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": vars(self.progress),
        }

    def _resume(self, state: dict[str, Any]) -> None:
        """Go on from a state that was read.

        Raises:
            CheckpointError: it is of another network, data set or optimizer, or damaged.
        """
        path = self.settings.out_dir / RESUME_FILE
        if state["architecture"] != repr(self.network.config):
            raise CheckpointError(
                f"{self.settings.out_dir}: the run to resume has another architecture or vocabulary: "
                f"{state['architecture']}, not {self.network.config}"
            )
        found = state.get("dataset", self.dataset.fingerprint)  # the first versions did not say
        if found != self.dataset.fingerprint:
            raise unusable(path, f"its run read another data set than {self.settings.data}")
        try:
            progress = TypeAdapter(Progress).validate_python(state["progress"])
            check_states(self.optimizers, state["optimizers"])
            self._restore(state | {"progress": vars(progress)})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise unusable(path, f"its progress.{where}: {first['msg']}") from error
        except ValueError as error:
            raise unusable(path, str(error)) from error
        except (RuntimeError, AttributeError, TypeError, LookupError) as error:
            raise unusable(path, "its weights or optimizers do not fit the network") from error

    def _restore(self, state: dict[str, Any]) -> None:
        """Go back to what `_state` was."""
        self.network.load_state_dict(state["weights"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.progress = Progress(**state["progress"])

    def _record(self, method: str) -> TrainingRecord:
        recipe = self.settings.model_dump(mode="json", exclude={"data", "out_dir", "resume", "tensorboard"})
        return TrainingRecord(
            dataset=self.dataset.source,
            recipe=recipe | {"device": self.device.type, "dtype": str(self.dtype).removeprefix("torch.")},
            curve=self.progress.curve,
            val_loss=self.progress.best,
            val_method=method,
            baselines=self.progress.baselines,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=self.commit,
            seconds=round(self.progress.seconds, 1),
        )
