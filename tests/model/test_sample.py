"""`python -m model.sample`, run as a user runs it."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from model.analysis.suffix_array import Source
from model.cli import run
from model.sample import NANOGPT_FLAGS, SampleSettings, describe, sample
from tests.tiny import report_of, tiny_checkpoint, tiny_folder, tiny_index, tiny_play


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_folder(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_samples_are_printed_as_nanogpt_prints_them(folder: Path) -> None:
    command = [sys.executable, "-m", "model.sample", f"--out_dir={folder}", "--start=ROMEO:", "--num_samples=2"]
    done = subprocess.run(
        [*command, "--max_new_tokens=50", "--device=cpu", "--compile=False"],
        capture_output=True,
        text=True,
        check=True,
    )
    head, *samples = done.stdout.split("ROMEO:")
    assert "number of parameters: 0.01M" in head
    assert f"vocabulary of 61 characters from {folder / 'vocab.json'}" in head
    assert len(samples) == 2
    for text in samples:
        assert text.endswith("\n---------------\n")
        assert len(text) == 50 + len("\n---------------\n")
    assert samples[0] != samples[1]


def test_a_prompt_can_come_from_a_file(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "start.txt").write_text("JULIET:")
    arguments = [f"--out_dir={folder}", f"--start=FILE:{tmp_path / 'start.txt'}", "--num_samples=1", "--device=cpu"]
    assert run(SampleSettings, sample, arguments) == 0
    assert "JULIET:" in capsys.readouterr().out


def test_a_report_follows_each_sample(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_index().save(folder / "copies.safetensors")
    (tmp_path / "play.txt").write_text(tiny_play())
    arguments = [f"--out_dir={folder}", "--num_samples=2", "--max_new_tokens=40", "--device=cpu"]
    assert run(SampleSettings, sample, arguments) == 0
    first, second, rest = capsys.readouterr().out.split("---------------\n")
    arguments += ["--report=True", f"--source={tmp_path / 'play.txt'}"]
    assert run(SampleSettings, sample, arguments) == 0
    parts = capsys.readouterr().out.split("---------------\n")
    assert [parts[0], parts[2], parts[4]] == [first, second, rest]
    for report in (parts[1], parts[3]):
        assert "characters of it stand together in the training text" in report
        assert "model_bits" in report


def test_a_report_tells_what_was_found_and_where() -> None:
    play = tiny_play()
    checkpoint = replace(tiny_checkpoint(), index=tiny_index())
    lines = list(describe(report_of(f"lighrough {play[50:90]}", checkpoint, source=Source(play))))
    assert f"copied, 40 characters from 10 on, there from character 50 on: {play[50:90]!r}" in lines
    assert "invented, at 0: lighrough, like light and through" in lines
    assert any(line.startswith("copied_20 0.8; in real text ") for line in lines)


def test_without_an_index_a_report_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(SampleSettings, sample, [f"--out_dir={folder}", "--device=cpu", "--report=True"]) == 2
    assert capsys.readouterr().err.startswith("report: this checkpoint has no index")


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--temperature=-1", "temperature: -1.0 is not a number from 0 up"),
        ("--top_k=0", "top_k: 0 leaves nothing to choose from"),
        ("--start=日", "start: the model has never seen '日' (position 0); use '?' instead"),
        ("--start=FILE:/nowhere/x", "start: /nowhere/x cannot be read"),
        ("--source=/nowhere/x", "source: /nowhere/x cannot be read"),
        ("--out_dir=/nowhere", "/nowhere: no such checkpoint folder"),
        ("--num_samples=0", "--num_samples: Input should be greater than or equal to 1, not '0'"),
        ("--temprature=1", "--temprature: there is no such flag; did you mean --temperature?"),
        ("--seed=x", "--seed: Input should be a valid integer"),
        ("--init_from=gpt2", "--init_from: only resume"),
        ("--init_from=gpt2-xl", "tokens, not characters"),
        ("--dtype=float16", "use bfloat16, float32 or auto"),
        ("--device=cuda:1", "CUDA_VISIBLE_DEVICES=1"),
        ("--temperature=inf", "--temperature: Input should be a finite number"),
        ("config/eval_gpt2.py", "a file of settings is Python code"),
        ("--start=a\u2028b", "start: the model has never seen '\\u2028' (position 1)"),
        ("--start=[1,2]", "start: the model has never seen '[' (position 0, and 3 more)"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    folder: Path, flag: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(SampleSettings, sample, [f"--out_dir={folder}", "--device=cpu", flag], NANOGPT_FLAGS) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_nanogpts_flags_work_as_nanogpt_spells_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--init_from=resume`, `--device=cpu:0` and `--top_k=None` were refused, and prompts cut at line breaks."""
    flags = ["--init_from=resume", f"--out_dir={folder}", "--start=JULIET:\nO", "--num_samples=1", "--seed=1"]
    flags += ["--max_new_tokens=5", "--temperature=0", "--top_k=None", "--device=cpu:0", "--dtype=float32"]
    assert run(SampleSettings, sample, [*flags, "--compile=False"], NANOGPT_FLAGS) == 0
    assert "JULIET:\nO" in capsys.readouterr().out


def test_nanogpts_own_folder_is_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--out_dir=out-shakespeare-char` said that there is no config.json, not what to do."""
    (tmp_path / "ckpt.pt").write_bytes(b"")
    assert run(SampleSettings, sample, [f"--out_dir={tmp_path}", "--device=cpu"]) == 2
    assert "training.import_nanogpt makes a checkpoint of it" in capsys.readouterr().err


def test_help_shows_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(SampleSettings, sample, ["--help"])
    assert stopped.value.code == 0
    assert "(default: 0.8)" in capsys.readouterr().out
