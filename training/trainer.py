"""The training loop: steps, evaluations, the best checkpoint kept, and the state to resume from.

A run that was stopped and resumed takes the same steps as one that was not. Knows nothing of the terminal.
"""

import io
import pickle
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from model.checkpoint import Checkpoint, CurvePoint, TrainingRecord, write_checkpoint
from model.device import choose_device, training_dtype
from model.errors import CheckpointError, InputError
from model.files import recover, replacing
from model.network import GPT
from training.dataset import Dataset, EpochBatches, RandomBatches, check_length
from training.evaluation import Evaluation, evaluate
from training.optimizers import learning_rate_factor, make_optimizers, step_all
from training.settings import TrainSettings

RESUME_FILE = Path("resume") / "state.pt"


@dataclass
class Progress:
    """How far a run has come; all that changes besides weights, optimizers and random state."""

    step: int = 0
    seconds: float = 0.0
    curve: list[CurvePoint] = field(default_factory=list)
    best: float = float("inf")
    losses: list[float] = field(default_factory=list)  # of the steps since the last evaluation


class Trainer:
    """One run. `on_step(loss)` and `on_evaluation(point)` are told what happens.

    Raises:
        InputError, DataError, DeviceError, CheckpointError: what cannot be used, before the first step.
    """

    def __init__(
        self,
        settings: TrainSettings,
        dataset: Dataset,
        on_step: Callable[[float], None] = lambda loss: None,
        on_evaluation: Callable[[CurvePoint], None] = lambda point: None,
    ) -> None:
        check_length(dataset, settings.block_size)
        self.settings, self.dataset = settings, dataset
        self.on_step, self.on_evaluation = on_step, on_evaluation
        self.device = choose_device(settings.device)
        self.dtype = training_dtype(self.device, settings.dtype)
        torch.manual_seed(settings.seed)
        config = settings.architecture(len(dataset.vocabulary))
        dropouts = settings.dropout, settings.attention_dropout, settings.embedding_dropout
        self.network = GPT(config, *dropouts).to(self.device)
        self.forward: Callable[[Tensor], Tensor] = torch.compile(self.network) if settings.compile else self.network
        self.optimizers = make_optimizers(self.network, settings)
        batches = EpochBatches if settings.batches == "epochs" else RandomBatches
        self.batch = batches(dataset.train, settings.batch_size, settings.block_size, settings.seed)
        self.progress = Progress()
        self.commit = current_commit()  # now: the source may change while the run goes on
        self._open_out_dir()

    def run(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to `max_iters`; return False if `stop()` ended it early. Either way the state is saved."""
        settings, progress = self.settings, self.progress
        began = time.monotonic() - progress.seconds
        while progress.step < settings.max_iters:
            if progress.step % settings.eval_interval == 0:
                self._evaluate()
            if stop():
                progress.seconds = time.monotonic() - began
                self._save(improved=False)
                return False
            loss = self._step()
            progress.losses.append(loss)
            progress.step += 1
            progress.seconds = time.monotonic() - began
            self.on_step(loss)
        self._evaluate()
        return True

    def checkpoint(self, val_method: str = "") -> Checkpoint:
        """The network as it is now."""
        record = self._record(val_method)
        return Checkpoint(self.network.config, self.dataset.vocabulary, self.network.state_dict(), record)

    def _step(self) -> float:
        inputs, targets = (part.to(self.device, non_blocking=True) for part in self.batch(self.progress.step))
        self.network.train()
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits = self.forward(inputs)  # (B, T, V)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        factor = learning_rate_factor(self.progress.step, self.settings)
        step_all(self.optimizers, self.network, factor, self.settings.grad_clip)
        return loss.item()

    def _evaluate(self) -> None:
        """Measure the validation loss once per step number, keep the weights if it is the best, save."""
        progress = self.progress
        if progress.curve and progress.curve[-1]["step"] == progress.step:
            return
        self.network.eval()
        result = evaluate(self.network, self.dataset.val, self.dtype, self.settings.eval_blocks)
        train = sum(progress.losses) / len(progress.losses) if progress.losses else None
        point = CurvePoint(step=progress.step, train=train, val=result.loss)
        progress.curve.append(point)
        progress.losses.clear()
        improved = result.loss < progress.best
        progress.best = min(result.loss, progress.best)
        self._save(improved, result)
        self.on_evaluation(point)

    def _open_out_dir(self) -> None:
        folder = recover(self.settings.out_dir)
        if self.settings.resume:
            self._load_state(folder / RESUME_FILE)
        elif folder.exists() and any(folder.iterdir()):
            raise InputError(
                "out_dir",
                f"{folder} already exists; use another folder, or --resume=True to go on with its run",
            )

    def _load_state(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except FileNotFoundError as error:
            raise CheckpointError(f"{path}: there is nothing to resume; train without --resume") from error
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"{path}: cannot be read ({reason}); train without --resume") from error
        if state["architecture"] != repr(self.network.config):
            raise CheckpointError(
                f"{path}: the run to resume has another architecture or vocabulary: "
                f"{state['architecture']}, not {self.network.config}"
            )
        self.network.load_state_dict(state["weights"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        torch.set_rng_state(state["random"].cpu())
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"].cpu())
        self.progress = Progress(**state["progress"])

    def _save(self, improved: bool, result: Evaluation | None = None) -> None:
        """Write the folder: new weights if they are the best, else the ones that were there, and the state."""
        folder = self.settings.out_dir.absolute()
        with replacing(folder) as new:
            if improved and result is not None:
                write_checkpoint(new, self.checkpoint(result.method), torch.bfloat16)
            elif folder.exists():
                for path in folder.iterdir():
                    if path.is_file():
                        shutil.copy2(path, new)
            (new / RESUME_FILE).parent.mkdir()
            state = io.BytesIO()  # so that a full disk is an OSError, not one of PyTorch's own
            torch.save(self._state(), state)
            (new / RESUME_FILE).write_bytes(state.getbuffer())

    def _state(self) -> dict[str, Any]:
        state = {
            "architecture": repr(self.network.config),
            "weights": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "random": torch.get_rng_state(),
            "progress": vars(self.progress),
        }
        if self.device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state()
        return state

    def _record(self, method: str) -> TrainingRecord:
        recipe = self.settings.model_dump(mode="json", exclude={"data", "out_dir", "resume"})
        return TrainingRecord(
            dataset=self.dataset.source,
            recipe=recipe | {"device": self.device.type, "dtype": str(self.dtype).removeprefix("torch.")},
            curve=self.progress.curve,
            val_loss=self.progress.best,
            val_method=method,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=self.commit,
            seconds=round(self.progress.seconds, 1),
        )


def current_commit() -> str | None:
    """The commit of this source tree, marked if it had changes; None outside of git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        described = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()
