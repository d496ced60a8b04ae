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
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError
from tqdm import tqdm

from model.atomic_files import check_file, decode_text, printable_name
from model.cli import SettingsPath, run, settings_config
from model.errors import DataError, InputError
from model.flags import ProgramSettings
from training.dataset import FILES, MAX_DATASET_BYTES, Dataset, check_replaceable, from_text

SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
SHAKESPEARE_NAME = "Tiny Shakespeare"
MAX_NAME_LENGTH = 80  # characters
CONTROLS = [chr(point) for point in (*range(0x20), *range(0x7F, 0xA0)) if chr(point) not in "\t\n\v\f\r\x85"]
MANY_CONTROLS = 0.05  # of a text's characters; what has more of them is something else
RARE = 10  # occurrences below which a character is hardly learned
LITTLE = 100_000  # characters below which a text teaches little more than spelling
MAX_LISTED_CHARACTERS = 20  # characters named at most in one line of the report


def check_name(name: str) -> str:
    """A name that can be shown.

    Raises:
        PydanticCustomError: it is empty, long, or has characters that cannot be seen.
    """
    if not name.strip() or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise PydanticCustomError(
            "name", "Input should be 1 to {most} printable characters", {"most": MAX_NAME_LENGTH}
        )
    return name.strip()


class PrepareSettings(ProgramSettings):
    """Turn UTF-8 text into a data set: first 90 % to train, last 10 % to validate."""

    model_config = settings_config("training.prepare", "SOLILOQUY_PREPARE_")

    input_file: SettingsPath | None = None
    """Text to learn from, or a folder of .txt files; if not given, tiny Shakespeare is downloaded"""
    out_dir: SettingsPath = Path("data/shakespeare-char")
    """Folder to write: a new one, or one that this command wrote before"""
    name: Annotated[str, AfterValidator(check_name)] | None = None
    """What the text is called where the model is shown; the name of its file if not given"""
    drop_rarer_than: int = Field(1, ge=1)
    """Leave out characters that occur fewer times than this"""
    url: str = SHAKESPEARE_URL
    """Where tiny Shakespeare is; its SHA-256 is checked"""


def prepare(settings: PrepareSettings) -> None:
    """Read or download, check, split, encode, write; print what was found."""
    check_replaceable(settings.out_dir)
    origin = settings.input_file or settings.url
    if settings.input_file is None:
        files = {settings.url: download(settings.url)}
    else:
        check_input(settings.input_file, settings.out_dir)
        files = read(settings.input_file)
    texts = [decode(content, file) for file, content in files.items() if content]
    if not any(texts):
        raise DataError(f"{origin}: is empty; there is nothing to learn from")
    text = join(texts)
    counts = Counter(text)
    rare = [character for character, count in counts.items() if count < settings.drop_rarer_than]
    text = text.translate(dict.fromkeys(map(ord, rare)))
    content = b"".join(files.values())
    source = {
        "name": settings.name or default_name(settings.input_file),
        "characters": len(text),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    try:
        dataset = from_text(text, source)
    except DataError as error:
        raise DataError(f"{origin}: {error}") from error
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


def check_input(path: Path, out_dir: Path) -> None:
    """Refuse to read what is going to be replaced.

    Raises:
        InputError: the input is one of the files that are written.
    """
    for name in FILES:
        place = out_dir / name
        if place.exists() and path.exists() and place.samefile(path):
            raise InputError("input_file", f"{path} is a file that would be replaced; use another --out_dir")


def default_name(path: Path | None) -> str:
    """What a text is called when nobody says: the name of its file, as far as it can be shown."""
    if path is None:
        return SHAKESPEARE_NAME
    name = printable_name(path if path.is_dir() else path.with_suffix(""))
    shown = "".join(character if character.isprintable() else " " for character in name)
    return shown.strip()[:MAX_NAME_LENGTH].strip() or "a text"


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
    if controls := Counter(
        {character: count for character, count in (train + val).items() if character in CONTROLS}
    ):
        lines.append(f"control characters, which are no text: {listed(controls)}")
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
    shown = [f"{name} ({counts[c]:,})" for name, c in zip(names, order, strict=True)][:MAX_LISTED_CHARACTERS]
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
    """The text of a file; a byte order mark is dropped and Windows line ends become plain ones.

    Raises:
        DataError: not UTF-8, nor what a byte order mark tells of; names the first bad byte or character.
    """
    try:
        text = decode_text(content)
    except ValueError as error:
        raise DataError(f"{name}: {error}") from error
    check_text(text, name)
    return text


def check_text(text: str, name: str) -> None:
    """Refuse what can be decoded, but is no text.

    Raises:
        DataError: it has NULs, as UTF-16 has when it is read as UTF-8, or many other control characters.
    """
    nulls = text.count("\0")
    controls = sum(text.count(character) for character in CONTROLS)
    if controls > MANY_CONTROLS * len(text):
        raise DataError(
            f"{name}: {controls:,} of its {len(text):,} characters are control characters, NUL {nulls:,} times; it "
            "is no text, or UTF-16 or UTF-32 without a byte order mark: save the file as UTF-8"
        )
    if nulls:
        raise DataError(
            f"{name}: has NUL characters, {nulls:,}, the first at position {text.index(chr(0)):,}; remove them"
        )


def read(path: Path) -> dict[str, bytes]:
    """The content of a file, or of each .txt file in a folder and the folders in it, in the order of their paths.

    Raises:
        DataError: cannot be read, or a folder without such files.
    """
    paths = [path]
    try:
        if path.is_dir():
            paths = sorted(file for file in path.rglob("*.txt") if not file.is_dir())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if not paths:
        raise DataError(f"{path}: this folder has no .txt files")
    contents = {}
    for file in paths:
        try:
            if file != path:  # who names a pipe means it; one in a folder would be waited for
                check_file(file, MAX_DATASET_BYTES)
            contents[str(file)] = file.read_bytes()
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror or error})") from error
    return contents


if __name__ == "__main__":
    sys.exit(run(PrepareSettings, prepare, sys.argv[1:]))
