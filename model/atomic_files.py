"""Files that anyone may have written, read with care; files of a folder, replaced all together or not at all.

Knows nothing of what is in them.

A folder is never renamed, for it may be a mount point, and no file in it is touched but those that are replaced.
All else happens in one hidden sub-folder:

.soliloquy/lock     held by the process that writes
.soliloquy/new/     files that are being written; of no account until they are whole and on the disk
.soliloquy/whole/   files that are: `new` by another name. From this one rename on they count, wherever the folder
                    has others of their names; then they are moved to their places one by one

So who reads looks for a file in `whole` first (`FolderReader.path`), and a kill between any two steps leaves either
all of the old files or all of the new ones. The next who writes first ends the moving that a kill cut short
(`FolderWriter`). Who reads needs no right to write: if files were replaced meanwhile, they are read again
(`read_whole`).
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
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from model.errors import SoliloquyError

Value = TypeVar("Value")

STAGE = ".soliloquy"
NOBODYS = {STAGE, "lost+found", ".DS_Store", ".gitkeep"}  # what an empty folder may hold
READ_ATTEMPTS = 20  # before a folder that is replaced over and over is given up
MAX_JSON_BYTES = 1 << 26  # bytes
MAX_TEXT_BYTES = 1 << 32
BYTE_ORDER_MARKS = {  # that Windows' own programs begin a text with; UTF-32's begins with UTF-16's
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
SURROGATE = re.compile("[\ud800-\udfff]")
MAX_DEPTH = 16
MAX_STRING_LENGTH = 10_000  # characters
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
NO_SUCH_TYPE = (AttributeError, TypeError)  # of NumPy, where a safetensors file has a type that it lacks


def check_file(path: Path, most: int) -> None:
    """Refuse what would be read for ever, or into more memory than there is.

    Raises:
        OSError: there is nothing, or no file (a folder, a pipe, a device), or one of more than `most` bytes.
    """
    size = path.stat().st_size
    if not path.is_file():
        raise OSError("it is not a file")
    if size > most:
        raise OSError(f"its {size:,} bytes are more than {most:,}")


def read_bounded(path: Path, most: int) -> bytes:
    """The content of a file; no more than `most` bytes are read, whatever the file claims to have.

    Raises:
        OSError: see `check_file`.
    """
    check_file(path, most)
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(f"it has more than {most:,} bytes")
    return content


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        OSError: see `check_file`.
        ValueError: see `decode_text` and `parse_json`.
    """
    return parse_json(read_text(path, MAX_JSON_BYTES))


def read_text(path: Path, most: int = MAX_TEXT_BYTES) -> str:
    """The text in a file, its line ends as `\n`.

    Raises:
        OSError: see `check_file`.
        ValueError: see `decode_text`.
    """
    return decode_text(read_bounded(path, most))


