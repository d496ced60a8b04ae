"""Several seeds of a recipe side by side on one GPU, distilled into students: the best model that time allows.

python -m benchmarks.ensemble --text=FILE --out=DIR [--seeds=8] [--students=3] [--seconds=540]

OUT gets a log of each run, losses.md with the loss of every model and of the ensemble, and the best model's
checkpoint in parts of at most 15 MiB (join those of a file with cat). What time is left goes to benchmarks/gpu.sh.
A run that is not done in its time is interrupted, and counts with the best weights that it has saved.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from pydantic_settings import BaseSettings

from model.atomic_files import names_in
from model.checkpoint import Checkpoint, has_checkpoint, read_checkpoint
from model.cli import SettingsPath, run, settings_config
from model.device import choose_device
from model.errors import InputError, SaveError
from model.flags import DeviceFlag
from training.dataset import Dataset, Ids, gather
from training.distill import Distillation
from training.evaluation import BATCH_ROWS, evaluate
from training.prepare import PrepareSettings, prepare

ROOT = Path(__file__).parent.parent
PART_BYTES = 15 << 20
FIRST_SEED = 1337
FIRST_STUDENT_SEED = 2001  # not a teacher's, whose first weights and batches a student would repeat
GRACE_SECONDS = 20.0  # for a run to save what it has, once it is interrupted
MIN_SECONDS_FOR_BENCHMARKS = 30.0


class EnsembleSettings(BaseSettings):
    """Train several seeds side by side, distil them into students, measure all, and keep the best."""

    model_config = settings_config("benchmarks.ensemble", "SOLILOQUY_ENSEMBLE_")

    text: SettingsPath
    """Text to train on, a UTF-8 file"""
    out: SettingsPath
    """Folder for logs, losses and the best checkpoint; new or empty"""
    seeds: int = Field(8, ge=1)
    """Teachers, each of another seed, all at once"""
    students: int = Field(3, ge=0)
    """Students, each of another seed, all at once"""
    seconds: float = Field(540.0, gt=0)
    """Time limit of everything"""
    teacher_share: float = Field(0.4, gt=0, lt=1)
    """Share of the time after which teachers are interrupted"""
    student_share: float = Field(0.9, gt=0, lt=1)
    """Share of the time after which students are interrupted"""
    teacher_flags: str = "--preset=gpu"
    """Flags of training.train for the teachers"""
    student_flags: str = "--preset=gpu --max_iters=1200 --eval_interval=200"
    """Flags of training.distill for the students"""
    benchmarks: bool = True
    """Run benchmarks/gpu.sh with what time is left"""
    device: DeviceFlag = "auto"
    """Where to train and to measure"""


@dataclass(frozen=True)
class MeasuredModel:
    """A checkpoint of this call and its loss on the whole validation split, in nats per character."""

    folder: Path
    checkpoint: Checkpoint
    loss: float


def main(settings: EnsembleSettings) -> None:
    """Train, distil, measure, write; then the other benchmarks."""
    began = time.monotonic()
    if settings.out.is_file() or names_in(settings.out):
        raise InputError("out", f"{settings.out} is not empty; use another folder")
    settings.out.mkdir(parents=True, exist_ok=True)
    with working_folder() as work:
        data = work / "data"
        prepare(PrepareSettings(input_file=settings.text, out_dir=data))
        teachers = train_side_by_side(
            {f"seed-{FIRST_SEED + i}": teacher_command(settings, FIRST_SEED + i) for i in range(settings.seeds)},
            work,
            settings.out,
            began + settings.teacher_share * settings.seconds,
        )
        if not teachers:
            raise SaveError(f"no run has saved a checkpoint in its time; see the logs in {settings.out}")
        named = ",".join(str(folder) for folder in teachers)
        seeds = range(FIRST_STUDENT_SEED, FIRST_STUDENT_SEED + settings.students)
        students = train_side_by_side(
            {f"student-{seed}": student_command(settings, named, seed) for seed in seeds},
            work,
            settings.out,
            began + settings.student_share * settings.seconds,
        )
        dataset = Dataset.load(data)
        device = torch.device(choose_device(settings.device))
        models = measure([*teachers, *students], dataset.val, device)
        together = ensemble_loss(models[: len(teachers)], dataset.val, device)
        table = losses_table(models, together)
        (settings.out / "losses.md").write_text(table, encoding="utf-8")
        print(table, end="")
        best = min(models, key=loss_of)
        print(f"{best.folder.name} is the best of {len(models)}: a choice by the validation split")
        write_parts(best.folder, settings.out / "checkpoint")
    left = began + settings.seconds - time.monotonic()
    if settings.benchmarks and left > MIN_SECONDS_FOR_BENCHMARKS:
        run_benchmarks(settings.out / "gpu", left)


@contextmanager
def working_folder() -> Iterator[Path]:
    """A temporary folder for the data set and the runs."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def teacher_command(settings: EnsembleSettings, seed: int) -> list[str]:
    """The arguments of Python for one teacher."""
    return ["-m", "training.train", *common_flags(settings, seed), *shlex.split(settings.teacher_flags)]


