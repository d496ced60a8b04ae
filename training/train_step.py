"""One optimizer step: the batch, forward and backward passes, the gradient's exchange, clipping, the update.

A step is a function of the weights, the optimizers' states, the seed and the step's number. Knows nothing of
evaluations or files.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from model.device import DtypeName
from model.network import GPT
from training.dataset import EpochBatches, RandomBatches
from training.distributed import Workers
from training.optimizers import learning_rate_factor, step_all
from training.settings import TrainSettings


@dataclass(frozen=True)
class TrainStepResult:
    """What a step returns."""

    loss: float  # mean, in nats per character
    finite: bool  # whether its gradient was; if not, the step was skipped


def training_dtype(device: torch.device, dtype_name: DtypeName) -> torch.dtype:
    """Format of training's matrix products; `auto` is bf16 where the hardware multiplies it."""
    if dtype_name != "auto":
        dtype: torch.dtype = getattr(torch, dtype_name)
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    fast = device.type == "cpu" and bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    return torch.bfloat16 if fast else torch.float32


class Objective:
    """What a step minimises: the loss of the text's next character. `training.distill` has another."""

    teachers: tuple[str, ...] = ()  # identities of the checkpoints that it takes probabilities from

    def summed_loss(self, logits: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """Summed loss in nats.

        Args:
            logits: (B, T, V), of the network that is trained.
            inputs: (B, T) ids that it has read.
            targets: (B, T) ids that follow them.
        """
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum")


class TrainStep:
    """Takes the steps of one run.

    Args:
        batches: the rows of each step, of all processes together.
        dtype: number format of the matrix products.
        objective: what is minimised.
    """

    def __init__(
        self,
        network: GPT,
        optimizers: list[Optimizer],
        batches: EpochBatches | RandomBatches,
        settings: TrainSettings,
        workers: Workers,
        dtype: torch.dtype,
        objective: Objective,
    ) -> None:
        self._network = network
        self._optimizers = optimizers
        self._batches = batches
        self._settings = settings
        self._workers = workers
        self._device = next(network.parameters()).device
        self._dtype = dtype
        self._objective = objective
        # What computes the logits: the network itself, or wrapped for compilation and the exchange of gradients.
        self._forward: nn.Module = cast(nn.Module, torch.compile(network)) if settings.compile else network
        if workers.world_size > 1:
            self._forward = DistributedDataParallel(self._forward)

    def take(self, step: int) -> TrainStepResult:
        """Take the step of this number; every process must call."""
        entropy = np.random.SeedSequence((self._settings.seed, step, self._workers.rank))
        torch.manual_seed(int(entropy.generate_state(1)[0]))  # dropout, a function of seed, step and rank
        self._network.train()
        inputs, targets = self._batches(step)  # (rows, T) each, rows of all processes
        own_rows = self._workers.own_rows(len(inputs))
        parts = self._settings.gradient_accumulation_steps
        input_parts = inputs[own_rows].tensor_split(parts)
        target_parts = targets[own_rows].tensor_split(parts)
        total = torch.zeros((), device=self._device)
        for i in range(parts):
            with self._gradient_sync(last=i == parts - 1):
                loss = self._summed_loss(input_parts[i], target_parts[i]) / targets.numel()
                # DistributedDataParallel averages the gradients of the processes; the step needs their sum.
                (loss * self._workers.world_size).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        [mean] = self._workers.all_reduce_sum(total.item())
        factor = learning_rate_factor(step, self._settings)
        finite = step_all(self._optimizers, self._network, factor, self._settings.grad_clip)
        return TrainStepResult(mean, finite)

    def _gradient_sync(self, last: bool) -> Any:
        """A context in which processes exchange gradients in the last part of a step only."""
        if last or not isinstance(self._forward, DistributedDataParallel):
            return nullcontext()
        return self._forward.no_sync()

    def _summed_loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Summed loss in nats of rows (B, T)."""
        inputs = inputs.to(self._device, non_blocking=True)
        targets = targets.to(self._device, non_blocking=True)
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
            logits = self._forward(inputs)  # (B, T, V)
        return self._objective.summed_loss(logits, inputs, targets)
