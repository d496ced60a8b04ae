"""Data folders that nanoGPT's own prepare.py wrote are data sets here."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.checkpoint import read_checkpoint
from model.cli import run
from tests.tiny import VOCABULARY, tiny_folder, tiny_play
from training.dataset import Dataset
from training.draft import DraftSettings, add_draft
from training.evaluate import EvaluateSettings
from training.evaluate import main as evaluate_checkpoint
from training.index import IndexSettings, add_index
from training.prepare import PrepareSettings, prepare
from training.settings import NANOGPT_FLAGS, TrainSettings
from training.train import train


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_data(tmp_path / "shakespeare_char", tiny_play())
    return tmp_path / "shakespeare_char"


def write_data(folder: Path, text: str) -> None:
    """As nanoGPT's data/shakespeare_char/prepare.py does."""
    folder.mkdir()
    characters = sorted(set(text))
    stoi = {character: number for number, character in enumerate(characters)}
    split = int(len(text) * 0.9)
    for name, part in {"train.bin": text[:split], "val.bin": text[split:]}.items():
        np.array([stoi[character] for character in part], dtype=np.uint16).tofile(folder / name)
    meta = {"vocab_size": len(characters), "itos": dict(enumerate(characters)), "stoi": stoi}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))


def test_the_data_set_is_that_of_prepare(folder: Path, tmp_path: Path) -> None:
    """The same text prepared here and there: the same ids, and the same SHA-256 to know it by."""
    (tmp_path / "play.txt").write_text(tiny_play(), encoding="utf-8")
    arguments = [f"--input_file={tmp_path / 'play.txt'}", f"--out_dir={tmp_path / 'ours'}"]
    assert run(PrepareSettings, prepare, arguments) == 0
    ours = Dataset.load(tmp_path / "ours")
    theirs = Dataset.load(folder)
    assert theirs.vocabulary.characters == ours.vocabulary.characters
    assert np.array_equal(theirs.train, ours.train)
    assert np.array_equal(theirs.val, ours.val)
    assert theirs.source == ours.source | {"name": "shakespeare_char"}
    assert theirs.source["sha256"] == hashlib.sha256(tiny_play().encode()).hexdigest()


def test_every_command_that_takes_data_takes_nanogpts(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--data=nanoGPT/data/shakespeare_char` was refused: the folder has no dataset.json."""
    tiny_folder(tmp_path / "tiny")
    there = [f"--checkpoint={tmp_path / 'tiny'}", f"--data={folder}"]
    assert run(EvaluateSettings, evaluate_checkpoint, [*there, "--device=cpu"]) == 0
    assert "nats/char" in capsys.readouterr().out
    assert run(DraftSettings, add_draft, there) == 0
    assert run(IndexSettings, add_index, there) == 0
    small = ["--n_layer=1", "--n_head=1", "--n_embd=8", "--block_size=8", "--batch_size=2", "--device=cpu"]
    flags = [f"--data={folder}", f"--out_dir={tmp_path / 'trained'}", "--max_iters=2", "--lr_decay_iters=2"]
    foreign = ["--wandb_log=False", "--init_from=scratch", "--decay_lr=True", "--always_save_checkpoint=False"]
    kept = ["--grad_clip=0.0", "--preset=shakespeare-char", "--sample_tokens=0", "--warmup_iters=1"]
    assert run(TrainSettings, train, [*flags, *small, *foreign, *kept], NANOGPT_FLAGS) == 0
    assert read_checkpoint(tmp_path / "trained").training["dataset"]["name"] == "shakespeare_char"


def break_ids(folder: Path) -> None:
    np.array([60_000] * 50, dtype=np.uint16).tofile(folder / "val.bin")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "meta.pkl").unlink(), "GPT-2's tokens, not characters"),
        (lambda folder: (folder / "val.bin").unlink(), "not a whole data set"),
        (lambda folder: (folder / "val.bin").write_bytes(b""), "not a whole data set"),
        (lambda folder: (folder / "val.bin").write_bytes(b"abc"), "not a whole data set"),
        (break_ids, "has the id 60000, and the vocabulary"),
        (lambda folder: (folder / "meta.pkl").write_bytes(b"cos\nmkdir\n."), "refused, it names os.mkdir"),
        (lambda folder: (folder / "meta.pkl").write_bytes(pickle.dumps({})), "it has no itos"),
    ],
)
def test_what_is_not_a_whole_folder_of_characters_is_refused_in_one_line(
    damage: Any, message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_folder(tmp_path / "tiny")
    damage(folder)
    arguments = [f"--checkpoint={tmp_path / 'tiny'}", f"--data={folder}", "--device=cpu"]
    assert run(EvaluateSettings, evaluate_checkpoint, arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--dataset=shakespeare_char", "--dataset: name its folder, --data=data/NAME"),
        ("--eval_iters=20", "--eval_iters: --eval_blocks says how much is read"),
        ("--eval_only=True", "python -m training.evaluate"),
        ("--log_interval=1", "leave it out"),
        ("--always_save_checkpoint=True", "--snapshots=N"),
        ("--init_from=resume", "--resume=True"),
        ("--init_from=gpt2-xl", "tokens, not characters"),
        ("--decay_lr=False", "--min_lr"),
        ("--backend=gloo", "chosen by the device"),
        ("--wandb_log=True", "--tensorboard=DIR"),
        ("--wandb_project=owt", "--tensorboard=DIR"),
        ("--wandb_run_name=mini", "--tensorboard=DIR"),
        ("--dtype=float16", "use bfloat16"),
        ("config/train_shakespeare_char.py", "a file of settings is Python code"),
    ],
)
def test_nanogpts_flags_that_are_others_here_are_answered(
    flag: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They were `unrecognized arguments`, with no word of what does it here."""
    assert run(TrainSettings, train, ["--data=nowhere", flag], NANOGPT_FLAGS) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_tiny_vocabulary_has_the_plays_characters() -> None:
    assert set(tiny_play()) <= set(VOCABULARY.characters)