def student_command(settings: EnsembleSettings, teachers: str, seed: int) -> list[str]:
    """The arguments of Python for one student; `teachers` are folders with commas between."""
    flags = [f"--teachers={teachers}", *common_flags(settings, seed), *shlex.split(settings.student_flags)]
    return ["-m", "training.distill", *flags]


def common_flags(settings: EnsembleSettings, seed: int) -> list[str]:
    """Flags of every run; those that a user gives come after them, and win."""
    return [f"--seed={seed}", "--sample_tokens=0", f"--device={settings.device}"]


def train_side_by_side(commands: dict[str, list[str]], work: Path, logs: Path, deadline: float) -> list[Path]:
    """Run all commands at once, to the deadline at most; the folders of those that have saved a checkpoint.

    Args:
        commands: arguments of Python by the names of the runs, which their folders and logs have too.
    """
    processes: list[subprocess.Popen[bytes]] = []
    threads = str(max(1, (os.cpu_count() or 1) // max(1, len(commands))))
    environment = os.environ | {"OMP_NUM_THREADS": threads, "TORCHINDUCTOR_COMPILE_THREADS": threads}
    began = time.monotonic()
    for name, command in commands.items():
        flags = [f"--data={work / 'data'}", f"--out_dir={work / name}"]
        processes.append(start_python([*command, *flags], logs / f"{name}.log", environment))
    wait_or_interrupt(processes, deadline)
    for name, process in zip(commands, processes, strict=True):
        print(f"{name}: exit code {process.returncode} after {time.monotonic() - began:.0f} s", flush=True)
    folders = [work / name for name in commands]
    return [folder for folder in folders if has_checkpoint(folder)]


def start_python(arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start Python with all that it prints going to a file."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def wait_or_interrupt(processes: Sequence["subprocess.Popen[bytes]"], deadline: float) -> None:
    """Wait for all processes; interrupt those that run at the deadline, as Ctrl-C would, and kill what goes on."""
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
    grace_end = time.monotonic() + GRACE_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, grace_end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measure(folders: Sequence[Path], ids: Ids, device: torch.device) -> list[MeasuredModel]:
    """The loss of each checkpoint over the whole split, in float32."""
    models: list[MeasuredModel] = []
    for folder in folders:
        checkpoint = read_checkpoint(folder, with_index=False)
        result = evaluate(checkpoint.network().to(device), ids, torch.float32)
        models.append(MeasuredModel(folder, checkpoint, result.loss))
    return models


def loss_of(model: MeasuredModel) -> float:
    """The model's loss, to compare models by."""
    return model.loss


def ensemble_loss(models: Sequence[MeasuredModel], ids: Ids, device: torch.device) -> float:
    """The loss of the mean of all models' probabilities, over the whole blocks of a split."""
    ensemble = Distillation([model.checkpoint for model in models], device, torch.float32)
    block = models[0].checkpoint.config.block_size
    starts = np.arange((len(ids) - 1) // block) * block
    total = 0.0
    for i in range(0, len(starts), BATCH_ROWS):
        inputs, targets = gather(ids, starts[i : i + BATCH_ROWS], block)
        probabilities = ensemble.probabilities(inputs.to(device))  # (rows, T, V)
        chosen = probabilities.gather(-1, targets.to(device)[..., None])
        total -= chosen.log().sum().item()
    return total / (len(starts) * block)


def losses_table(models: Sequence[MeasuredModel], together: float) -> str:
    """A table of all losses in Markdown, the lowest first."""
    lines = ["| model | steps at its best | seconds | val loss, nats/char |", "| --- | --- | --- | --- |"]
    for model in sorted(models, key=loss_of):
        record = model.checkpoint.training
        curve = record.get("curve", [])
        step = curve[-1]["step"] if curve else ""
        lines.append(f"| {model.folder.name} | {step} | {record.get('seconds', '')} | {model.loss:.4f} |")
    lines.append(f"| all seeds, mean of their probabilities | | | {together:.4f} |")
    return "\n".join(lines) + "\n"


def write_parts(checkpoint: Path, out: Path, part_bytes: int = PART_BYTES) -> None:
    """Copy a checkpoint's files, without its state; those larger than a part as `NAME.00`, `NAME.01` and so on."""
    out.mkdir()
    for path in sorted(checkpoint.iterdir()):
        if not path.is_file():
            continue
        if path.stat().st_size <= part_bytes:
            shutil.copyfile(path, out / path.name)
            continue
        content = path.read_bytes()
        for number, start in enumerate(range(0, len(content), part_bytes)):
            (out / f"{path.name}.{number:02d}").write_bytes(content[start : start + part_bytes])


def run_benchmarks(out: Path, seconds: float) -> None:
    """Run `benchmarks/gpu.sh` without a training run, and end it with all that it has started after its time."""
    process = subprocess.Popen([ROOT / "benchmarks" / "gpu.sh", out], cwd=ROOT, start_new_session=True)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        print("the time is up: benchmarks/gpu.sh is ended", flush=True)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
    print(f"benchmarks/gpu.sh: exit code {process.returncode}", flush=True)


if __name__ == "__main__":
    sys.exit(run(EnsembleSettings, main, sys.argv[1:]))
