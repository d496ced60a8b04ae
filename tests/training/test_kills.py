"""Runs that are killed at random moments, most of them while saving: nothing is lost but the steps since."""

import multiprocessing
import os
import random
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from model.checkpoint import read_checkpoint
from training.dataset import Dataset, from_text
from training.resume import Progress, load_state
from training.settings import TrainSettings
from training.trainer import Trainer, TrainingObserver

KILLS = 100
SMALL: dict[str, Any] = {
    "preset": "cpu-2min",
    "n_layer": 1,
    "n_head": 1,
    "n_embd": 16,
    "block_size": 16,
    "batch_size": 2,
    "max_iters": 150,
    "eval_interval": 1,  # so that nearly all of its time goes into saving
    "eval_blocks": 1,
    "warmup_iters": 2,
    "dropout": 0.1,
    "device": "cpu",
    "dtype": "float32",
}


class Announcer(TrainingObserver):
    """Says that a step has been taken, and so that a save begins."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def on_step(self, progress: Progress, loss: float) -> None:
        self.pipe.send(progress.step)


def trainer(folder: Path, resume: bool, observer: TrainingObserver | None = None) -> Trainer:
    torch.set_num_threads(1)
    dataset: Dataset = from_text("To be, or not to be: that is the question.\n" * 20, {"name": "hamlet"})
    settings = TrainSettings(data=Path("unused"), out_dir=folder, resume=resume, **SMALL)
    return Trainer(settings, dataset, observer)


def work(folder: Path, pipe: Connection) -> None:
    trainer(folder, folder.exists(), Announcer(pipe)).run()


def kill_one(context: Any, folder: Path, delay: float) -> None:
    """Start a run, let it take a step, and kill it `delay` seconds into what follows."""
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(folder, theirs))
    process.start()
    theirs.close()
    ours.recv()
    time.sleep(delay)  # the moment is what the test is about
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_every_kill_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.test_kills", "torch._dynamo"])  # what a step imports
    draws = random.Random(1)
    killed = tmp_path / "killed"
    for _ in range(KILLS):
        kill_one(context, killed, draws.uniform(0, 0.02))
        read_checkpoint(killed)
        load_state(killed, torch.device("cpu"))
    last = trainer(killed, resume=True)
    last.run()
    whole = trainer(tmp_path / "whole", resume=False)
    whole.run()
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, last.network.state_dict()[name]), name
    assert read_checkpoint(killed).training["curve"][-1]["val"] == whole.progress.curve[-1]["val"]
