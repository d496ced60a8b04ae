"""A receipt's text is written again; a change in it, its checkpoint or its parameters is found and named."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from model.checkpoint import read_checkpoint
from model.cli import run
from model.generation.receipt import Receipt
from model.verify import VerifySettings, verify
from tests.tiny import tiny_folder, tiny_generator

ASKED = {"prompt": "ROMEO:", "max_new_tokens": 80, "temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": None}
ASKED |= {"num_samples": 2, "stop": []}


@pytest.fixture
def answer(folder: Path) -> dict[str, Any]:
    """A JSON answer of the server, as far as it is read."""
    checkpoint = tiny_folder(folder.with_name("again"))
    receipt = {
        "checkpoint": checkpoint.identity,
        "numerics": "cpu-int8",
        "seed": 5,
        "parameters": ASKED,
        "samples": [],
    }
    sequences = Receipt.model_validate(receipt).sequences(checkpoint.vocabulary)
    texts = ["".join(chunk.text for chunk in tiny_generator().write(sequence)) for sequence in sequences]
    digests = [{"index": i, "sha256": hashlib.sha256(t.encode()).hexdigest()} for i, t in enumerate(texts)]
    samples = [digest | {"text": text} for digest, text in zip(digests, texts, strict=True)]
    return {"samples": samples, "receipt": receipt | {"samples": digests}}


def run_on(content: Any, folder: Path, tmp_path: Path) -> int:
    path = tmp_path / "receipt.json"
    path.write_text(json.dumps(content))
    return run(VerifySettings, verify, [str(path), f"--checkpoint={folder}"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_folder(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_the_same_text_is_identical(
    answer: dict[str, Any], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_on(answer, folder, tmp_path) == 0
    assert run_on(answer["receipt"], folder, tmp_path) == 0
    assert capsys.readouterr().out == "identical\nidentical\n"


def test_the_first_character_that_differs_is_found(
    answer: dict[str, Any], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = answer["samples"][1]["text"]
    answer["samples"][1]["text"] = text[:17] + "#" + text[18:]
    with pytest.raises(SystemExit) as ended:
        run_on(answer, folder, tmp_path)
    assert ended.value.code == 1
    assert "sample 1: differs from character 17 on: " in capsys.readouterr().out
    answer["receipt"]["seed"] += 1
    with pytest.raises(SystemExit):
        run_on(answer["receipt"], folder, tmp_path)
    assert "sample 0: another text" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoint": "0" * 64}, "the receipt is of 000000000000, but"),
        ({"numerics": "cpu-int3"}, "numerics: 'cpu-int3' is not known"),
        ({"seed": -1}, "holds no receipt (seed: "),
        ({"parameters": ASKED | {"temperature": -1}}, "temperature: -1"),
        ({"parameters": ASKED | {"num_samples": 3}}, "does not list samples 0 to 2"),
        ({"parameters": ASKED | {"prompt": "日"}}, "日"),
        ({"parameters": ASKED | {"prompt": ""}}, "parameters.prompt"),
    ],
)
def test_what_cannot_be_verified_is_refused_in_one_line(
    answer: dict[str, Any],
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
    message: str,
) -> None:
    assert run_on(answer["receipt"] | change, folder, tmp_path) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("kind", ["device", "pipe", "folder", "sparse", "missing"])
def test_what_is_no_file_is_refused_before_it_is_read(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """A receipt of /dev/zero was read until memory ran out, a pipe for ever."""
    path = Path("/dev/zero") if kind == "device" else tmp_path / "receipt"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "sparse":
        path.touch()
        os.truncate(path, 1 << 40)
    assert run(VerifySettings, verify, [str(path), f"--checkpoint={folder}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"receipt: {path} cannot be read (")
    assert said.count("\n") == 1


def test_a_receipt_from_before_the_identity_covered_the_vocabulary_is_named(
    answer: dict[str, Any], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such a receipt is of the very checkpoint that is here, by its former identity: the refusal says so, not that
    it is of another checkpoint.
    """
    former = read_checkpoint(folder).former_identity
    assert run_on(answer["receipt"] | {"checkpoint": former}, folder, tmp_path) == 2
    said = capsys.readouterr().err
    assert said.startswith("checkpoint: the receipt is of this checkpoint, ")
    assert f"by its identity before one covered the vocabulary, {former[:12]}; have the text written again" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "content", [[], {}, 3, {"receipt": None}, {"receipt": {}, "samples": 3}, {"receipt": {}, "samples": [3]}]
)
def test_what_is_no_receipt_is_refused(content: Any, folder: Path, tmp_path: Path) -> None:
    assert run_on(content, folder, tmp_path) == 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_receipt_saved_on_windows_is_read(
    encoding: str, answer: dict[str, Any], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """PowerShell's `>` writes UTF-16, Notepad a byte order mark: neither could be read."""
    path = tmp_path / "answer.json"
    path.write_bytes(json.dumps(answer, indent=1).replace("\n", "\r\n").encode(encoding))
    assert run(VerifySettings, verify, [str(path), f"--checkpoint={folder}"]) == 0
    assert capsys.readouterr().out == "identical\n"


def test_a_receipt_that_is_no_text_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "answer.json"
    path.write_bytes(b'{"receipt": "caf\xe9"}')
    assert run(VerifySettings, verify, [str(path), f"--checkpoint={folder}"]) == 2
    assert "not UTF-8 text (byte 0xe9 at position 16); save the file as UTF-8" in capsys.readouterr().err
