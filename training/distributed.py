"""Several processes training one model: PyTorch's DistributedDataParallel, started by torchrun.

Owns who is who and what they agree on. Knows nothing of models or files. A process that was not started by
torchrun is alone, and then nothing here touches `torch.distributed`.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from model.errors import WorkerLostError


@dataclass(frozen=True)
class Workers:
    """This process (`rank`, from 0) among `count`; `local` is its number on this machine."""

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process evaluates, saves and prints."""
        return self.rank == 0

    def rows(self, total: int) -> slice:
        """Which of a step's `total` rows are this process's."""
        return slice(total * self.rank // self.count, total * (self.rank + 1) // self.count)

    def total(self, *values: float) -> list[float]:
        """The sums of `values` over all processes; each of them must call."""
        if self.count == 1:
            return list(values)
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        summed: Tensor = torch.tensor(values, dtype=torch.float64, device=device)
        distributed.all_reduce(summed)
        result: list[float] = summed.tolist()
        return result


@contextmanager
def join_workers(way_on: Callable[[], str]) -> Iterator[Workers]:
    """Join torchrun's group of processes, if there is one, and leave it at the end.

    Args:
        way_on: what a user can do if another process ends too early; is asked when that has happened.

    Raises:
        WorkerLostError: another process of the run has ended.
    """
    if "WORLD_SIZE" not in os.environ:
        yield Workers()
        return
    on_gpu = torch.cuda.is_available()
    workers = Workers(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    if on_gpu:
        torch.cuda.set_device(workers.local)
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield workers
    except RuntimeError as error:  # what both backends raise when a connection breaks
        if "gloo" not in str(error) and not isinstance(error, distributed.DistError):
            raise
        raise WorkerLostError(
            f"process {workers.rank} of {workers.count}: another process of this run has ended; {way_on()}"
        ) from error
    finally:
        distributed.destroy_process_group()
