"""A run learns, keeps its best weights, and goes on after a stop as if there had been none."""

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoint import read_checkpoint
from model.errors import CheckpointError, DivergedError, InputError, SaveError
from training import trainer as trainer_module
from training.dataset import Dataset, from_text
from training.evaluation import evaluate
from training.ngram import baselines
from training.optimizers import learning_rate_factor
from training.resume import Progress
from training.settings import PRESETS, TrainSettings
from training.trainer import Trainer, TrainingObserver

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
    return TrainSettings(data=Path("unused"), out_dir=out_dir, **({"preset": "shakespeare-char"} | SMALL | changes))


def losses(trainer: Trainer) -> list[tuple[float | None, float]]:
    return [(point["train"], point["val"]) for point in trainer.progress.curve]


class Recorder(TrainingObserver):
    """Keeps every step's loss."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_step(self, progress: Progress, loss: float) -> None:
        self.losses.append(loss)


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
    assert losses(second) == losses(whole)
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


def test_baselines_are_found_once_and_recorded(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on has them already; one that was begun before there were any finds them then."""
    expected = baselines(dataset.train, dataset.val, len(dataset.vocabulary))
    calls: list[int] = []

    def counted(*texts: Any) -> dict[str, float]:
        calls.append(1)
        return baselines(*texts)

    monkeypatch.setattr(trainer_module, "baselines", counted)
    first = Trainer(settings(tmp_path / "x"), dataset)
    first.time_steps()
    assert not first.run(stop=lambda: first.progress.step == 6)
    assert read_checkpoint(tmp_path / "x").training["baselines"] == expected
    assert expected["5-gram"] < expected["1-gram"] < expected["uniform"]
    second = Trainer(settings(tmp_path / "x", resume=True, max_iters=8), dataset)
    assert second.run()
    assert len(calls) == 1
    third = Trainer(settings(tmp_path / "x", resume=True, max_iters=9), dataset)
    third.progress.baselines = {}
    assert third.run()
    assert third.checkpoint().training["baselines"] == expected
    assert len(calls) == 2


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


def spoiled(out_dir: Path, dataset: Dataset, **changes: Any) -> Trainer:
    """A run whose losses are worse from step 4 on: a weight is thrown off, and kept there."""
    trainer = Trainer(settings(out_dir, learning_rate=1e-2, dropout=0.0, eval_interval=2, **changes), dataset)
    take = trainer.train_step

    def take_and_spoil() -> float:
        loss = take()
        if trainer.progress.step >= 3:
            with torch.no_grad():
                trainer.network.tokens.weight.fill_(trainer.progress.step)
        return loss

    trainer.train_step = take_and_spoil  # type: ignore[method-assign]
    return trainer


def test_patience_ends_a_run_that_gets_no_better(tmp_path: Path, dataset: Dataset) -> None:
    """The best weights stay; a run that is resumed counts on, and one with more patience goes on."""
    changes = {"max_iters": 40, "patience": 3}
    whole = spoiled(tmp_path / "whole", dataset, **changes)
    assert whole.run()
    assert [point["step"] for point in whole.progress.curve] == [0, 2, 4, 6, 8]
    assert whole.progress.evaluations_since_best == 3
    kept = read_checkpoint(tmp_path / "whole")
    assert kept.training["curve"][-1]["step"] == 2
    first = spoiled(tmp_path / "parts", dataset, **changes)
    assert not first.run(stop=lambda: first.progress.step == 5)
    second = spoiled(tmp_path / "parts", dataset, **changes, resume=True)
    assert second.run()
    assert losses(second) == losses(whole)
    assert read_checkpoint(tmp_path / "parts").identity == kept.identity
    again = spoiled(tmp_path / "parts", dataset, **changes, resume=True)
    assert again.run()
    assert again.progress.step == 8
    longer = spoiled(tmp_path / "parts", dataset, max_iters=40, patience=5, resume=True)
    assert longer.run()
    assert longer.progress.step == 12


def test_a_run_that_is_never_out_of_patience_is_that_without(tmp_path: Path, dataset: Dataset) -> None:
    patient, plain = (Trainer(settings(tmp_path / str(n), patience=n), dataset) for n in (9, 0))
    assert patient.run()
    assert plain.run()
    assert patient.progress.step == 12
    assert losses(patient) == losses(plain)


def test_a_folder_with_a_run_in_it_is_not_overwritten(tmp_path: Path, dataset: Dataset) -> None:
    Trainer(settings(tmp_path / "x", max_iters=1), dataset).run()
    with pytest.raises(InputError, match=r"not empty; use another folder, or --resume=True"):
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
    with pytest.raises(SaveError, match=r"No space left.*--resume=True"):
        trainer.run()
    monkeypatch.undo()
    assert read_checkpoint(tmp_path / "x").identity == before
    assert Trainer(settings(tmp_path / "x", resume=True), dataset).progress.step == 4


def test_a_cut_state_is_refused(tmp_path: Path, dataset: Dataset) -> None:
    Trainer(settings(tmp_path / "x", max_iters=1), dataset).run()
    path = tmp_path / "x" / "resume" / "state.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"state\.pt: cannot be resumed"):
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


