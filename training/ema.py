"""The exponential moving average of a run's weights. Knows nothing of evaluations or files."""

import copy

import torch

from model.network import GPT


class MovingAverage:
    """Follows a network that is trained: `network` has the average of its weights, and is in evaluation mode.

    The average is a function of the weights after each step and of the steps' numbers, so it needs no state besides
    itself. It is in the weights' own format, float32, whatever the format of the matrix products.

    Args:
        decay: how much of the average a step keeps, below 1.
    """

    def __init__(self, trained: GPT, decay: float) -> None:
        self.network = copy.deepcopy(trained).eval().requires_grad_(False)
        self._trained = trained
        self._decay = decay

    def update(self, step: int) -> None:
        """Take in the weights that the step of this number has left."""
        averaged = [parameter.detach() for parameter in self.network.parameters()]
        current = [parameter.detach() for parameter in self._trained.parameters()]
        torch._foreach_lerp_(averaged, current, 1 - effective_decay(self._decay, step))


def effective_decay(decay: float, step: int) -> float:
    """The decay after the step of this number: lower at first, so that the random first weights are soon forgotten.

    As TensorFlow's ExponentialMovingAverage computes it from `num_updates`.
    """
    updates = step + 1
    return min(decay, (1 + updates) / (10 + updates))
