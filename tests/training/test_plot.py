"""Real runs become real pictures."""

import sys
from pathlib import Path
from typing import Any

import pytest

from model.cli import run
from training.dataset import from_text
from training.plot import SUFFIXES, PlotSettings, plot
from training.settings import TrainSettings
from training.trainer import Trainer

BUNDLED = Path(__file__).parents[2] / "checkpoints" / "shakespeare-char"
TEXT = "To be, or not to be: that is the question.\n" * 40
SMALL: dict[str, Any] = {
    "n_layer": 1,
    "n_head": 1,
    "n_embd": 16,
    "block_size": 16,
    "max_iters": 4,
}


@pytest.fixture
def runs(tmp_path: Path) -> str:
    dataset = from_text(TEXT, {"name": "hamlet"})
    dataset.save(tmp_path / "data")
    for name in ("first", "second"):
        settings = TrainSettings(
            data=tmp_path / "data",
            out_dir=tmp_path / name,
            preset="cpu-2min",
            eval_interval=2,
            device="cpu",
            **SMALL,
        )
        Trainer(settings, dataset).run()
    return f"{tmp_path / 'first'},{tmp_path / 'second'}"


def draw(*flags: str) -> int:
    return run(PlotSettings, plot, list(flags))


def test_two_runs_and_the_baselines_are_drawn(
    tmp_path: Path, runs: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "pictures" / "loss.svg"
    assert draw(f"--runs={runs}", f"--data={tmp_path / 'data'}", f"--out={out}") == 0
    drawn = out.read_text()
    for words in ("first, val", "second, train", "Kneser–Ney 6-gram", "million characters read"):
        assert f"<!-- {words}" in drawn  # matplotlib names each text beside its outlines
    assert "nanoGPT" not in drawn  # another text than the one its figure is for
    printed = capsys.readouterr().out
    assert "unigram: " in printed
    assert printed.endswith(f"wrote {out}\n")
    assert draw(f"--runs={runs.split(',', maxsplit=1)[0]}", f"--out={tmp_path / 'loss.png'}") == 0
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn_is_one_line(
    tmp_path: Path, runs: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusal(*flags: str) -> str:
        assert draw(*flags) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    first = runs.split(",", maxsplit=1)[0]
    assert "loss.gif" in refusal(f"--runs={first}", "--out=loss.gif")
    assert "training.json: cannot be read" in refusal(f"--runs={tmp_path / 'none'}")
    (tmp_path / "first" / "training.json").write_text("{}")
    assert "has no loss curve" in refusal(f"--runs={first}")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "pip install matplotlib" in refusal(f"--runs={first}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_picture_takes_the_place_of_an_older_one_and_of_nothing_else(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--out=photo.png` wrote over the photo. What is drawn here now says so, and only that is replaced."""
    out = tmp_path / f"x{suffix}"
    chosen = f"--runs={BUNDLED}", f"--out={out}"
    out.write_bytes(b"mine")
    assert draw(*chosen) == 2
    assert capsys.readouterr().err == f"out: {out} is there, and was not drawn by this command; use another name\n"
    assert out.read_bytes() == b"mine"
    out.unlink()
    for _ in range(2):
        assert draw(*chosen) == 0
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    (tmp_path / f"y{suffix}").mkdir()
    assert draw(f"--runs={BUNDLED}", f"--out={tmp_path / f'y{suffix}'}") == 2
    assert capsys.readouterr().err.endswith("cannot be written (Is a directory)\n")
