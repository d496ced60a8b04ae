"""Optimizers, their states' checks, and the learning rate's schedule. Knows nothing of data or files."""

import math
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from model.network import GPT
from training.settings import TrainSettings

OPTIMIZER_STATE_TYPES = {"state": dict, "param_groups": list}  # the parts of an optimizer's state
# What each optimizer keeps for a parameter once it has taken a step.
STATE_NAMES: dict[type[Optimizer], set[str]] = {
    AdamW: {"step", "exp_avg", "exp_avg_sq"},
    Muon: {"momentum_buffer"},
}


def make_optimizers(network: GPT, settings: TrainSettings) -> list[Optimizer]:
    """AdamW with nanoGPT's decay groups, or Muon for the layers' matrices and AdamW for the rest.

    Muon: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; its learning rate is scaled to match
    AdamW's update size (Liu et al. 2025, arXiv:2502.16982).
    """
    named = dict(network.named_parameters())
    if settings.optimizer == "muon":
        layer_matrices = [p for name, p in named.items() if name.startswith("blocks.") and p.ndim == 2]
        muon = Muon(
            layer_matrices,
            lr=settings.muon_learning_rate,
            weight_decay=settings.weight_decay,
            momentum=0.95,
            adjust_lr_fn="match_rms_adamw",
        )
        in_muon = {id(p) for p in layer_matrices}
        rest = [p for p in named.values() if id(p) not in in_muon]
        return [muon, _adamw([{"params": rest, "weight_decay": 0.0}], settings)]
    matrices = [p for p in named.values() if p.ndim >= 2]
    vectors = [p for p in named.values() if p.ndim < 2]
    groups: list[dict[str, object]] = [{"params": matrices, "weight_decay": settings.weight_decay}]
    if vectors:
        groups.append({"params": vectors, "weight_decay": 0.0})
    return [_adamw(groups, settings)]


def _adamw(groups: list[dict[str, object]], settings: TrainSettings) -> AdamW:
    return AdamW(groups, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2), fused=True)


def check_states(optimizers: list[Optimizer], states: list[Any]) -> None:
    """Refuse states that are not of these optimizers and their parameters.

    Raises:
        ValueError: says what is wrong.
    """
    if len(states) != len(optimizers):
        raise ValueError("it is of another --optimizer")
    for optimizer, state in zip(optimizers, states, strict=True):
        if not isinstance(state, dict):
            raise ValueError("it has no state of an optimizer")
        for name, expected in OPTIMIZER_STATE_TYPES.items():
            if not isinstance(state.get(name), expected):
                raise ValueError("it has no state of an optimizer")
        for group, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
            _check_group(group, saved)
            for number, parameter in zip(saved["params"], group["params"], strict=True):
                if number in state["state"]:
                    _check_parameter_state(state["state"][number], STATE_NAMES[type(optimizer)], parameter)


def _check_group(group: dict[str, Any], saved: object) -> None:
    """Refuse a saved group that has not the same options, each of the same type."""
    if not isinstance(saved, dict) or not group.keys() <= saved.keys():
        raise ValueError("it is of another --optimizer")
    for name, value in (group | {"peak_lr": group["lr"]}).items():
        if type(saved.get(name, value)) is not type(value):
            raise ValueError(f"{name} of its optimizer is {saved[name]!r:.60}")


def _check_parameter_state(state: object, names: set[str], parameter: Tensor) -> None:
    """Refuse what an optimizer keeps for a parameter unless it has all the tensors, in the parameter's shape."""
    if not isinstance(state, dict) or state.keys() != names:
        raise ValueError("it is of another --optimizer")
    for name, value in state.items():
        shape = () if name == "step" else parameter.shape
        if not isinstance(value, Tensor) or value.shape != shape:
            raise ValueError(f"{name} of its optimizer does not fit the network")


def learning_rate_factor(step: int, settings: TrainSettings) -> float:
    """The factor of every optimizer's peak learning rate at `step`, from 0 to `max_iters - 1`."""
    if step < settings.warmup_iters:
        return (step + 1) / (settings.warmup_iters + 1)
    decay_end = settings.max_iters if settings.lr_decay_iters is None else settings.lr_decay_iters
    min_factor = 0.1 if settings.min_lr is None else settings.min_lr / settings.learning_rate
    progress = min(1.0, (step - settings.warmup_iters) / max(1, decay_end - settings.warmup_iters))
    remaining = (1 + math.cos(math.pi * progress)) / 2 if settings.schedule == "cosine" else 1 - progress
    return min_factor + (1 - min_factor) * remaining


def step_all(optimizers: list[Optimizer], network: nn.Module, factor: float, grad_clip: float) -> bool:
    """Clip the gradient, take a step of every optimizer at `factor` of its peak learning rate, clear the gradient.

    A `grad_clip` of 0 clips nothing.

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