def test_the_next_hundred_losses_are_those_of_the_uninterrupted_run(tmp_path: Path, dataset: Dataset) -> None:
    changes = {"preset": "cpu-2min", "max_iters": 120, "eval_interval": 50, "gradient_accumulation_steps": 2}
    whole = Recorder()
    rest = Recorder()
    Trainer(settings(tmp_path / "whole", **changes), dataset, whole).run()
    first = Trainer(settings(tmp_path / "parts", **changes), dataset)
    first.run(stop=lambda: first.progress.step == 20)
    Trainer(settings(tmp_path / "parts", **changes, resume=True), dataset, rest).run()
    assert len(rest.losses) == 100
    assert rest.losses == whole.losses[20:]


def test_timing_a_few_steps_changes_nothing(tmp_path: Path, dataset: Dataset) -> None:
    timed, plain = (Trainer(settings(tmp_path / name, preset="cpu-2min"), dataset) for name in ("timed", "plain"))
    assert timed.time_steps() > 0
    timed.run()
    plain.run()
    assert losses(timed) == losses(plain)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_accumulated_parts_make_the_step_of_one_batch(tmp_path: Path, dataset: Dataset, optimizer: str) -> None:
    changes = {"optimizer": optimizer, "dropout": 0.0, "attention_dropout": 0.0, "embedding_dropout": 0.0}
    whole = Recorder()
    parts = Recorder()
    Trainer(settings(tmp_path / "whole", **changes), dataset, whole).run()
    halves = {"batch_size": 2, "gradient_accumulation_steps": 2}
    Trainer(settings(tmp_path / "parts", **changes, **halves), dataset, parts).run()
    assert parts.losses == pytest.approx(whole.losses, abs=1e-4)


class Poison(TrainingObserver):
    """Makes the gradient of some steps non-finite, through the embedding."""

    trainer: Trainer

    def __init__(self, steps: set[int]) -> None:
        self.steps = steps

    def hook(self, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * float("nan") if self.trainer.progress.step in self.steps else gradient


def poisoned(out_dir: Path, dataset: Dataset, steps: set[int], **changes: Any) -> Trainer:
    poison = Poison(steps)
    poison.trainer = Trainer(settings(out_dir, **changes), dataset, poison)
    poison.trainer.network.tokens.weight.register_hook(poison.hook)  # type: ignore[no-untyped-call]
    return poison.trainer


def test_a_step_without_a_finite_gradient_is_skipped(tmp_path: Path, dataset: Dataset) -> None:
    trainer = poisoned(tmp_path / "x", dataset, {2, 3, 5, 6, 9})
    assert trainer.run()
    assert all(np.isfinite(array).all() for array in read_checkpoint(tmp_path / "x").weights.values())


def test_three_in_a_row_end_the_run_and_nothing_of_them_is_saved(tmp_path: Path, dataset: Dataset) -> None:
    with pytest.raises(DivergedError, match=r"step 7: loss .* for 3 steps.*--resume=True"):
        poisoned(tmp_path / "x", dataset, {5, 6, 7}).run()
    assert Trainer(settings(tmp_path / "x", resume=True), dataset).progress.step == 4


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, dataset: Dataset) -> None:
    trainer = Trainer(settings(tmp_path / "x"), dataset)
    before: list[str] = []

    def stop() -> bool:
        if trainer.progress.step == 3:
            before.append(read_checkpoint(tmp_path / "x").identity)
            with torch.no_grad():
                trainer.network.tokens.weight.fill_(float("nan"))
        return False

    with pytest.raises(DivergedError):
        trainer.run(stop)
    assert [read_checkpoint(tmp_path / "x").identity] == before


def test_a_second_run_on_the_same_folder_is_refused(tmp_path: Path, dataset: Dataset) -> None:
    first = Trainer(settings(tmp_path / "x"), dataset)
    for resume in (False, True):
        with pytest.raises(InputError, match="another run is writing to"):
            Trainer(settings(tmp_path / "x", resume=resume), dataset)
    first.run()
    assert Trainer(settings(tmp_path / "x", resume=True), dataset).progress.step == 12


def test_snapshots_lie_close_together_at_first(tmp_path: Path, dataset: Dataset) -> None:
    Trainer(settings(tmp_path / "x", snapshots=4), dataset).run()
    found = sorted((tmp_path / "x-snapshots").iterdir())
    assert [int(path.name) for path in found] == [0, 1, 5, 12]
    assert len({read_checkpoint(path).identity for path in found}) == 4


@pytest.mark.parametrize(
    ("characters", "on_gpu", "preset"),
    [(50_000, True, "cpu-2min"), (900_000, False, "laptop-5min"), (900_000, True, "gpu")],
)
def test_the_preset_follows_text_and_device(
    characters: int, on_gpu: bool, preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train.bin").write_bytes(bytes(2 * characters))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: on_gpu)
    chosen = TrainSettings(data=tmp_path / "mine")
    assert chosen.preset == preset
    assert chosen.max_iters == PRESETS[preset]["max_iters"]
    assert chosen.out_dir == Path("checkpoints/mine")