def decode_text(content: bytes) -> str:
    """The text of a file's bytes, its line ends as `\n`: UTF-8, or UTF-16 or 32 with a byte order mark before it.

    Raises:
        ValueError: it is none of them; names the first byte that is at fault, and the remedy.
    """
    encoding = text_encoding(content)
    if encoding == "utf-8" and content.count(0) > len(content) // 4:
        raise ValueError("not UTF-8 text (perhaps UTF-16 without a byte order mark); save the file as UTF-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        place = error.start + len(content) - len(error.object)  # the mark may be left out of what was decoded
        name = encoding.upper().removesuffix("-SIG")
        raise ValueError(
            f"not {name} text (byte 0x{content[place]:02x} at position {place}); save the file as UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def text_encoding(content: bytes) -> str:
    """The encoding that a text's first bytes tell of, as Python calls it; UTF-8 where they tell of none."""
    return next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")


def parse_json(text: str) -> Any:
    """The value of a JSON text; halves of surrogate pairs in it, which no answer could carry, come out escaped.

    Raises:
        ValueError: not JSON, nested too deep, or with a number that is not finite.
    """
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_finite)
        return _well_formed(value) if "\\u" in text else value
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def printable_name(path: Path) -> str:
    """The name of a file or folder as a text that can be shown and sent: bytes that are no text, and control
    characters, as escapes.
    """
    name = path.name
    if not _is_well_formed(name):
        name = os.fsencode(name).decode("utf-8", "backslashreplace")
    controls = {character for character in name if unicodedata.category(character) == "Cc"}
    return name.translate({ord(one): one.encode("unicode_escape").decode("ascii") for one in controls})


def _well_formed(value: Any) -> Any:
    """The same JSON value, with escapes in the place of halves of surrogate pairs."""
    match value:
        case str():
            return value if _is_well_formed(value) else value.encode("utf-8", "backslashreplace").decode("utf-8")
        case list():
            return [_well_formed(one) for one in value]
        case dict():
            return {_well_formed(name): _well_formed(one) for name, one in value.items()}
    return value


def _is_well_formed(text: str) -> bool:
    """True if every character can be written."""
    return SURROGATE.search(text) is None


def printable(value: Any, depth: int = MAX_DEPTH) -> Any:
    """A JSON value whose texts can be shown: control characters and halves of surrogate pairs become U+FFFD, and
    what is over `MAX_STRING_LENGTH` characters is cut.

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
        return [printable(one, depth - 1) for one in value]
    return {printable(name): printable(one, depth - 1) for name, one in value.items()}


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def _sync(path: Path) -> None:
    """Make sure that a file or a folder's list of names is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def names_in(folder: Path) -> list[str]:
    """The names in a folder, sorted, without what an empty one may hold; none if there is no such folder.

    Raises:
        OSError: it is not a folder, or cannot be read.
    """
    if not folder.exists():
        return []
    return sorted(path.name for path in folder.iterdir() if path.name not in NOBODYS)


class FolderReader:
    """Where the files of a folder are, and whether any has been replaced since it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._found: dict[str, tuple[object, ...]] = {}

    def path(self, name: str) -> Path:
        """Where the file of this name is now; its plain place if there is none."""
        path, status = _locate(self.folder, name)
        self._found.setdefault(name, _version(path, status))  # the first: it must be the same from then on
        return path

    def changed(self) -> bool:
        """Whether a file that was asked for has been moved or replaced."""
        return any(_version(*_locate(self.folder, name)) != found for name, found in self._found.items())


def _locate(folder: Path, name: str) -> tuple[Path, os.stat_result | None]:
    """In this order, so that a file on its way from the one place to the other is found."""
    plain = folder / name
    for path in (folder / STAGE / "whole" / name, plain):
        try:
            return path, path.stat()
        except OSError:  # said better by who reads it
            continue
    return plain, None


def _version(path: Path, status: os.stat_result | None) -> tuple[object, ...]:
    if status is None:
        return (path,)
    return path, status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def read_whole(folder: Path, read: Callable[[FolderReader], Value]) -> Value:
    """What `read` makes of a folder's files, all of them of one writing.

    Args:
        read: asks for the place of each file that it reads; is called again if one was replaced meanwhile.

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
    """The one process that may replace files of a folder, which is made if there is none, until `close`.

    A link stands for the folder that it leads to.

    Raises:
        BlockingIOError: another process has it.
        OSError: it cannot be made, or written to.
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
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process write here."""
        self._lock.release()

    @contextmanager
    def replacing(self) -> Iterator[Path]:
        """Yield an empty folder to fill; when the block ends, its files take the place of those of their names.

        An exception in the block leaves the old ones, and so does a disk that is full.
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
        """Refuse what could not be moved there later."""
        place = self.folder / name
        if place.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(place))
        for parent in name.parents:
            if os.path.lexists(self.folder / parent) and not (self.folder / parent).is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self.folder / parent))

    def _move_into_place(self) -> None:
        """Move what is whole to where it belongs; also what was left when a kill cut that short."""
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
    """Replace the file at `place` by the one at `path`, by a copy where a sub-folder is on another disk."""
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
    """Yield a path to write to; when the block ends, what is there takes the place of `path`, on the disk."""
    new = path.with_name(f"{STAGE}-{path.name}")
    try:
        yield new
        _sync(new)
        new.replace(path)
        _sync(path.parent)
    finally:
        new.unlink(missing_ok=True)
