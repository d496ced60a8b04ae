"""A moving average of the weights is what is evaluated and kept, and changes nothing of the training itself."""

from pathlib import Path

import pytest
import torch

from model.checkpoint import read_checkpoint
from model.errors import CheckpointError, InputError
from tests.training.test_trainer import SMALL, TEXT, losses, poisoned, settings
from training.dataset import from_text
from training.ema import effective_decay
from training.evaluation import evaluate
from training.resume import RESUME_FILE, load_state
from training.trainer import Trainer

DATASET = from_text(TEXT, {"name": "hamlet"})
EMA = {"ema": 0.8, "learning_rate": 1e-2}


def test_the_decay_is_lower_at_first() -> None:
    decays = [effective_decay(0.9, step) for step in range(200)]
    assert decays == sorted(decays)
    assert decays[0] == 2 / 11
    assert decays[-1] == 0.9


def test_the_average_follows_the_weights_and_is_what_is_kept(tmp_path: Path) -> None:
    plain = Trainer(settings(tmp_path / "plain", learning_rate=1e-2), DATASET)
    averaged = Trainer(settings(tmp_path / "averaged", **EMA), DATASET)
    expected = {name: tensor.clone() for name, tensor in averaged.network.state_dict().items()}
    for step in range(8):
        for trainer in (plain, averaged):
            trainer.train_step()
            trainer.progress.step += 1
        for name, tensor in plain.network.state_dict().items():
            assert torch.equal(tensor, averaged.network.state_dict()[name]), name
            decay = effective_decay(0.8, step)
            expected[name] = decay * expected[name] + (1 - decay) * tensor
    kept = averaged.checkpoint().network().state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(kept[name], tensor)
    plain.close()
    averaged.close()


def test_its_loss_is_the_one_that_is_recorded(tmp_path: Path) -> None:
    trainer = Trainer(settings(tmp_path / "x", **EMA, snapshots=1, calibration=0.1), DATASET)
    trainer.run()
    assert trainer.average is not None
    measured = evaluate(trainer.average.network, DATASET.val, torch.float32)
    assert trainer.progress.curve[-1]["val"] == measured.loss
    assert trainer.network.logit_scale == 1.0
    stored = evaluate(read_checkpoint(tmp_path / "x").network(), DATASET.val, torch.float32)
    assert stored.loss == pytest.approx(trainer.progress.best, abs=0.02)  # stored in bf16


def test_a_resumed_average_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = Trainer(settings(tmp_path / "whole", **EMA, preset="cpu-2min"), DATASET)
    whole.run()
    first = Trainer(settings(tmp_path / "parts", **EMA, preset="cpu-2min"), DATASET)
    first.time_steps()
    first.run(stop=lambda: first.progress.step == 6)
    second = Trainer(settings(tmp_path / "parts", **EMA, preset="cpu-2min", resume=True), DATASET)
    second.run()
    assert losses(second) == losses(whole)
    for name, tensor in whole.evaluated_network.state_dict().items():
        assert torch.equal(tensor, second.evaluated_network.state_dict()[name]), name
        assert not torch.equal(tensor, whole.network.state_dict()[name]), name


def test_a_skipped_step_leaves_the_average(tmp_path: Path) -> None:
    trainer = poisoned(tmp_path / "x", DATASET, {2, 3}, ema=0.5)
    trainer.run()
    assert all(tensor.isfinite().all() for tensor in trainer.evaluated_network.state_dict().values())


def test_a_run_is_resumed_with_the_average_that_it_has(tmp_path: Path) -> None:
    Trainer(settings(tmp_path / "plain", max_iters=1), DATASET).run()
    Trainer(settings(tmp_path / "averaged", max_iters=1, ema=0.5), DATASET).run()
    with pytest.raises(InputError, match=r"ema: the run in .* averages no weights; resume it without the flag"):
        Trainer(settings(tmp_path / "plain", ema=0.5, resume=True), DATASET)
    with pytest.raises(InputError, match=r"ema: the run in .* averages its weights; resume it with its --ema"):
        Trainer(settings(tmp_path / "averaged", resume=True), DATASET)
    Trainer(settings(tmp_path / "averaged", ema=0.5, resume=True), DATASET).run()
    assert "average" not in load_state(tmp_path / "plain", torch.device("cpu"))


@pytest.mark.parametrize("average", [1, {}, {"tokens.weight": torch.zeros(3)}])
def test_an_average_that_does_not_fit_is_refused(tmp_path: Path, average: object) -> None:
    Trainer(settings(tmp_path / "x", max_iters=1, ema=0.5), DATASET).run()
    state = load_state(tmp_path / "x", torch.device("cpu"))
    torch.save(state | {"average": average}, tmp_path / "x" / RESUME_FILE)
    with pytest.raises(CheckpointError, match=r"cannot be resumed \(.*\); begin a run in another --out_dir$"):
        Trainer(settings(tmp_path / "x", ema=0.5, resume=True), DATASET)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_out_of_range_is_refused(tmp_path: Path, decay: float) -> None:
    with pytest.raises(ValueError, match="ema"):
        settings(tmp_path, **SMALL | {"ema": decay})
