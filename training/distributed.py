"""Several processes training one model: PyTorch's DistributedDataParallel, started by torchrun.

Owns ranks, which rows a process computes, and the sums over all processes. Knows nothing of models or files. In a
process that was not started by torchrun, nothing here touches `torch.distributed`.
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
    """The processes of a run as one of them sees them: its rank, their number, and its rank on its machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, the one that evaluates, saves and prints."""
        return self.rank == 0

    def own_rows(self, total: int) -> slice:
        """Which of a step's `total` rows this process computes."""
        return slice(total * self.rank // self.world_size, total * (self.rank + 1) // self.world_size)

    def all_reduce_sum(self, *values: float) -> list[float]:
        """The sum of each value over all processes; every process must call."""
        if self.world_size == 1:
            return list(values)
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        summed: Tensor = torch.tensor(values, dtype=torch.float64, device=device)
        distributed.all_reduce(summed)
        result: list[float] = summed.tolist()
        return result


@contextmanager
def join_workers(recovery_hint: Callable[[], str]) -> Iterator[Workers]:
    """A context inside torchrun's process group, if there is one.

    Args:
        recovery_hint: returns what a user can do; called if another process ends too early.

    Raises:
        WorkerLostError: another process of the run has ended.
    """
    if "WORLD_SIZE" not in os.environ:
        yield Workers()
        return
    on_gpu = torch.cuda.is_available()
    workers = Workers(
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        local_rank=int(os.environ["LOCAL_RANK"]),
    )
    if on_gpu:
        torch.cuda.set_device(workers.local_rank)
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield workers
    except RuntimeError as error:  # what both backends raise when a connection breaks
        if "gloo" not in str(error) and not isinstance(error, distributed.DistError):
            raise
        place = f"process {workers.rank} of {workers.world_size}"
        raise WorkerLostError(f"{place}: another process of this run has ended; {recovery_hint()}") from error
    finally:
        distributed.destroy_process_group()
