"""Optional work that fails costs a run only that work."""

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from model.checkpoint import read_checkpoint
from model.errors import SaveError
from model.network import GPT
from tests.training.test_trainer import SMALL, settings
from training import run_folder
from training import trainer as trainer_module
from training.dataset import from_text
from training.run_folder import RunFolder
from training.trainer import Trainer, TrainingObserver

TEXT = "To be, or not to be: that is the question.\n" * 40


class Listener(TrainingObserver):
    """Keeps the warnings."""

    def __init__(self, sample: Callable[[GPT], str]) -> None:
        self.warnings: list[str] = []
        self._sample = sample

    def sample(self, network: GPT) -> str:
        return self._sample(network)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def fail(*arguments: Any, **named: Any) -> NoReturn:
    raise ValueError("it is\nthe wrong moon")


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        ("make_draft", "draft table"),
        ("make_index", "index of the training text"),
        ("baselines", "baselines"),
        ("snapshot", "snapshots"),
        ("sample", "samples"),
    ],
)
def test_optional_work_that_fails_costs_only_itself(
    extra: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text whose index could not be made ended the run at its first evaluation, with a traceback and no
    checkpoint: no exception of optional work was caught. Now each failure is caught and warned of once.
    """
    if extra == "snapshot":
        monkeypatch.setattr(RunFolder, extra, fail)
    elif extra != "sample":
        monkeypatch.setattr(trainer_module, extra, fail)
    listener = Listener(fail if extra == "sample" else lambda network: "text")
    trainer = Trainer(settings(tmp_path / "x", snapshots=3), from_text(TEXT, {}), listener)
    assert trainer.run()
    assert listener.warnings == [f"warning: the run goes on without {name} (ValueError: it is the wrong moon)"]
    checkpoint = read_checkpoint(tmp_path / "x")
    assert len(checkpoint.training["curve"]) == 4
    assert (checkpoint.draft is None) == (extra == "make_draft")
    assert (checkpoint.index is None) == (extra == "make_index")
    assert (checkpoint.training["baselines"] == {}) == (extra == "baselines")
    assert (tmp_path / "x-snapshots").exists() == (extra != "snapshot")


def test_a_disk_that_is_full_ends_the_run_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saving the checkpoint is not optional."""

    def full(*arguments: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_folder, "write_checkpoint", full)
    with pytest.raises(SaveError, match="No space left on device"):
        Trainer(settings(tmp_path / "x"), from_text(TEXT, {})).run()


def test_the_command_says_what_it_leaves_out(tmp_path: Path) -> None:
    """With files where the folders of snapshots and of events should be, and an output that has only ASCII."""
    pytest.importorskip("tensorboard")
    from_text(TEXT.replace("question", "qu\u00e9stion \u2603"), {"name": "x"}).save(tmp_path / "data")
    mine = tmp_path / "x-snapshots"
    mine.write_text("mine")
    flags = [f"--{name}={value}" for name, value in SMALL.items()]
    command = [sys.executable, "-m", "training.train", f"--data={tmp_path / 'data'}", f"--out_dir={tmp_path / 'x'}"]
    done = subprocess.run(
        [*command, "--preset=shakespeare-char", "--snapshots=3", f"--tensorboard={mine}", *flags],
        capture_output=True,
        check=False,
        env={"PATH": "", "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if b"warning: " in line]
    without = [line.partition(b"goes on without ")[2].partition(b" (")[0] for line in warnings]
    assert without == [b"TensorBoard's event files", b"snapshots"]
    assert b"Traceback" not in done.stderr
    assert b"step 12: " in done.stdout
    assert done.stdout.isascii()
    assert mine.read_text() == "mine"
    assert read_checkpoint(tmp_path / "x").index is not None
