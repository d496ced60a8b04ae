"""Optimizers and the learning rate's course. Knows nothing of data or files."""

import math

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from model.network import GPT
from training.settings import TrainSettings


def make_optimizers(network: GPT, settings: TrainSettings) -> list[Optimizer]:
    """AdamW with nanoGPT's decay groups, or Muon for the layers' matrices and AdamW for the rest.

    Muon: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; its learning rate is scaled to match
    AdamW's update size (Liu et al. 2025, arXiv:2502.16982).
    """
    named = dict(network.named_parameters())
    inside = [p for name, p in named.items() if name.startswith("blocks.") and p.ndim == 2]
    if settings.optimizer == "muon":
        muon = Muon(
            inside,
            lr=settings.muon_learning_rate,
            weight_decay=settings.weight_decay,
            momentum=0.95,
            adjust_lr_fn="match_rms_adamw",
        )
        kept = {id(p) for p in inside}
        rest = [p for p in named.values() if id(p) not in kept]
        return [muon, _adamw([{"params": rest, "weight_decay": 0.0}], settings)]
    matrices = [p for p in named.values() if p.ndim >= 2]
    vectors = [p for p in named.values() if p.ndim < 2]
    groups: list[dict[str, object]] = [{"params": matrices, "weight_decay": settings.weight_decay}]
    if vectors:
        groups.append({"params": vectors, "weight_decay": 0.0})
    return [_adamw(groups, settings)]


def _adamw(groups: list[dict[str, object]], settings: TrainSettings) -> AdamW:
    return AdamW(groups, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2), fused=True)


def learning_rate_factor(step: int, settings: TrainSettings) -> float:
    """What every optimizer's peak learning rate is multiplied by at `step`, from 0 to `max_iters - 1`."""
    end = settings.max_iters if settings.lr_decay_iters is None else settings.lr_decay_iters
    floor = 0.1 if settings.min_lr is None else settings.min_lr / settings.learning_rate
    if step < settings.warmup_iters:
        return (step + 1) / (settings.warmup_iters + 1)
    progress = min(1.0, (step - settings.warmup_iters) / max(1, end - settings.warmup_iters))
    remaining = (1 + math.cos(math.pi * progress)) / 2 if settings.schedule == "cosine" else 1 - progress
    return floor + (1 - floor) * remaining


def step_all(optimizers: list[Optimizer], network: nn.Module, factor: float, grad_clip: float) -> bool:
    """Clip the gradient, let every optimizer take a step at `factor` of its peak rate, clear the gradient.

    A `grad_clip` of 0 leaves gradients as they are.

    Returns:
        Whether the gradient was finite; if not, no step was taken.
    """
    finite = bool(nn.utils.clip_grad_norm_(network.parameters(), grad_clip or math.inf).isfinite())
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("peak_lr", group["lr"])
            group["lr"] = group["peak_lr"] * factor
        if finite:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return finite
