"""Reads untrusted files within bounds, and replaces files of a folder all together or not at all.

Knows nothing of what the files contain.

A folder is never renamed, since it may be a mount point, and no file in it is touched except those that are
replaced. Everything else happens in one hidden sub-folder:

.soliloquy/lock     held by the process that writes
.soliloquy/new/     files that are being written; ignored by readers
.soliloquy/whole/   `new`, renamed once all its files are complete and synced. This one rename is the commit: from
                    then on these files count instead of those of the same names in the folder. Then they are moved
                    to their places one by one.

Three rules make this safe:

- A reader looks for a file in `whole` first (`FolderReader.path`). So a kill between any two steps leaves either
  all of the old files or all of the new ones.
- A writer first finishes the moves that a kill interrupted (`FolderWriter`). A reader does not, and so needs no
  right to write.
- A reader that finds that files were replaced meanwhile reads them all again (`read_whole`).
"""

import codecs
import errno
import json
import math
import os
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from model.errors import SoliloquyError

Value = TypeVar("Value")

STAGE = ".soliloquy"  # the hidden sub-folder
IGNORED_NAMES = {STAGE, "lost+found", ".DS_Store", ".gitkeep"}  # a folder with nothing else counts as empty
READ_ATTEMPTS = 20  # of a folder that is replaced again and again
MAX_JSON_BYTES = 1 << 26  # 64 MiB
MAX_TEXT_BYTES = 1 << 32  # 4 GiB
BYTE_ORDER_MARKS = {  # encodings by the first bytes; UTF-32's before UTF-16's, with which they begin
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
SURROGATE = re.compile("[\ud800-\udfff]")
MAX_DEPTH = 16  # of nested JSON values
MAX_STRING_LENGTH = 10_000  # characters
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
NO_SUCH_TYPE = (AttributeError, TypeError)  # raised for a safetensors file of a type that NumPy does not have


def check_file(path: Path, max_bytes: int) -> None:
    """Refuse what has no end, such as a device, and what is too large for memory.

    Raises:
        OSError: it is missing, is not a file (but a folder, a pipe, a device), or has more than `max_bytes`.
    """
    size = path.stat().st_size
    if not path.is_file():
        raise OSError("it is not a file")
    if size > max_bytes:
        raise OSError(f"its {size:,} bytes are more than {max_bytes:,}")


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """The content of a file. Not more than `max_bytes` are read, even if the file grows meanwhile.

    Raises:
        OSError: see `check_file`.
    """
    check_file(path, max_bytes)
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(f"it has more than {max_bytes:,} bytes")
    return content


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        OSError: see `check_file`.
        ValueError: see `decode_text` and `parse_json`.
    """
    return parse_json(read_text(path, MAX_JSON_BYTES))


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """The text in a file, its line ends as `\n`.

    Raises:
        OSError: see `check_file`.
        ValueError: see `decode_text`.
    """
    return decode_text(read_bounded(path, max_bytes))


def decode_text(content: bytes) -> str:
    """The text that bytes encode, its line ends as `\n`. What has no byte order mark must be UTF-8.

    Raises:
        ValueError: it is not in its encoding; names the first wrong byte, and what to do.
    """
    encoding = text_encoding(content)
    # Every second byte of most UTF-16 is zero, which UTF-8 would accept.
    if encoding == "utf-8" and content.count(0) > len(content) // 4:
        raise ValueError("not UTF-8 text (perhaps UTF-16 without a byte order mark); save the file as UTF-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        position = error.start + len(content) - len(error.object)  # the decoder may have removed the mark
        name = encoding.upper().removesuffix("-SIG")
        raise ValueError(
            f"not {name} text (byte 0x{content[position]:02x} at position {position}); save the file as UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def text_encoding(content: bytes) -> str:
    """The encoding that a text's byte order mark names, as Python calls it; UTF-8 if there is no mark."""
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return encoding
    return "utf-8"


def parse_json(text: str) -> Any:
    """The value of a JSON text. Halves of surrogate pairs in it, which UTF-8 cannot encode, become escapes.

    Raises:
        ValueError: not JSON, nested too deep, or with a number that is not finite.
    """
    try:
        value = json.loads(text, parse_float=_finite_float, parse_constant=_finite_float)
        # `text` itself has no such halves: only escapes can make them.
        return _escape_surrogates(value) if "\\u" in text else value
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def printable_name(path: Path) -> str:
    """The name of a file or folder, with escapes for bytes that are not UTF-8 and for control characters."""
    name = path.name
    if SURROGATE.search(name):  # Python's stand-in for a byte that is not UTF-8
        name = os.fsencode(name).decode("utf-8", "backslashreplace")
    escapes: dict[int, str] = {}
    for character in name:
        if unicodedata.category(character) == "Cc":
            escapes[ord(character)] = character.encode("unicode_escape").decode("ascii")
    return name.translate(escapes)


def _escape_surrogates(value: Any) -> Any:
    """The same JSON value, with escapes instead of halves of surrogate pairs."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode("utf-8") if SURROGATE.search(value) else value
        case list():
            return [_escape_surrogates(item) for item in value]
        case dict():
            return {_escape_surrogates(name): _escape_surrogates(item) for name, item in value.items()}
    return value


def printable(value: Any, depth: int = MAX_DEPTH) -> Any:
    """A JSON value whose texts can be shown.

    Control characters and halves of surrogate pairs become U+FFFD; texts are cut at `MAX_STRING_LENGTH` characters.

    Args:
        depth: how many lists and objects may still be inside each other.

    Raises:
        ValueError: nested too deep.
    """
    if isinstance(value, str):
        text = UNPRINTABLE.sub("\ufffd", value)
        return text if len(text) <= MAX_STRING_LENGTH else f"{text[: MAX_STRING_LENGTH - 1]}…"
    if not isinstance(value, list | dict):
        return value
    if depth == 0:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH}")
    if isinstance(value, list):
        return [printable(item, depth - 1) for item in value]
    return {printable(name): printable(item, depth - 1) for name, item in value.items()}


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def _sync(path: Path) -> None:
    """Make sure that a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def names_in(folder: Path) -> list[str]:
    """The names in a folder, sorted, without `IGNORED_NAMES`; none if there is no such folder.

    Raises:
        OSError: it is not a folder, or cannot be read.
    """
    if not folder.exists():
        return []
    return sorted(path.name for path in folder.iterdir() if path.name not in IGNORED_NAMES)


class FolderReader:
    """Finds the files of a folder, and knows whether one of them was replaced after it was found."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._found: dict[str, _FileVersion] = {}  # as each file was when it was found first

    def path(self, name: str) -> Path:
        """Where the file of this name is now; its place in the folder if there is none."""
        version = _locate(self.folder, name)
        self._found.setdefault(name, version)
        return version.path

    def changed(self) -> bool:
        """Whether a file that was found has been moved or replaced."""
        return any(_locate(self.folder, name) != version for name, version in self._found.items())


@dataclass(frozen=True)
class _FileVersion:
    """A file's path, and what changes when it is replaced: device, inode, time and size; None if it is missing."""

    path: Path
    status: tuple[int, int, int, int] | None


def _locate(folder: Path, name: str) -> _FileVersion:
    """The file of this name now.

    It is looked for in `whole` first, so that a file that is moved from there to the folder meanwhile is found.
    """
    place = folder / name
    for path in (folder / STAGE / "whole" / name, place):
        try:
            status = path.stat()
        except OSError:  # reported when the file is read
            continue
        return _FileVersion(path, (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size))
    return _FileVersion(place, None)


def read_whole(folder: Path, read: Callable[[FolderReader], Value]) -> Value:
    """The result of `read`, all of whose files were written together.

    Args:
        read: reads files at the paths that the `FolderReader` returns; called again if one was replaced meanwhile.

    Raises:
        OSError: they are replaced faster than they can be read.
    """
    for _ in range(READ_ATTEMPTS):
        reader = FolderReader(folder)
        try:
            value = read(reader)
        except (OSError, ValueError, SoliloquyError):
            if not reader.changed():
                raise
            continue
        if not reader.changed():
            return value
    raise OSError(errno.EAGAIN, "its files are replaced faster than they can be read", str(folder))


class FolderWriter:
    """Replaces files of a folder. One process at a time can have a writer of a folder, until it calls `close`.

    The folder is created if it is missing. A symbolic link stands for the folder that it leads to.

    Raises:
        BlockingIOError: another process is writing there.
        OSError: the folder cannot be created, or written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.realpath(folder))
        self._stage = self.folder / STAGE
        self._new = self._stage / "new"
        self._whole = self._stage / "whole"
        self._stage.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self._stage / "lock", timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            message = "another process is writing there; wait for its end, or use another folder"
            raise BlockingIOError(errno.EAGAIN, message, str(folder)) from None
        try:
            self._move_into_place()
        except BaseException:  # a stop by the keyboard, too, must not leave the lock taken; it is raised again
            self.close()
            raise

    def close(self) -> None:
        """Let another process write here."""
        self._lock.release()

    @contextmanager
    def replacing(self) -> Iterator[Path]:
        """Yield an empty folder to fill; when the block ends, its files replace those of the same names.

        An exception in the block leaves the old files, and so does a full disk.
        """
        shutil.rmtree(self._new, ignore_errors=True)
        self._new.mkdir()
        try:
            yield self._new
            for path in _files(self._new):
                self._check_place(path.relative_to(self._new))
            for path in (*self._new.rglob("*"), self._new):
                _sync(path)
            self._new.rename(self._whole)
            _sync(self._stage)
            _sync(self.folder)
        finally:
            shutil.rmtree(self._new, ignore_errors=True)
        self._move_into_place()

    def _check_place(self, name: Path) -> None:
        """Refuse a file that could not be moved into place after the commit."""
        place = self.folder / name
        if place.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(place))
        for parent in name.parents:
            if os.path.lexists(self.folder / parent) and not (self.folder / parent).is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self.folder / parent))

    def _move_into_place(self) -> None:
        """Move the files in `whole` to their places, including those of a writer that was killed before it did."""
        if not self._whole.is_dir():
            return
        changed = {self.folder}
        for path in _files(self._whole):
            place = self.folder / path.relative_to(self._whole)
            place.parent.mkdir(parents=True, exist_ok=True)
            _move(path, place)
            changed.add(place.parent)
        for folder in changed:
            _sync(folder)
        shutil.rmtree(self._whole)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def _move(path: Path, place: Path) -> None:
    """Replace the file at `place` by the one at `path`; by a copy if a sub-folder is on another disk."""
    try:
        path.replace(place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with replacing_file(place) as new:
            shutil.copyfile(path, new)
        path.unlink()


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Replace files of a folder once: see `FolderWriter` and its `replacing`."""
    writer = FolderWriter(folder)
    try:
        with writer.replacing() as new:
            yield new
    finally:
        writer.close()


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; when the block ends, the file there replaces the one at `path`, synced."""
    new = path.with_name(f"{STAGE}-{path.name}")
    try:
        yield new
        _sync(new)
        new.replace(path)
        _sync(path.parent)
    finally:
        new.unlink(missing_ok=True)
