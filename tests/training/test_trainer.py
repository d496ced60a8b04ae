"""A run learns, keeps its best weights, and goes on after a stop as if there had been none."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from model.checkpoint import read_checkpoint
from model.errors import CheckpointError, InputError
from training.dataset import Dataset, from_text
from training.evaluation import evaluate
from training.optimizers import learning_rate_factor
from training.settings import PRESETS, TrainSettings
from training.trainer import Trainer

TEXT = "To be, or not to be: that is the question.\n" * 40
SMALL: dict[str, Any] = {
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 16,
    "block_size": 16,
    "batch_size": 4,
    "max_iters": 12,
    "eval_interval": 4,
    "warmup_iters": 2,
    "dropout": 0.1,
    "device": "cpu",
    "dtype": "float32",
}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return from_text(TEXT, {"name": "hamlet", "characters": len(TEXT)})


def settings(out_dir: Path, **changes: Any) -> TrainSettings:
    return TrainSettings(data=Path("unused"), out_dir=out_dir, **(SMALL | changes))


@pytest.mark.parametrize("preset", ["shakespeare-char", "cpu-2min"])
def test_resumed_equals_uninterrupted(tmp_path: Path, dataset: Dataset, preset: str) -> None:
    whole = Trainer(settings(tmp_path / "whole", preset=preset), dataset)
    assert whole.run()
    parts = tmp_path / "parts"
    first = Trainer(settings(parts, preset=preset), dataset)
    assert not first.run(stop=lambda: first.progress.step == 6)  # between two evaluations
    torch.manual_seed(999)
    second = Trainer(settings(parts, preset=preset, resume=True), dataset)
    assert second.progress.step == 6
    assert second.run()
    assert second.progress.curve == whole.progress.curve
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, second.network.state_dict()[name]), name


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_learns_and_records_it(tmp_path: Path, dataset: Dataset, optimizer: str) -> None:
    changes = {"optimizer": optimizer, "max_iters": 60, "eval_interval": 20, "learning_rate": 1e-2, "dropout": 0.0}
    trainer = Trainer(settings(tmp_path / "x", **changes), dataset)
    trainer.run()
    checkpoint = read_checkpoint(tmp_path / "x")
    curve = checkpoint.training["curve"]
    assert [point["step"] for point in curve] == [0, 20, 40, 60]
    assert curve[-1]["val"] < 0.7 * curve[0]["val"]
    assert checkpoint.training["val_loss"] == min(point["val"] for point in curve)
    assert checkpoint.training["dataset"]["name"] == "hamlet"
    assert checkpoint.training["recipe"]["optimizer"] == optimizer
    measured = evaluate(checkpoint.network(), dataset.val, torch.float32)
    assert measured.loss == pytest.approx(checkpoint.training["val_loss"], abs=0.02)  # stored in bf16


def test_the_best_weights_are_kept_when_later_ones_are_worse(tmp_path: Path, dataset: Dataset) -> None:
    trainer = Trainer(settings(tmp_path / "x", max_iters=8, learning_rate=1e-2), dataset)
    trainer.run()
    best = read_checkpoint(tmp_path / "x").identity
    worse = Trainer(settings(tmp_path / "x", max_iters=12, learning_rate=1e-2, resume=True), dataset)
    with torch.no_grad():
        worse.network.tokens.weight.mul_(-30)
    worse.run()
    assert worse.progress.curve[-1]["val"] > worse.progress.best
    assert read_checkpoint(tmp_path / "x").identity == best


def test_a_folder_with_a_run_in_it_is_not_overwritten(tmp_path: Path, dataset: Dataset) -> None:
    Trainer(settings(tmp_path / "x", max_iters=1), dataset).run()
    with pytest.raises(InputError, match=r"already exists; use another folder, or --resume=True"):
        Trainer(settings(tmp_path / "x"), dataset)


def test_a_full_disk_leaves_what_was_saved(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    Trainer(settings(tmp_path / "x", max_iters=4), dataset).run()
    before = read_checkpoint(tmp_path / "x").identity
    trainer = Trainer(settings(tmp_path / "x", max_iters=8, resume=True), dataset)

    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        trainer.run()
    monkeypatch.undo()
    assert read_checkpoint(tmp_path / "x").identity == before
    assert Trainer(settings(tmp_path / "x", resume=True), dataset).progress.step == 4


def test_a_cut_state_is_refused(tmp_path: Path, dataset: Dataset) -> None:
    Trainer(settings(tmp_path / "x", max_iters=1), dataset).run()
    path = tmp_path / "x" / "resume" / "state.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"state\.pt: cannot be read"):
        Trainer(settings(tmp_path / "x", resume=True), dataset)


def test_resuming_nothing_or_something_else_is_refused(tmp_path: Path, dataset: Dataset) -> None:
    with pytest.raises(CheckpointError, match="nothing to resume"):
        Trainer(settings(tmp_path / "none", resume=True), dataset)
    Trainer(settings(tmp_path / "x", max_iters=1), dataset).run()
    with pytest.raises(CheckpointError, match="another architecture"):
        Trainer(settings(tmp_path / "x", n_layer=3, resume=True), dataset)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_fits_together(preset: Any, tmp_path: Path) -> None:
    chosen = TrainSettings(data=tmp_path, out_dir=tmp_path, preset=preset)
    assert chosen.architecture(65).vocab_size == 65
    for name, value in PRESETS[preset].items():
        assert getattr(chosen, name) == value
    assert TrainSettings(data=tmp_path, out_dir=tmp_path, preset=preset, max_iters=7).max_iters == 7


def test_nanogpts_preset_has_nanogpts_learning_rates(tmp_path: Path) -> None:
    chosen = TrainSettings(data=tmp_path, out_dir=tmp_path, preset="shakespeare-char")
    rates = [chosen.learning_rate * learning_rate_factor(step, chosen) for step in (0, 99, 100, 2550, 5000)]
    assert rates == pytest.approx([1e-3 / 101, 1e-3 * 100 / 101, 1e-3, 5.5e-4, 1e-4])
