"""A student learns the mean of its teachers' probabilities, in a run like any other."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model.checkpoint import Checkpoint, read_checkpoint
from model.cli import run
from model.vocabulary import Vocabulary
from tests.tiny import ROTARY, tiny_checkpoint
from tests.training.test_trainer import SMALL, TEXT, Recorder, losses, settings
from training.dataset import Dataset, from_text
from training.distill import Distillation, DistillSettings, distill
from training.settings import TrainSettings
from training.train import train
from training.trainer import Trainer

CPU = torch.device("cpu")
DATASET = from_text(TEXT, {"name": "hamlet"})
FAST = {"preset": "cpu-2min", "learning_rate": 2e-2, "muon_learning_rate": 5e-2, "dropout": 0.0}
STUDENT = FAST | {"max_iters": 30, "eval_interval": 10, "seed": 7}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set and two teachers, of different networks."""
    folder = tmp_path_factory.mktemp("distill")
    DATASET.save(folder / "data")
    teacher = FAST | {"max_iters": 40, "eval_interval": 20}
    Trainer(settings(folder / "one", **teacher), DATASET).run()
    Trainer(settings(folder / "two", **teacher, n_layer=1, positions="learned", seed=2), DATASET).run()
    return folder


@pytest.fixture
def teachers(folder: Path) -> list[Checkpoint]:
    return [read_checkpoint(folder / name) for name in ("one", "two")]


def command(folder: Path, out_dir: Path, *flags: str, **changes: Any) -> list[str]:
    """The arguments of a small run."""
    values = SMALL | STUDENT | {"max_iters": 4, "eval_interval": 2, "sample_tokens": 0} | changes
    given = [f"--{name}={value}" for name, value in values.items()]
    return [f"--data={folder / 'data'}", f"--out_dir={out_dir}", *given, *flags]


def test_the_mean_of_the_teachers_probabilities_is_learned(teachers: list[Checkpoint]) -> None:
    inputs = torch.arange(12).reshape(2, 6)
    targets = inputs + 1
    expected = torch.stack([teacher.network()(inputs).softmax(-1) for teacher in teachers]).mean(0)
    distillation = Distillation(teachers, CPU, torch.float32, hard_label_weight=0.25)
    torch.testing.assert_close(distillation.probabilities(inputs), expected)
    logits = torch.randn(2, 6, len(DATASET.vocabulary), generator=torch.Generator().manual_seed(0))
    logits.requires_grad_(True)
    loss = distillation.summed_loss(logits, inputs, targets)
    soft = -(expected * F.log_softmax(logits, -1)).sum()
    hard = -F.log_softmax(logits, -1).gather(-1, targets[..., None]).sum()
    torch.testing.assert_close(loss, 0.75 * soft + 0.25 * hard)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    only_hard = Distillation(teachers, CPU, torch.float32, hard_label_weight=1.0)
    torch.testing.assert_close(only_hard.summed_loss(logits, inputs, targets), hard)


def test_a_student_learns_from_its_teachers_alone(tmp_path: Path, teachers: list[Checkpoint]) -> None:
    """Its validation loss falls, though it is never shown which character follows."""
    recorder = Recorder()
    distillation = Distillation(teachers, CPU, torch.float32)
    trainer = Trainer(settings(tmp_path / "x", **STUDENT), DATASET, recorder, objective=distillation)
    trainer.run()
    assert np.mean(recorder.losses[-5:]) < np.mean(recorder.losses[:5]) - 0.2
    curve = trainer.progress.curve
    assert curve[-1]["val"] < curve[0]["val"] - 0.2


def test_bfloat16_is_near_float32(teachers: list[Checkpoint]) -> None:
    inputs = torch.arange(12).reshape(2, 6)
    whole = Distillation(teachers, CPU, torch.float32).probabilities(inputs)
    half = Distillation(teachers, CPU, torch.bfloat16).probabilities(inputs)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, whole, atol=0.03, rtol=0)


