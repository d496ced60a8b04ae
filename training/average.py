"""Average the weights of several checkpoints: `python -m training.average A B C --out_dir=DIR --data=DIR`.

For the last checkpoints of one run, such as its last snapshots: their average often predicts better than each of
them (Izmailov et al. 2018, arXiv:1803.05407). Runs of different seeds do not have such an average:
`training.distill` makes one model of them.
"""

import dataclasses
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
from pydantic import Field
from pydantic_settings import CliPositionalArg
from torch import Tensor

from model.atomic_files import names_in, replacing
from model.checkpoint import Checkpoint, TrainingRecord, read_checkpoint, write_checkpoint
from model.cli import SettingsPath, run, settings_config
from model.device import choose_device
from model.errors import CheckpointError, InputError
from model.flags import DeviceFlag, ProgramSettings
from model.network import GPT
from model.weights import BFLOAT16
from training.dataset import Dataset, describe_difference, load_text_of, split_calibration
from training.draft import make_draft
from training.evaluate import show
from training.evaluation import evaluate, fit_logit_scale
from training.index import make_index
from training.run_folder import checkpoint_of, current_commit

OTHER_TEXT = "give theirs, or leave out --data"


class AverageSettings(ProgramSettings):
    """Average the weights of checkpoints of one run into a new checkpoint."""

    model_config = settings_config("training.average", "SOLILOQUY_AVERAGE_")

    checkpoints: CliPositionalArg[list[SettingsPath]] = Field(min_length=2)
    """Checkpoint folders, two or more, of one configuration and vocabulary"""
    out_dir: SettingsPath
    """Checkpoint folder to write"""
    data: SettingsPath | None = None
    """Folder that training.prepare wrote: to measure the loss on, and to make tables from that are missing"""
    device: DeviceFlag = "auto"
    """Where to compute the loss"""


def average(settings: AverageSettings) -> None:
    """Average, measure if there is a data set, write the folder in bf16."""
    if settings.out_dir.is_file() or names_in(settings.out_dir):
        raise InputError("out_dir", f"{settings.out_dir} already exists, and is not empty; use another folder")
    first_folder, *other_folders = settings.checkpoints
    first = read_checkpoint(first_folder)
    checkpoints = [first]
    for folder in other_folders:
        checkpoint = read_checkpoint(folder, with_index=False)
        check_alike(first_folder, first, folder, checkpoint)
        checkpoints.append(checkpoint)
    dataset = None if settings.data is None else load_text_of(first, settings.data, OTHER_TEXT)
    for folder, checkpoint in zip(settings.checkpoints, checkpoints, strict=True):
        loss = checkpoint.training.get("val_loss")
        recorded = "" if loss is None else f", recorded val loss {loss:.4f}"
        print(f"{folder}: {checkpoint.identity[:12]}{recorded}")
    network = average_networks(checkpoints)
    record = describe(checkpoints)
    draft = first.draft
    index = first.index
    if dataset is not None:
        network.to(choose_device(settings.device))
        fit_scale(network, checkpoints, dataset)
        result = evaluate(network, dataset.val, torch.float32, progress=True)
        show(result)
        record["val_loss"] = result.loss
        record["val_method"] = result.method
        draft = draft or make_draft(dataset.train, len(first.vocabulary))
        index = index or make_index(dataset, draft, progress=True)
    averaged = checkpoint_of(network, first.vocabulary, record)
    averaged = dataclasses.replace(averaged, draft=draft, index=index)
    with replacing(settings.out_dir) as new:
        write_checkpoint(new, averaged, BFLOAT16)
    print(f"wrote {settings.out_dir}: {read_checkpoint(settings.out_dir).identity[:12]}")


def check_alike(first_folder: Path, first: Checkpoint, folder: Path, checkpoint: Checkpoint) -> None:
    """Refuse checkpoints whose weights do not mean the same.

    Raises:
        CheckpointError: names the folder, and what is not as in the first one.
    """
    for field in dataclasses.fields(first.config):
        ours = getattr(first.config, field.name)
        theirs = getattr(checkpoint.config, field.name)
        if field.name != "logit_scale" and theirs != ours:
            raise CheckpointError(
                f"{folder}: has {field.name} {theirs}, and {first_folder} {ours}; only checkpoints of one "
                "configuration have an average"
            )
    if checkpoint.vocabulary.characters != first.vocabulary.characters:
        difference = describe_difference(checkpoint.vocabulary, first.vocabulary)
        raise CheckpointError(
            f"{folder}: has not the characters of {first_folder}, {difference}; only checkpoints of one vocabulary "
            "have an average"
        )
    text = checkpoint.training.get("dataset", {}).get("sha256")
    first_text = first.training.get("dataset", {}).get("sha256")
    if text and first_text and text != first_text:
        raise CheckpointError(
            f"{folder}: was trained on another text (SHA-256 {text[:12]}) than {first_folder} ({first_text[:12]}); "
            "only checkpoints of one text have an average"
        )


def average_networks(checkpoints: Sequence[Checkpoint]) -> GPT:
    """A network with the mean of the weights, rounded to bf16 as they are stored, and their mean scale."""
    total: dict[str, Tensor] = {}
    for checkpoint in checkpoints:
        for name, tensor in checkpoint.network().state_dict().items():
            total[name] = total[name] + tensor.double() if name in total else tensor.double()
    mean = {name: (tensor / len(checkpoints)).bfloat16().float() for name, tensor in total.items()}
    network = checkpoints[0].network()
    network.load_state_dict(mean, assign=True)
    network.logit_scale = statistics.mean(checkpoint.config.logit_scale for checkpoint in checkpoints)
    return network.eval().requires_grad_(False)


def fit_scale(network: GPT, checkpoints: Sequence[Checkpoint], dataset: Dataset) -> None:
    """Fit the scale of the logits on the part of the training text that the runs have held out for it, if any."""
    share, *others = [checkpoint.training.get("recipe", {}).get("calibration") for checkpoint in checkpoints]
    if not isinstance(share, float) or not 0 < share < 1 or any(other != share for other in others):
        return
    held_out = split_calibration(dataset.train, share, network.config.block_size).calibration
    network.logit_scale = fit_logit_scale(network, held_out, torch.float32)


def describe(checkpoints: Sequence[Checkpoint]) -> TrainingRecord:
    """Where the averaged weights come from: the first one's data set and recipe, and all identities."""
    first = checkpoints[0].training
    averaged = {"averaged": [checkpoint.identity for checkpoint in checkpoints]}
    record = TrainingRecord(recipe=first.get("recipe", {}) | averaged)
    if "dataset" in first:
        record["dataset"] = first["dataset"]
    if "baselines" in first:
        record["baselines"] = first["baselines"]
    record["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    record["commit"] = current_commit()
    return record


if __name__ == "__main__":
    sys.exit(run(AverageSettings, average, sys.argv[1:]))
