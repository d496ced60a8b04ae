"""Turn text into a data set: `python -m training.prepare [--input_file=FILE_OR_FOLDER] --out_dir=data/NAME`.

Without a file it downloads the tiny Shakespeare set and checks that its bytes are the ones everyone trains on.
"""

import hashlib
import sys
import unicodedata
import urllib.request
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pydantic import Field
from tqdm import tqdm

from model.cli import run, settings_config
from model.errors import DataError
from model.flags import ProgramSettings
from training.dataset import Dataset, from_text

SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
RARE = 10  # occurrences below which a character is hardly learned
LITTLE = 100_000  # characters below which a text teaches little more than spelling
LISTED = 20  # characters named at most in one line of the report


class PrepareSettings(ProgramSettings):
    """Turn UTF-8 text into a data set: first 90 % to train, last 10 % to validate."""

    model_config = settings_config("training.prepare", "SOLILOQUY_PREPARE_")

    input_file: Path | None = None
    """Text to learn from, or a folder of .txt files; if not given, tiny Shakespeare is downloaded"""
    out_dir: Path = Path("data/shakespeare-char")
    """Folder to write"""
    drop_rarer_than: int = Field(1, ge=1)
    """Leave out characters that occur fewer times than this"""
    url: str = SHAKESPEARE_URL
    """Where tiny Shakespeare is; its SHA-256 is checked"""


def prepare(settings: PrepareSettings) -> None:
    """Read or download, check, split, encode, write; print what was found."""
    if settings.input_file is None:
        name, files = "tinyshakespeare", {settings.url: download(settings.url)}
    else:
        name, files = settings.input_file.absolute().stem, read(settings.input_file)
    text = join(decode(content, file) for file, content in files.items())
    counts = Counter(text)
    rare = [character for character, count in counts.items() if count < settings.drop_rarer_than]
    text = text.translate(dict.fromkeys(map(ord, rare)))
    content = b"".join(files.values())
    source = {
        "name": name,
        "characters": len(text),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    dataset = from_text(text, source)
    dataset.save(settings.out_dir)
    print(
        f"length of dataset in characters: {len(text):,}" + (f" ({len(files):,} files)" if len(files) > 1 else "")
    )
    if rare:
        print(f"left out: {listed(Counter({character: counts[character] for character in rare}))}")
    print(f"all the unique characters: {''.join(dataset.vocabulary.characters)!r}")
    print(f"vocab size: {len(dataset.vocabulary):,}")
    print(f"train has {len(dataset.train):,} tokens, val has {len(dataset.val):,} tokens")
    for line in advice(dataset):
        print(line)
    print(f"wrote {settings.out_dir}")


def advice(dataset: Dataset) -> list[str]:
    """What in a text a model will hardly learn, one line each."""
    characters = dataset.vocabulary.characters
    train, val = (
        Counter(dict(zip(characters, np.bincount(split, minlength=len(characters)).tolist(), strict=True)))
        for split in (dataset.train, dataset.val)
    )
    rare = Counter({character: count for character, count in (train + val).items() if count < RARE})
    unseen = Counter({character: count for character, count in val.items() if count and not train[character]})
    lines = []
    if rare:
        lines.append(f"rare: {listed(rare)}; --drop_rarer_than={RARE} leaves them out")
    if unseen:
        lines.append(f"in the validation part only, so never learned: {listed(unseen)}")
    if train.total() + val.total() < LITTLE:
        lines.append(f"a text of fewer than {LITTLE:,} characters teaches spelling and short words, hardly more")
    return lines


def listed(counts: Counter[str]) -> str:
    """Characters with their counts, rarest first; those that cannot be seen by their name."""
    order = sorted(counts, key=lambda character: (counts[character], character))
    names = [c if c.isprintable() and not c.isspace() else unicodedata.name(c, f"U+{ord(c):04X}") for c in order]
    shown = [f"{name} ({counts[c]:,})" for name, c in zip(names, order, strict=True)][:LISTED]
    more = len(order) - len(shown)
    return f"{len(order):,} characters: {', '.join(shown)}" + (f", and {more:,} more" if more else "")


def join(texts: Iterable[str]) -> str:
    """One text of several, each begun on a new line."""
    *others, last = texts
    return "".join(text if text.endswith("\n") else text + "\n" for text in others) + last


def download(url: str) -> bytes:
    """Fetch tiny Shakespeare with a progress bar.

    Raises:
        DataError: it cannot be fetched, or its bytes are not the expected ones.
    """
    chunks = []
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            total = int(response.headers.get("Content-Length") or 0) or None
            with tqdm(total=total, unit="B", unit_scale=True, desc="download") as bar:
                while chunk := response.read(1 << 16):
                    chunks.append(chunk)
                    bar.update(len(chunk))
    except (OSError, ValueError) as error:
        raise DataError(f"{url}: cannot be downloaded ({error}); give a local file with --input_file") from error
    content = b"".join(chunks)
    found = hashlib.sha256(content).hexdigest()
    if found != SHAKESPEARE_SHA256:
        raise DataError(f"{url}: SHA-256 is {found}, not {SHAKESPEARE_SHA256}; the download is not the data set")
    return content


def decode(content: bytes, name: str) -> str:
    """UTF-8 to text; a byte order mark is dropped and Windows line ends become plain ones.

    Raises:
        DataError: not UTF-8; names the first bad byte.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}: not UTF-8 text (byte 0x{content[error.start]:02x} at position {error.start}); "
            "save the file as UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read(path: Path) -> dict[str, bytes]:
    """The content of a file, or of each .txt file in a folder and the folders in it, in the order of their paths.

    Raises:
        DataError: cannot be read, or a folder without such files.
    """
    try:
        paths = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
        if not paths:
            raise DataError(f"{path}: this folder has no .txt files")
        return {str(file): file.read_bytes() for file in paths}
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error


if __name__ == "__main__":
    sys.exit(run(PrepareSettings, prepare, sys.argv[1:]))
