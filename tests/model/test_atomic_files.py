"""A kill at any moment leaves all of the old files or all of the new ones; files of others are never touched."""

import codecs
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from model.atomic_files import (
    STAGE,
    FolderReader,
    FolderWriter,
    decode_text,
    names_in,
    parse_json,
    printable_name,
    read_text,
    read_whole,
    replacing,
)

TEXT = "a: ñ ☃ 😀\nb\n"
CRLF = TEXT.replace("\n", "\r\n")
FILES = ("a", "b", "sub/c")
WRITER = """
import os, signal, sys
from pathlib import Path
from model.atomic_files import replacing

folder, text, killed_at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
count = 0

def kill(event, arguments):
    global count
    if event == "open" or event.startswith(("os.", "shutil.")):
        count += 1
        if count == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill)
with replacing(folder) as new:
    (new / "sub").mkdir()
    for name in ("a", "b", "sub/c"):
        (new / name).write_text(text)
"""
READER = """
import sys
from pathlib import Path
from model.atomic_files import read_whole

folder, seen = Path(sys.argv[1]), set()

def read(files):
    return {files.path(name).read_text() for name in ("a", "b", "sub/c")}

while "last" not in seen:
    texts = read_whole(folder, read)
    assert len(texts) == 1, texts
    if not seen:
        print("reading", flush=True)
    seen |= texts
"""


def run(program: str, *arguments: str) -> int:
    return subprocess.run([sys.executable, "-c", program, *arguments], check=False).returncode


def replace_with(folder: Path, text: str) -> None:
    with replacing(folder) as new:
        (new / "sub").mkdir()
        for name in FILES:
            (new / name).write_text(text)


def content(folder: Path) -> list[str]:
    """What a reader finds, of one writing or not."""

    def read(files: FolderReader) -> list[str]:
        return [files.path(name).read_text() for name in FILES]

    return read_whole(folder, read)


def everything(folder: Path) -> dict[str, str]:
    """Each file in a folder but those of the stage."""
    paths = [path for path in folder.rglob("*") if path.is_file() and STAGE not in path.parts]
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


def test_a_folder_is_made_and_its_files_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "x"
    replace_with(folder, "old")
    replace_with(folder, "new")
    assert everything(folder) == dict.fromkeys(FILES, "new")
    assert names_in(folder) == ["a", "b", "sub"]
    assert [path.name for path in (folder / STAGE).iterdir()] == ["lock"]


def test_what_others_put_into_a_folder_stays(tmp_path: Path) -> None:
    """The folder was renamed away and removed, with whatever a user had put into it. Now files are replaced."""
    replace_with(tmp_path, "old")
    (tmp_path / "NOTES.md").write_text("mine")
    (tmp_path / "sub" / "deep").mkdir()
    (tmp_path / "sub" / "deep" / "notes").write_text("mine")
    replace_with(tmp_path, "new")
    assert everything(tmp_path) == dict.fromkeys(FILES, "new") | {"NOTES.md": "mine", "sub/deep/notes": "mine"}


def test_a_kill_at_any_step_leaves_the_old_files_or_the_new_ones(tmp_path: Path) -> None:
    """A real SIGKILL before the first, second, third … thing that the writer does to the file system."""
    before = -1
    for killed_at in range(1, 1000):
        folder = tmp_path / str(killed_at)
        replace_with(folder, "old")
        (folder / "NOTES.md").write_text("mine")
        killed = run(WRITER, str(folder), "new", str(killed_at)) != 0
        found = content(folder)
        assert found in (["old"] * 3, ["new"] * 3), killed_at
        before = max(before, found == ["new"] * 3)
        assert (found == ["new"] * 3) >= before, "it went back"
        replace_with(folder, "later")
        assert everything(folder) == dict.fromkeys(FILES, "later") | {"NOTES.md": "mine"}
        if not killed:
            break
    assert killed_at > 20
    assert found == ["new"] * 3


def test_a_writing_that_was_cut_short_is_ended_by_the_next(tmp_path: Path) -> None:
    """Else files of the first would come back over those of the second."""
    replace_with(tmp_path, "old")
    whole = tmp_path / STAGE / "whole"
    whole.mkdir()
    (whole / "a").write_text("first")
    with replacing(tmp_path) as new:
        assert (tmp_path / "a").read_text() == "first"
        (new / "b").write_text("second")
    assert everything(tmp_path) == {"a": "first", "b": "second", "sub/c": "old"}


