"""Checkpoints of one run are averaged into one that is whole; those that have no average are refused by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from model.checkpoint import INDEX_FILE, RECORD_FILE, read_checkpoint
from model.cli import run
from model.sample import SampleSettings, sample
from tests.training.test_trainer import TEXT, settings
from training.average import AverageSettings, average
from training.dataset import Dataset, from_text
from training.evaluation import evaluate
from training.trainer import Trainer

SOURCE = {"name": "hamlet", "sha256": "a" * 64}
DATASET = from_text(TEXT, SOURCE)
RUN: dict[str, Any] = {"preset": "cpu-2min", "learning_rate": 1e-2, "calibration": 0.1, "snapshots": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, and a run with its snapshots."""
    folder = tmp_path_factory.mktemp("average")
    DATASET.save(folder / "data")
    Trainer(settings(folder / "x", **RUN), DATASET).run()
    return folder


def test_the_weights_are_the_mean_and_the_checkpoint_is_whole(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = [folder / "x", *sorted((folder / "x-snapshots").iterdir())[1:]]
    out = tmp_path / "out"
    data = f"--data={folder / 'data'}"
    assert run(AverageSettings, average, [*map(str, sources), f"--out_dir={out}", data, "--device=cpu"]) == 0
    originals = [read_checkpoint(source) for source in sources]
    averaged = read_checkpoint(out)
    networks = [original.network().state_dict() for original in originals]
    for name, tensor in averaged.network().state_dict().items():
        mean = torch.stack([weights[name] for weights in networks]).mean(0)
        torch.testing.assert_close(tensor, mean, atol=1e-3, rtol=1e-2)  # stored in bf16
    assert averaged.training["recipe"]["averaged"] == [original.identity for original in originals]
    assert averaged.training["dataset"] == SOURCE
    measured = evaluate(averaged.network(), DATASET.val, torch.float32)
    assert averaged.training["val_loss"] == pytest.approx(measured.loss, abs=1e-5)
    assert averaged.config.logit_scale != originals[0].config.logit_scale
    assert averaged.draft is not None
    assert averaged.index is not None
    assert (out / INDEX_FILE).read_bytes() == (folder / "x" / INDEX_FILE).read_bytes()
    printed = capsys.readouterr().out
    assert f"{measured.loss:.4f} nats/char" in printed
    assert f"wrote {out}: {averaged.identity[:12]}" in printed
    flags = [f"--out_dir={out}", "--num_samples=1", "--max_new_tokens=5", "--device=cpu", "--dtype=float32"]
    assert run(SampleSettings, sample, flags) == 0


def test_the_tables_are_made_where_the_first_has_none(folder: Path, tmp_path: Path) -> None:
    """Snapshots have none."""
    sources = [str(source) for source in sorted((folder / "x-snapshots").iterdir())]
    assert run(AverageSettings, average, [*sources, f"--out_dir={tmp_path / 'plain'}"]) == 0
    plain = read_checkpoint(tmp_path / "plain")
    assert plain.draft is None
    assert plain.index is None
    assert "val_loss" not in plain.training
    scales = [read_checkpoint(Path(source)).config.logit_scale for source in sources]
    assert plain.config.logit_scale == pytest.approx(sum(scales) / 3)
    data = f"--data={folder / 'data'}"
    assert run(AverageSettings, average, [*sources, f"--out_dir={tmp_path / 'full'}", data]) == 0
    full = read_checkpoint(tmp_path / "full")
    assert full.draft is not None
    assert full.index is not None


def test_an_average_of_one_checkpoint_with_itself_is_that_checkpoint(folder: Path, tmp_path: Path) -> None:
    source = str(folder / "x")
    assert run(AverageSettings, average, [source, source, source, f"--out_dir={tmp_path / 'x'}"]) == 0
    assert read_checkpoint(tmp_path / "x").identity == read_checkpoint(folder / "x").identity


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(AverageSettings, average, list(arguments)) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def test_what_has_no_average_is_refused_by_name(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = str(folder / "x")
    out = f"--out_dir={tmp_path / 'out'}"
    Trainer(settings(tmp_path / "deep", n_layer=3, max_iters=1, preset="cpu-2min"), DATASET).run()
    expected = f"{tmp_path / 'deep'}: has n_layer 3, and {first} 2; only checkpoints of one configuration"
    assert refusal(capsys, first, str(tmp_path / "deep"), out).startswith(expected)
    foreign = from_text(TEXT.replace("b", "z"), SOURCE)
    Trainer(settings(tmp_path / "foreign", max_iters=1, preset="cpu-2min"), foreign).run()
    expected = f"{tmp_path / 'foreign'}: has not the characters of {first}, which differ in 'bz'"
    assert refusal(capsys, first, str(tmp_path / "foreign"), out).startswith(expected)
    shutil.copytree(folder / "x", tmp_path / "other")
    record = json.loads((tmp_path / "other" / RECORD_FILE).read_text())
    record["dataset"]["sha256"] = "b" * 64
    (tmp_path / "other" / RECORD_FILE).write_text(json.dumps(record))
    (tmp_path / "other" / INDEX_FILE).unlink()
    expected = f"{tmp_path / 'other'}: was trained on another text"
    assert refusal(capsys, first, str(tmp_path / "other"), out).startswith(expected)
    Dataset(DATASET.vocabulary, DATASET.train, DATASET.val, {"name": "x", "sha256": "c" * 64}).save(tmp_path / "d")
    message = refusal(capsys, first, first, out, f"--data={tmp_path / 'd'}")
    assert message.startswith(f"{tmp_path / 'd'}: is of another text (SHA-256 {'c' * 12})")
    assert message.endswith("give theirs, or leave out --data\n")
    assert not (tmp_path / "out").exists()


def test_too_few_checkpoints_and_a_folder_in_use_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = str(folder / "x")
    assert "--checkpoints: List should have at least 2 items" in refusal(capsys, first, f"--out_dir={tmp_path}/y")
    assert "--checkpoints is required" in refusal(capsys, f"--out_dir={tmp_path}/y")
    assert "--out_dir is required" in refusal(capsys, first, first)
    assert "already exists, and is not empty" in refusal(capsys, first, first, f"--out_dir={first}")
    assert "--checkpoints.1: Input should name a file or folder" in refusal(capsys, first, "", "--out_dir=y")
