"""The script for a GPU, on the CPU with a tiny budget: seeds side by side, a student of them, and all losses."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from benchmarks import ensemble
from benchmarks.ensemble import EnsembleSettings, main, wait_or_interrupt, write_parts
from model.checkpoint import read_checkpoint
from model.cli import run
from training.distill import DistillSettings, distill
from training.settings import TrainSettings
from training.train import train

TEXT = "To be, or not to be: that is the question.\n" * 40
TINY = (
    "--preset=cpu-2min --n_layer=1 --n_head=1 --n_embd=16 --block_size=16 --batch_size=8 --warmup_iters=2 "
    "--max_iters=6 --eval_interval=3 --dtype=float32 --learning_rate=1e-2"
)


class EndedProcess:
    """In the place of a process: the command has been run in this one, which has imported what it needs."""

    def __init__(self, arguments: list[str], log: Path, environment: Mapping[str, str]) -> None:
        _, module, *flags = arguments
        with log.open("w", encoding="utf-8") as output, redirect_stdout(output):
            if module == "training.train":
                self.returncode = run(TrainSettings, train, flags)
            else:
                self.returncode = run(DistillSettings, distill, flags)

    def wait(self, timeout: float) -> int:
        return self.returncode


def test_seeds_are_distilled_measured_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ensemble, "start_python", EndedProcess)
    (tmp_path / "play.txt").write_text(TEXT)
    flags = [f"--text={tmp_path / 'play.txt'}", f"--out={tmp_path / 'out'}", "--seeds=2", "--students=1"]
    tiny = [f"--teacher_flags={TINY}", f"--student_flags={TINY}", "--device=cpu", "--benchmarks=False"]
    assert run(EnsembleSettings, main, [*flags, *tiny, "--seconds=3600"]) == 0
    out = tmp_path / "out"
    rows = (out / "losses.md").read_text().splitlines()[2:]
    losses = {row.split(" | ")[0].strip("| "): float(row.split()[-2]) for row in rows}
    together = losses.pop("all seeds, mean of their probabilities")
    assert set(losses) == {"seed-1337", "seed-1338", "student-2001"}
    assert list(losses.values()) == sorted(losses.values())
    assert together < max(losses["seed-1337"], losses["seed-1338"])
    kept = read_checkpoint(out / "checkpoint")
    assert kept.training["val_loss"] == pytest.approx(min(losses.values()), abs=0.02)
    assert kept.draft is not None
    printed = capsys.readouterr().out
    assert "student-2001: exit code 0" in printed
    assert "is the best of 3: a choice by the validation split" in printed
    assert "teachers: " in (out / "student-2001.log").read_text()
    assert run(EnsembleSettings, main, [*flags, *tiny]) == 2
    assert "is not empty; use another folder" in capsys.readouterr().err


def test_what_is_not_done_in_its_time_is_interrupted() -> None:
    program = "import signal; print(flush=True); signal.pause()"
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    wait_or_interrupt(processes, time.monotonic())
    assert all(process.returncode for process in processes)
    for process in processes:
        process.communicate()


@pytest.mark.parametrize(
    ("program", "seconds", "end"),
    [("exit 3", 3600.0, "exit code 3"), ("sleep infinity", 0.0, "the time is up")],
)
def test_the_benchmarks_have_the_time_that_is_left(
    program: str,
    seconds: float,
    end: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ensemble, "ROOT", tmp_path)
    (tmp_path / "benchmarks").mkdir()
    script = tmp_path / "benchmarks" / "gpu.sh"
    script.write_text(f"#!/bin/sh\n{program}\n")
    script.chmod(0o755)
    ensemble.run_benchmarks(tmp_path / "out", seconds)
    assert end in capsys.readouterr().out


def test_a_log_has_all_that_a_process_prints(tmp_path: Path) -> None:
    program = "import os, sys; print(os.environ['NAME']); print('to stderr', file=sys.stderr)"
    process = ensemble.start_python(
        ["-c", program], tmp_path / "x.log", os.environ | {"NAME": "of the environment"}
    )
    assert process.wait() == 0
    assert sorted((tmp_path / "x.log").read_text().splitlines()) == ["of the environment", "to stderr"]


def test_parts_of_a_file_are_the_file(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    (checkpoint / "resume").mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(bytes(range(250)))
    (checkpoint / "config.json").write_bytes(b"{}")
    write_parts(checkpoint, tmp_path / "out", part_bytes=100)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["config.json", "model.safetensors.00", "model.safetensors.01", "model.safetensors.02"]
    parts = [(tmp_path / "out" / name).read_bytes() for name in names[1:]]
    assert b"".join(parts) == bytes(range(250))
    assert max(map(len, parts)) == 100
