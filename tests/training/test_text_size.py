"""The plan says when a text is too short for the network, and names a preset that is not."""

from pathlib import Path

import pytest

from model.cli import run
from model.network import GPT
from tests.training.test_trainer import TEXT
from training.dataset import from_text
from training.settings import PRESETS, TrainSettings
from training.text_size import preset_parameters, suitable_preset, text_advice
from training.train import train

SHAKESPEARE = 1_003_854  # characters of tiny Shakespeare's training split


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_are_counted_as_nanogpt_counts(preset: str) -> None:
    chosen = TrainSettings.model_validate({"data": Path("x"), "out_dir": Path("x"), "preset": preset})
    network = GPT(chosen.architecture(65))
    matrices = sum(p.numel() for name, p in network.named_parameters() if p.ndim == 2 and "positions" not in name)
    assert preset_parameters(preset, 65) == matrices


@pytest.mark.parametrize(
    ("characters", "on_gpu", "preset"),
    [
        (SHAKESPEARE, False, "laptop-1h"),
        (SHAKESPEARE, True, "gpu"),
        (400_000, True, "laptop-5min"),
        (200_000, False, "cpu-2min"),
        (90_000, False, "shakespeare-char-cpu"),
        (10_000, False, None),
    ],
)
def test_a_preset_suits_a_text(characters: int, on_gpu: bool, preset: str | None) -> None:
    assert suitable_preset(characters, 65, on_gpu) == preset


def test_the_bundled_recipe_and_a_text_read_a_few_times_are_not_advised() -> None:
    assert text_advice(10_641_792, SHAKESPEARE, 24.5, 65, on_gpu=True) is None
    assert text_advice(10_641_792, 10_000, 4.0, 65, on_gpu=False) is None


def test_the_advice_names_the_sizes_and_the_preset() -> None:
    assert text_advice(10_641_792, 270_000, 50, 65, on_gpu=False) == (
        "the text is too short for this model: 39 parameters for each of 270,000 characters; "
        "--preset=laptop-5min suits it, with 3.2M"
    )
    advice = text_advice(1_781_952, 10_000, 50, 65, on_gpu=False)
    assert advice is not None
    assert advice.endswith("no preset is small enough: use fewer --n_layer and --n_embd, to 120,000 parameters")


def test_the_plan_has_the_advice_and_the_end_of_patience_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A learning rate that changes no weight cannot make the loss lower."""
    from_text(TEXT, {"name": "hamlet"}).save(tmp_path / "data")
    size = ["--n_layer=1", "--n_head=1", "--n_embd=64", "--block_size=16", "--batch_size=2", "--device=cpu"]
    still = ["--learning_rate=1e-30", "--muon_learning_rate=1e-30", "--weight_decay=0", "--dtype=float32"]
    length = ["--max_iters=400", "--eval_interval=1", "--patience=2", "--sample_tokens=0", "--preset=cpu-2min"]
    folders = [f"--data={tmp_path / 'data'}", f"--out_dir={tmp_path / 'out'}"]
    assert run(TrainSettings, train, [*folders, *size, *still, *length]) == 0
    printed = capsys.readouterr().out
    assert "the text is too short for this model: 32 parameters for each of 1,548 characters; no preset" in printed
    assert "stopped early at step 2: no lower val loss in the last 2 evaluations\nbest val loss " in printed
