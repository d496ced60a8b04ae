"""Two processes, as torchrun starts them, train as one; when one of them ends, the other says so."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from model.checkpoint import read_checkpoint
from model.errors import InputError
from tests.conftest import PATIENCE
from tests.training.worker import Run
from training.dataset import Dataset, from_text
from training.distributed import Workers
from training.resume import recovery_hint
from training.settings import TrainSettings
from training.trainer import Trainer

SMALL: dict[str, Any] = {
    "preset": "cpu-2min",
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 16,
    "block_size": 16,
    "batch_size": 8,
    "gradient_accumulation_steps": 2,
    "max_iters": 30,
    "eval_interval": 5,
    "warmup_iters": 2,
    "sample_tokens": 0,
    "device": "cpu",
    "dtype": "float32",
}


@dataclass(frozen=True)
class SecondWorker(Workers):
    """The second process of two, without the first, which is out of patience at the end of the sixth step."""

    rank: int = 1
    patience: list[float] = field(default_factory=lambda: [0.0] * 6 + [1.0])  # what the first process says

    def all_reduce_sum(self, *values: float) -> list[float]:
        if len(values) == 1:  # a step's loss
            return list(values)
        stop, own = values
        return [stop, own + self.patience.pop(0)]


ENDED = "another process of this run has ended"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    text = "To be, or not to be: that is the question.\n" * 40
    dataset = from_text(text, {"name": "hamlet"})
    dataset.save(tmp_path / "data")
    return dataset


def arguments(folder: Path, out_dir: Path, **changes: object) -> list[str]:
    """Flags of a small run on the data set in `folder`."""
    flags = [f"--{name}={value}" for name, value in ({**SMALL, **changes}).items()]
    return [f"--data={folder / 'data'}", f"--out_dir={out_dir}", *flags]


def start_two(folder: Path, **changes: object) -> "subprocess.Popen[str]":
    """A run that torchrun starts, as a user starts it."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "training.train", *arguments(folder, folder / "by-2", **changes)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def curve(folder: Path) -> list[float]:
    """The losses of training and validation at each evaluation, as far as there are any."""
    losses: list[float] = []
    for point in json.loads((folder / "training.json").read_text())["curve"]:
        if point["train"] is not None:
            losses.append(point["train"])
        losses.append(point["val"])
    return losses


def test_two_processes_train_as_one(tmp_path: Path, dataset: Dataset) -> None:
    curves = []
    for processes in (1, 2):
        folder = tmp_path / f"by-{processes}"
        folder.mkdir()
        run = Run(["train"] * processes, folder, arguments(tmp_path, folder / "x", ema=0.5, patience=9))
        run.join(PATIENCE)
        printed = "".join(output.read_text() for output in run.outputs)
        assert [process.exitcode for process in run.processes] == [0] * processes, printed
        assert printed.count("number of parameters") == 1
        curves.append(curve(folder / "x"))
    one, two = curves
    assert len(one) == 13
    assert two == pytest.approx(one, abs=1e-4)


def test_a_process_that_is_killed_ends_the_other_with_a_clear_line(tmp_path: Path, dataset: Dataset) -> None:
    process = start_two(tmp_path, max_iters=100_000)
    folder = tmp_path / "by-2"
    while not (folder / "resume").exists():  # until the first save
        assert process.poll() is None
        time.sleep(0.05)
    workers = subprocess.run(
        ["pgrep", "-f", f"training.train --data={tmp_path}"], capture_output=True, text=True, check=True
    ).stdout.split()
    victims = [pid for pid in map(int, workers) if pid != process.pid and rank_of(pid) == "1"]
    os.kill(victims[0], signal.SIGKILL)
    output, _ = process.communicate(timeout=600)
    assert process.returncode != 0
    assert output.count("number of parameters") == 1
    assert f"process 0 of 2: {ENDED}; {recovery_hint(saved=True)}" in output
    assert read_checkpoint(folder).training["curve"]


@pytest.mark.parametrize(
    ("leaves", "program", "saved"),
    [
        (1, "leave_at_the_start", False),
        (0, "leave_before_the_first_step", False),
        (1, "leave_after_the_first_save", True),
    ],
)
def test_who_is_left_alone_promises_what_was_saved_and_nothing_else(
    leaves: int, program: str, saved: bool, tmp_path: Path, dataset: Dataset
) -> None:
    """A run whose other process ended before the first save was told to go on from what was saved last."""
    programs = ["train", "train"]
    programs[leaves] = program
    stays = 1 - leaves
    run = Run(programs, tmp_path, arguments(tmp_path, tmp_path / "x"))
    run.join(PATIENCE)
    assert run.processes[leaves].exitcode == 0
    assert run.processes[stays].exitcode not in (0, -signal.SIGKILL)
    assert f"process {stays} of 2: {ENDED}; {recovery_hint(saved)}\n" in run.outputs[stays].read_text()
    assert (tmp_path / "x" / "resume").exists() == saved


def rank_of(pid: int) -> str | None:
    """The rank that torchrun gave a process."""
    for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        if entry.startswith(b"RANK="):
            return entry[5:].decode()
    return None


def test_a_process_stops_when_the_main_one_is_out_of_patience(tmp_path: Path, dataset: Dataset) -> None:
    settings = TrainSettings(data=tmp_path, out_dir=tmp_path / "x", **SMALL | {"patience": 1})
    trainer = Trainer(settings, dataset, workers=SecondWorker())
    assert trainer.run()
    assert trainer.progress.step == 6


def test_rows_that_cannot_be_shared_are_refused(tmp_path: Path, dataset: Dataset) -> None:
    settings = TrainSettings(data=tmp_path, out_dir=tmp_path / "x", preset="cpu-2min", batch_size=9, block_size=16)
    with pytest.raises(InputError, match="9 rows cannot be shared by 2 processes"):
        Trainer(settings, dataset, workers=Workers(rank=0, world_size=2))
