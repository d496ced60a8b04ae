"""One process of a run of several, started as torchrun's agent starts it: by variables of its environment.

A fork of a process that has imported what training needs starts in no time; torchrun, and every process that it
starts, import PyTorch anew.
"""

import multiprocessing
import os
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch
import torch._dynamo  # the optimizers do so at their first step
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from model.cli import run
from training.dataset import Dataset
from training.distributed import join_workers
from training.settings import TrainSettings
from training.train import train
from training.trainer import Trainer

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])


def leave_at_the_start(settings: TrainSettings) -> None:
    """Join the others, and end."""
    with join_workers(str):
        os._exit(0)


def leave_before_the_first_step(settings: TrainSettings) -> None:
    """Join the others, make the network, and end."""
    with join_workers(str) as workers:
        Trainer(settings, Dataset.load(settings.data), workers=workers)
        os._exit(0)


def leave_after_the_first_save(settings: TrainSettings) -> None:
    """Train, and end when the first evaluation has been saved."""
    with join_workers(str) as workers:
        trainer = Trainer(settings, Dataset.load(settings.data), workers=workers)
        trainer.time_steps()
        trainer.run(stop=lambda: os._exit(0))  # is asked once the first evaluation has been saved


PROGRAMS = {
    program.__name__: program
    for program in (train, leave_at_the_start, leave_before_the_first_step, leave_after_the_first_save)
}


def run_program(program: str, environment: dict[str, str], output: Path, arguments: list[str]) -> None:
    """Run one of `PROGRAMS` as the whole of this process, which prints into the file `output`."""
    os.environ.update(environment)
    for descriptor in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    torch.set_num_threads(1)
    sys.exit(run(TrainSettings, PROGRAMS[program], arguments))


class Run:
    """A run whose process of rank i runs `programs[i]` and prints into `outputs[i]`."""

    def __init__(self, programs: list[str], folder: Path, arguments: list[str]) -> None:
        # As torchrun's agent, this process holds the addresses by which the others find each other.
        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.processes: list[ForkServerProcess] = []
        self.outputs: list[Path] = []
        for rank, program in enumerate(programs):
            output = folder / f"output-{rank}"
            environment = self._environment(rank, len(programs))
            process = CONTEXT.Process(target=run_program, args=(program, environment, output, arguments))
            process.start()
            self.processes.append(process)
            self.outputs.append(output)

    def _environment(self, rank: int, world_size: int) -> dict[str, str]:
        """The variables that torchrun sets for a process; none for a single one, which it would not start."""
        if world_size == 1:
            return {}
        return {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self._store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": "0",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world_size),
            "CUDA_VISIBLE_DEVICES": "",
        }

    def join(self, seconds: float) -> None:
        """Wait until all have ended; kill those that have not in time."""
        for process in self.processes:
            process.join(seconds)
            process.kill()
            process.join()