def test_who_reads_while_files_are_replaced_gets_those_of_one_writing(tmp_path: Path) -> None:
    replace_with(tmp_path, "first")
    with subprocess.Popen([sys.executable, "-c", READER, str(tmp_path)], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"reading\n"
        for i in range(200):
            replace_with(tmp_path, str(i))
        replace_with(tmp_path, "last")
    assert reader.returncode == 0


def test_files_that_are_replaced_while_they_are_read_are_read_again(tmp_path: Path) -> None:
    replace_with(tmp_path, "old")
    tries: list[str] = []

    def read(files: FolderReader) -> tuple[str, str]:
        first = files.path("a").read_text()
        tries.append(first)
        if len(tries) == 1:
            replace_with(tmp_path, "new")
            raise ValueError("they do not fit together")
        return first, files.path("b").read_text()

    assert read_whole(tmp_path, read) == ("new", "new")
    assert tries == ["old", "new"]


def test_an_error_that_stays_is_raised_and_one_that_never_ends_is_given_up(tmp_path: Path) -> None:
    replace_with(tmp_path, "old")
    with pytest.raises(FileNotFoundError):
        read_whole(tmp_path, lambda files: files.path("missing").read_text())

    def never(files: FolderReader) -> str:
        path = files.path("a")
        replace_with(tmp_path, "again")
        return path.read_text()

    with pytest.raises(OSError, match="replaced faster than they can be read"):
        read_whole(tmp_path, never)


def test_an_error_leaves_the_old_files(tmp_path: Path) -> None:
    replace_with(tmp_path, "old")

    def fail() -> None:
        with replacing(tmp_path) as new:
            (new / "a").write_text("new")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert everything(tmp_path) == dict.fromkeys(FILES, "old")
    assert not (tmp_path / STAGE / "new").exists()


@pytest.mark.parametrize("name", ["a", "sub"])
def test_a_place_that_is_taken_is_refused_before_anything_is_replaced(tmp_path: Path, name: str) -> None:
    """A folder in the place of a file, and a file in the place of a folder."""
    if name == "a":
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text("mine")
    with pytest.raises(OSError, match=f"/{name}'"):
        replace_with(tmp_path, "new")
    assert everything(tmp_path) == ({} if name == "a" else {"sub": "mine"})


def test_a_link_is_written_through(tmp_path: Path) -> None:
    """The link itself was replaced by a folder."""
    replace_with(tmp_path / "target", "old")
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "nowhere").symlink_to("made")
    replace_with(tmp_path / "link", "new")
    replace_with(tmp_path / "nowhere", "new")
    assert (tmp_path / "link").is_symlink()
    for name in ("target", "made"):
        assert content(tmp_path / name) == ["new"] * 3


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    writer = FolderWriter(tmp_path)
    with pytest.raises(BlockingIOError, match="another process is writing there"):
        replace_with(tmp_path, "new")
    writer.close()
    replace_with(tmp_path, "new")


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """A file system of its own at `folder`, where this process may mount one."""
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("no right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_mount_point_is_written_to(tmp_path: Path) -> None:
    """A mount point, such as a Docker volume, cannot be renamed: Device or resource busy."""
    with mounted(tmp_path):
        (tmp_path / "lost+found").mkdir()
        assert names_in(tmp_path) == []
        replace_with(tmp_path, "old")
        replace_with(tmp_path, "new")
        assert content(tmp_path) == ["new"] * 3


def test_a_full_disk_leaves_the_old_files(tmp_path: Path) -> None:
    with mounted(tmp_path):
        replace_with(tmp_path, "old")
        with pytest.raises(OSError, match="No space left"):
            replace_with(tmp_path, "x" * (1 << 20))
        assert everything(tmp_path) == dict.fromkeys(FILES, "old")
        replace_with(tmp_path, "new")


def test_a_sub_folder_on_another_disk_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    with mounted(tmp_path / "sub"):
        replace_with(tmp_path, "old")
        replace_with(tmp_path, "new")
        assert everything(tmp_path) == dict.fromkeys(FILES, "new")


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