def test_a_resumed_student_equals_an_uninterrupted_one(tmp_path: Path, teachers: list[Checkpoint]) -> None:
    changes = STUDENT | {"max_iters": 12, "eval_interval": 4, "ema": 0.5, "gradient_accumulation_steps": 2}
    distillation = Distillation(teachers, CPU, torch.float32, hard_label_weight=0.1)
    whole = Trainer(settings(tmp_path / "whole", **changes), DATASET, objective=distillation)
    whole.run()
    first = Trainer(settings(tmp_path / "parts", **changes), DATASET, objective=distillation)
    first.time_steps()
    first.run(stop=lambda: first.progress.step == 6)
    again = Distillation(teachers, CPU, torch.float32, hard_label_weight=0.1)
    second = Trainer(settings(tmp_path / "parts", **changes, resume=True), DATASET, objective=again)
    second.run()
    assert losses(second) == losses(whole)
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, second.network.state_dict()[name]), name
    assert read_checkpoint(tmp_path / "parts").identity == read_checkpoint(tmp_path / "whole").identity


def test_the_command_records_the_teachers_and_resumes_with_no_others(
    folder: Path, tmp_path: Path, teachers: list[Checkpoint], capsys: pytest.CaptureFixture[str]
) -> None:
    names = f"--teachers={folder / 'one'},{folder / 'two'}"
    assert run(DistillSettings, distill, command(folder, tmp_path / "x", names)) == 0
    identities = [teacher.identity for teacher in teachers]
    assert f"teachers: {identities[0][:12]}, {identities[1][:12]};" in capsys.readouterr().out
    student = read_checkpoint(tmp_path / "x")
    assert student.training["recipe"]["teachers"] == identities
    assert student.training["recipe"]["hard_label_weight"] == 0.0
    assert str(tmp_path) not in json.dumps(student.training)
    assert student.draft is not None
    assert student.index is not None
    longer = command(folder, tmp_path / "x", "--resume=True", max_iters=6)
    assert run(DistillSettings, distill, [*longer, f"--teachers={folder / 'two'}"]) == 2
    assert f"other teachers, training.distill with these in their order: {identities[0][:12]}, " in (
        capsys.readouterr().err
    )
    assert run(TrainSettings, train, longer) == 2
    assert "its run has other teachers" in capsys.readouterr().err
    assert run(DistillSettings, distill, [*longer, names]) == 0
    assert run(TrainSettings, train, command(folder, tmp_path / "plain")) == 0
    capsys.readouterr()
    plain = command(folder, tmp_path / "plain", "--resume=True", names)
    assert run(DistillSettings, distill, plain) == 2
    assert "its run has no teachers; training.train resumes it" in capsys.readouterr().err


def test_a_teacher_that_does_not_fit_is_refused_by_name(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = from_text(TEXT.replace("b", "xyzq"), {"name": "foreign"})
    Trainer(settings(tmp_path / "foreign", max_iters=1), foreign).run()
    refusals = {
        "foreign": "has 20 characters and the data set 18, which differ in 'bxyz'; use teachers",
        "none": "no such checkpoint folder",
    }
    for name, refusal in refusals.items():
        flags = command(folder, tmp_path / "x", f"--teachers={folder / 'one'},{tmp_path / name}")
        assert run(DistillSettings, distill, flags) == 2
        message = capsys.readouterr().err
        assert f"{tmp_path / name}" in message
        assert refusal in message
    flags = command(folder, tmp_path / "x", f"--teachers={folder / 'one'}", block_size=8)
    assert run(DistillSettings, distill, flags) == 2
    message = capsys.readouterr().err
    assert f"teachers: {folder / 'one'} has block_size 16, and the student 8; use --block_size=16" in message
    for blank in ("--teachers=", "--teachers=a,,b"):
        assert run(DistillSettings, distill, command(folder, tmp_path / "x", blank)) == 2
        assert capsys.readouterr().err.startswith("--teachers")
    assert not (tmp_path / "x").exists()


def test_characters_in_another_order_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reversed_vocabulary = Vocabulary(reversed(DATASET.vocabulary.characters))
    other = Dataset(reversed_vocabulary, DATASET.train, DATASET.val, {"name": "reversed"})
    other.save(tmp_path / "data")
    Trainer(settings(tmp_path / "x", preset="cpu-2min", max_iters=1), DATASET).run()
    flags = command(tmp_path, tmp_path / "y", f"--teachers={tmp_path / 'x'}")
    assert run(DistillSettings, distill, flags) == 2
    assert "which are in another order" in capsys.readouterr().err


def test_a_teachers_scale_of_logits_is_part_of_its_probabilities() -> None:
    teacher = tiny_checkpoint(ROTARY, logit_scale=0.5)
    inputs = torch.arange(4)[None]
    found = Distillation([teacher], CPU, torch.float32).probabilities(inputs)
    torch.testing.assert_close(found, teacher.network()(inputs).softmax(-1))
