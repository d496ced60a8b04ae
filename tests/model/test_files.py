"""A kill at any moment leaves the old folder or the new one, whole."""

import codecs
import os
from pathlib import Path
from unittest.mock import patch

import pytest

from model.files import decode_text, parse_json, printable_name, read_text, recover, replacing


class Killed(BaseException):
    """Stands for a SIGKILL: nothing after it runs that the next process could not also miss."""


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in recover(folder).iterdir()}


def replace_with(folder: Path, text: str) -> None:
    with replacing(folder) as new:
        (new / "a").write_text(text)
        (new / "b").write_text(text)


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "x"
    replace_with(folder, "old")
    replace_with(folder, "new")
    assert content(folder) == {"a": "new", "b": "new"}
    assert [path.name for path in folder.parent.iterdir()] == ["x"]


@pytest.mark.parametrize("killed_at", range(1, 12))
def test_a_kill_at_any_step_leaves_one_whole_folder(tmp_path: Path, killed_at: int) -> None:
    folder = tmp_path / "x"
    replace_with(folder, "old")
    steps = 0

    def counted(real: object) -> object:
        def call(*arguments: object, **named: object) -> object:
            nonlocal steps
            steps += 1
            if steps >= killed_at:
                raise Killed
            return real(*arguments, **named)  # type: ignore[operator]

        return call

    names = [(os, "fsync"), (Path, "rename"), (Path, "mkdir"), (Path, "write_text")]
    patches = [patch.object(owner, name, counted(getattr(owner, name))) for owner, name in names]
    patches.append(patch("shutil.rmtree", counted(__import__("shutil").rmtree)))
    for one in patches:
        one.start()
    try:
        replace_with(folder, "new")
        finished = True
    except Killed:
        finished = False
    finally:
        for one in patches:
            one.stop()
    found = content(folder)
    assert found in ({"a": "old", "b": "old"}, {"a": "new", "b": "new"})
    if finished:
        assert found["a"] == "new"
    replace_with(folder, "later")
    assert content(folder) == {"a": "later", "b": "later"}


def test_an_error_leaves_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    replace_with(folder, "old")
    with pytest.raises(OSError, match="disk full"), replacing(folder):
        raise OSError("disk full")
    assert content(folder) == {"a": "old", "b": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


TEXT = "a: ñ ☃ 😀\nb\n"
CRLF = TEXT.replace("\n", "\r\n")


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        CRLF.encode("utf-8-sig"),
        CRLF.encode("utf-16"),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + CRLF.encode("utf-16-be"),
        codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
        codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"),
    ],
)
def test_a_text_is_read_as_its_byte_order_mark_says(content: bytes, tmp_path: Path) -> None:
    """Notepad and PowerShell begin files with a byte order mark, PowerShell writes UTF-16: a receipt saved by them,
    a checkpoint's JSON edited there, a `.env`, could not be read. Each reader decoded by itself; now one does it.
    """
    assert decode_text(content) == TEXT
    (tmp_path / "x").write_bytes(content)
    assert read_text(tmp_path / "x") == TEXT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"caf\xe9 noir", r"^not UTF-8 text \(byte 0xe9 at position 3\); save the file as UTF-8$"),
        (b"\xef\xbb\xbfcaf\xe9", r"^not UTF-8 text \(byte 0xe9 at position 6\)"),
        (b"\xff\xfea", r"^not UTF-16 text \(byte 0x61 at position 2\)"),
        (b"\xfe\xff\xd8\x00\x00a", r"^not UTF-16 text \(byte 0xd8 at position 2\)"),
        ("abc".encode("utf-16-le"), "perhaps UTF-16 without a byte order mark"),
    ],
)
def test_what_is_no_text_is_refused_with_place_and_remedy(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_text(content)


@pytest.mark.parametrize(
    ("name", "printable"),
    [
        (b"espa\xc3\xb1ol", "español"),
        (b"espa\xf1ol", r"espa\xf1ol"),
        (b"\xc3\xb1 and \xf1", r"ñ and \xf1"),
        (b"two\nlines\t\x1b", r"two\nlines\t\x1b"),
        ("☃ 😀".encode(), "☃ 😀"),
    ],
)
def test_a_name_is_made_printable(name: bytes, printable: str) -> None:
    """A name of other bytes than UTF-8 is a text with halves of surrogate pairs, which no answer can carry: a data
    set from `espa\\xf1ol.txt` made `/` and `/info` answer 500. Names are made printable where they enter.
    """
    assert printable_name(Path("/folder") / os.fsdecode(name)) == printable


def test_json_has_no_halves_of_surrogate_pairs() -> None:
    """Training records of before have such names in them."""
    value = parse_json(r'{"name \udcf1": ["espa\udcf1ol", {"x": "\ud83d\ude00", "y": 1}], "é": null}')
    assert value == {r"name \udcf1": [r"espa\udcf1ol", {"x": "😀", "y": 1}], "é": None}
