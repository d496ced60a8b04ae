"""Files that anyone may have written, read with care; folders and files that are replaced whole or not at all.

Knows nothing of what is in them.
"""

import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MOST_JSON = 1 << 26  # bytes
MAX_DEPTH = 16
MAX_TEXT = 10_000  # characters
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
        ValueError: not UTF-8, or see `parse_json`.
    """
    return parse_json(read_bounded(path, MOST_JSON).decode("utf-8"))


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: not JSON, nested too deep, or with a number that is not finite.
    """
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def printable(value: Any, depth: int = MAX_DEPTH) -> Any:
    """A JSON value whose texts can be shown: control characters and halves of surrogate pairs become U+FFFD, and
    what is over `MAX_TEXT` characters is cut.

    Raises:
        ValueError: nested too deep.
    """
    if isinstance(value, str):
        text = UNPRINTABLE.sub("\ufffd", value)
        return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"
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
