"""Files that anyone may have written, read with care; folders and files that are replaced whole or not at all.

Knows nothing of what is in them.
"""

import codecs
import json
import math
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MOST_JSON = 1 << 26  # bytes
BYTE_ORDER_MARKS = {  # that Windows' own programs begin a text with; UTF-32's begins with UTF-16's
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
SURROGATE = re.compile("[\ud800-\udfff]")
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


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        OSError: see `check_file`.
        ValueError: see `decode_text` and `parse_json`.
    """
    check_file(path, MOST_JSON)
    return parse_json(read_text(path))


def read_text(path: Path) -> str:
    """The text in a file, its line ends as `\n`.

    Raises:
        OSError: it cannot be read.
        ValueError: see `decode_text`.
    """
    return decode_text(path.read_bytes())


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


def _beside(folder: Path, kind: str) -> Path:
    return folder.with_name(f".{folder.name}.{kind}")


def recover(folder: Path) -> Path:
    """Give `folder` back its old content if a kill fell between the two renames of `replacing`; return it."""
    old = _beside(folder, "old")
    if old.is_dir() and not folder.exists():
        old.rename(folder)
    return folder


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; when the block ends it takes the place of `folder`.

    A kill at any moment leaves the old folder or the new one, whole: everything is on the disk before the
    first rename, and `recover` undoes a swap that was cut in half. An exception leaves the old one.
    """
    folder = recover(folder.absolute())
    folder.parent.mkdir(parents=True, exist_ok=True)
    new, old = _beside(folder, "new"), _beside(folder, "old")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        yield new
        for path in (*new.rglob("*"), new):
            _sync(path)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        _sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; when the block ends, what is there takes the place of `path`, on the disk."""
    new = _beside(path, "new")
    try:
        yield new
        _sync(new)
        new.replace(path)
        _sync(path.parent)
    finally:
        new.unlink(missing_ok=True)
