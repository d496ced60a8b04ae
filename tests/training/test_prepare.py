import hashlib
from pathlib import Path

import pytest

from model.cli import run
from training.dataset import Dataset
from training.prepare import PrepareSettings, decode, prepare


def test_a_text_file_becomes_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "Ein Männlein steht im Walde\r\n" * 10
    (tmp_path / "song.txt").write_bytes(text.encode())
    arguments = [f"--input_file={tmp_path / 'song.txt'}", f"--out_dir={tmp_path / 'data'}"]
    assert run(PrepareSettings, prepare, arguments) == 0
    dataset = Dataset.load(tmp_path / "data")
    assert "ä" in dataset.vocabulary.characters
    assert "\r" not in dataset.vocabulary.characters
    assert dataset.source["name"] == "song"
    assert dataset.source["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert "vocab size: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.txt: is empty; there is nothing to learn from"),
        (b"a", "1 different characters in 1"),
        (b"caf\xe9 noir", "not UTF-8 text (byte 0xe9 at position 3); save the file as UTF-8"),
    ],
)
def test_a_file_that_cannot_be_learned_from_is_refused(
    tmp_path: Path, content: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.txt").write_bytes(content)
    arguments = [f"--input_file={tmp_path / 'x.txt'}", f"--out_dir={tmp_path / 'data'}"]
    assert run(PrepareSettings, prepare, arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_a_folder_of_texts_becomes_one_in_the_order_of_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, content in {
        "b/2.txt": b"second, without a line end",
        "b/10.txt": b"\xef\xbb\xbffirst\r\n",
        "c.txt": "third: ñ".encode(),
        "c.pdf": b"\xff\xfe not a text",
    }.items():
        (tmp_path / "texts" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / path).write_bytes(content)
    arguments = [f"--input_file={tmp_path / 'texts'}", f"--out_dir={tmp_path / 'data'}"]
    assert run(PrepareSettings, prepare, arguments) == 0
    dataset = Dataset.load(tmp_path / "data")
    text = dataset.vocabulary.decode([*dataset.train.tolist(), *dataset.val.tolist()])
    assert text == "first\nsecond, without a line end\nthird: ñ"
    assert dataset.source["name"] == "texts"
    assert "(3 files)" in capsys.readouterr().out


def test_rare_characters_are_named_and_left_out_on_demand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.txt").write_text("abc abc " * 100 + "☃\u200b\n" + "z" * 40 + "ab" * 5 + "é", encoding="utf-8")
    arguments = [f"--input_file={tmp_path / 'x.txt'}", f"--out_dir={tmp_path / 'data'}"]
    assert run(PrepareSettings, prepare, arguments) == 0
    out = capsys.readouterr().out
    assert "rare: 4 characters: U+000A (1), é (1), ZERO WIDTH SPACE (1), ☃ (1); --drop_rarer_than=10" in out
    assert "in the validation part only, so never learned: 5 characters: U+000A (1)" in out
    assert "fewer than 100,000 characters" in out
    assert run(PrepareSettings, prepare, [*arguments, "--drop_rarer_than=2"]) == 0
    assert "left out: 4 characters" in capsys.readouterr().out
    assert Dataset.load(tmp_path / "data").vocabulary.characters == tuple(" abcz")


def test_a_folder_without_texts_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(PrepareSettings, prepare, [f"--input_file={tmp_path}"]) == 2
    assert "this folder has no .txt files" in capsys.readouterr().err


def test_a_missing_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(PrepareSettings, prepare, [f"--input_file={tmp_path / 'x.txt'}"]) == 2
    assert "x.txt: cannot be read (No such file or directory)" in capsys.readouterr().err


def test_a_download_that_is_not_the_data_set_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "input.txt").write_text("not Shakespeare")
    url = (tmp_path / "input.txt").as_uri()
    assert run(PrepareSettings, prepare, [f"--url={url}", f"--out_dir={tmp_path / 'data'}"]) == 2
    assert "the download is not the data set" in capsys.readouterr().err


def test_a_download_that_fails_names_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(PrepareSettings, prepare, ["--url=file:///nowhere", f"--out_dir={tmp_path / 'data'}"]) == 2
    assert "give a local file with --input_file" in capsys.readouterr().err


def test_a_byte_order_mark_is_no_character() -> None:
    assert decode(b"\xef\xbb\xbfa\rb\r\nc", "x") == "a\nb\nc"
