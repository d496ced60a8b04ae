"""Train one model on what several others predict: `python -m training.distill --teachers=DIR,DIR --data=DIR`.

The student learns the mean of its teachers' probabilities of the next character (Hinton, Vinyals and Dean 2015,
arXiv:1503.02531), at each position of the training text. For a text that is read many times, an ensemble of models
predicts better than any of them, and a student keeps most of that (Kim et al. 2025, arXiv:2509.14786).

Everything else is a run of `training.train`: batches, schedule, evaluations, snapshots, resuming.
"""

import sys
from functools import partial
from pathlib import Path
from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from model.checkpoint import Checkpoint, read_checkpoint
from model.cli import run, settings_config
from model.device import choose_device
from model.errors import InputError
from training.dataset import Dataset, describe_difference
from training.settings import NANOGPT_FLAGS, SettingsPaths, TrainSettings
from training.train import train
from training.train_step import Objective, training_dtype


class DistillSettings(TrainSettings):
    """Train a student on the mean of its teachers' probabilities. All flags of training.train apply to it."""

    model_config = settings_config("training.distill", "SOLILOQUY_DISTILL_")

    teachers: SettingsPaths = Field(min_length=1)
    """Checkpoint folders to learn from, with commas between; of the same characters and block_size"""
    hard_label_weight: float = Field(0.0, ge=0, le=1)
    """Share of the text's own next character in what is learned; the rest is the teachers'"""


class Distillation(Objective):
    """The cross-entropy of the teachers' mean probabilities, and a share of the loss of the text itself.

    There is no temperature to soften the probabilities, as there is for classifiers of images: the next character
    is far less certain than the class of an image, and the mean of several models is softer than each.

    Args:
        device: where the student is trained.
        dtype: number format of the teachers' matrix products.
        hard_label_weight: the share of the text itself.
        compile: whether to compile the teachers.
    """

    def __init__(
        self,
        teachers: list[Checkpoint],
        device: torch.device,
        dtype: torch.dtype,
        hard_label_weight: float = 0.0,
        compile: bool = False,
    ) -> None:
        self.teachers = tuple(teacher.identity for teacher in teachers)
        self._scales = [teacher.config.logit_scale for teacher in teachers]
        self._networks: list[nn.Module] = []
        for teacher in teachers:
            network = teacher.network().to(device)
            # Networks of one architecture share one compilation, unless a number in them differs.
            network.logit_scale = 1.0
            self._networks.append(cast(nn.Module, torch.compile(network)) if compile else network)
        self._dtype = dtype
        self._hard_label_weight = hard_label_weight

    @torch.no_grad()
    def probabilities(self, inputs: Tensor) -> Tensor:
        """The mean of the teachers' probabilities (B, T, V) of each character after `inputs` (B, T), float32."""
        total: Tensor | None = None
        for network, scale in zip(self._networks, self._scales, strict=True):
            with torch.autocast(inputs.device.type, self._dtype, enabled=self._dtype != torch.float32):
                logits = network(inputs)
            probabilities = F.softmax(scale * logits.float(), dim=-1)
            total = probabilities if total is None else total.add_(probabilities)
        assert total is not None
        return total.div_(len(self._networks))

    def summed_loss(self, logits: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """As an `Objective`'s. The teachers read these rows only, so memory does not grow with the batch."""
        weight = self._hard_label_weight
        soft_targets = self.probabilities(inputs).flatten(0, 1)  # (B · T, V)
        soft = F.cross_entropy(logits.flatten(0, 1).float(), soft_targets, reduction="sum")
        if not weight:
            return soft
        return (1 - weight) * soft + weight * super().summed_loss(logits, inputs, targets)


def load_distillation(settings: DistillSettings, dataset: Dataset) -> Distillation:
    """The objective of a run that distils.

    Raises:
        CheckpointError: a teacher cannot be read.
        InputError: a teacher's characters are not the data set's, or its block size is not the student's.
    """
    teachers: list[Checkpoint] = []
    for folder in settings.teachers:
        teacher = read_checkpoint(folder, with_index=False)
        check_teacher(folder, teacher, dataset, settings.block_size)
        teachers.append(teacher)
    device = torch.device(choose_device(settings.device))
    dtype = training_dtype(device, settings.dtype)
    return Distillation(teachers, device, dtype, settings.hard_label_weight, settings.compile)


def check_teacher(folder: Path, teacher: Checkpoint, dataset: Dataset, block_size: int) -> None:
    """Refuse a teacher that cannot predict what the student is to learn.

    Raises:
        InputError: its characters are not the data set's, or its block size is not the student's.
    """
    theirs = teacher.vocabulary
    ours = dataset.vocabulary
    if theirs.characters != ours.characters:
        raise InputError(
            "teachers",
            f"{folder} has {len(theirs)} characters and the data set {len(ours)}, "
            f"{describe_difference(theirs, ours)}; use teachers that were trained on this data set",
        )
    if teacher.config.block_size != block_size:
        raise InputError(
            "teachers",
            f"{folder} has block_size {teacher.config.block_size}, and the student {block_size}; use "
            f"--block_size={teacher.config.block_size}, or other teachers",
        )


def distill(settings: DistillSettings) -> None:
    """Train the student with a progress bar, as `training.train` does."""
    train(settings, partial(load_distillation, settings))


if __name__ == "__main__":
    sys.exit(run(DistillSettings, distill, sys.argv[1:], NANOGPT_FLAGS))
