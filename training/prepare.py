"""Turn text into a data set: `python -m training.prepare [--input_file=FILE_OR_FOLDER] --out_dir=data/NAME`.

Without a file it downloads the tiny Shakespeare text and checks its SHA-256.
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
from model.vocabulary import Vocabulary
from training.dataset import FILES, MAX_DATASET_BYTES, Dataset, Ids, check_replaceable, from_text

SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
SHAKESPEARE_NAME = "Tiny Shakespeare"
MAX_DATASET_NAME_LENGTH = 80  # characters
WHITE_SPACE_CONTROLS = "\t\n\v\f\r\x85"
CONTROLS = set(map(chr, (*range(0x20), *range(0x7F, 0xA0)))) - set(WHITE_SPACE_CONTROLS)
MAX_CONTROL_SHARE = 0.05  # of a text's characters; what has more is something else
MIN_OCCURRENCES = 10  # below which a character is hardly learned
MIN_ADVISED_CHARACTERS = 100_000  # below which a text teaches little more than spelling
MAX_LISTED_CHARACTERS = 20  # in one line of the report


def check_name(name: str) -> str:
    """The name, without white space around it.

    Raises:
        PydanticCustomError: it is empty, long, or has characters that cannot be seen.
    """
    if not name.strip() or len(name) > MAX_DATASET_NAME_LENGTH or not name.isprintable():
        raise PydanticCustomError(
            "name", "Input should be 1 to {most} printable characters", {"most": MAX_DATASET_NAME_LENGTH}
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
    """Read or download, check, split, encode and write a text; print what it holds."""
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
    file_count = f" ({len(files):,} files)" if len(files) > 1 else ""
    print(f"length of dataset in characters: {len(text):,}{file_count}")
    if rare:
        print(f"left out: {describe_counts(Counter({character: counts[character] for character in rare}))}")
    print(f"all the unique characters: {''.join(dataset.vocabulary.characters)!r}")
    print(f"vocab size: {len(dataset.vocabulary):,}")
    print(f"train has {len(dataset.train):,} tokens, val has {len(dataset.val):,} tokens")
    for line in advise(dataset):
        print(line)
    print(f"wrote {settings.out_dir}")


def check_input(path: Path, out_dir: Path) -> None:
    """Refuse an input that the command would replace.

    Raises:
        InputError: it is one of the files that are written.
    """
    for name in FILES:
        written = out_dir / name
        if written.exists() and path.exists() and written.samefile(path):
            raise InputError("input_file", f"{path} is a file that would be replaced; use another --out_dir")


def default_name(path: Path | None) -> str:
    """What a text is called by default: the name of its file, its unprintable characters as spaces."""
    if path is None:
        return SHAKESPEARE_NAME
    name = printable_name(path if path.is_dir() else path.with_suffix(""))
    shown = "".join(character if character.isprintable() else " " for character in name)
    return shown.strip()[:MAX_DATASET_NAME_LENGTH].strip() or "a text"


def advise(dataset: Dataset) -> list[str]:
    """Warnings about characters that a model will hardly learn, and about a short text, one line each."""
    train = count_characters(dataset.train, dataset.vocabulary)
    val = count_characters(dataset.val, dataset.vocabulary)
    controls: Counter[str] = Counter()
    rare: Counter[str] = Counter()
    unseen: Counter[str] = Counter()
    for character, count in (train + val).items():
        if character in CONTROLS:
            controls[character] = count
        if count < MIN_OCCURRENCES:
            rare[character] = count
        if not train[character]:
            unseen[character] = count
    lines: list[str] = []
    if controls:
        lines.append(f"control characters, which are no text: {describe_counts(controls)}")
    if rare:
        lines.append(f"rare: {describe_counts(rare)}; --drop_rarer_than={MIN_OCCURRENCES} leaves them out")
    if unseen:
        lines.append(f"in the validation part only, so never learned: {describe_counts(unseen)}")
    if train.total() + val.total() < MIN_ADVISED_CHARACTERS:
        short = f"a text of fewer than {MIN_ADVISED_CHARACTERS:,} characters"
        lines.append(f"{short} teaches spelling and short words, hardly more")
    return lines


def count_characters(ids: Ids, vocabulary: Vocabulary) -> Counter[str]:
    """How often each character of the vocabulary occurs."""
    counts = np.bincount(ids, minlength=len(vocabulary)).tolist()
    return Counter(dict(zip(vocabulary.characters, counts, strict=True)))


def describe_counts(counts: Counter[str]) -> str:
    """Characters with their counts, rarest first; invisible ones by their Unicode names."""
    shown: list[str] = []
    for character in sorted(counts, key=lambda character: (counts[character], character))[:MAX_LISTED_CHARACTERS]:
        name = character
        if not character.isprintable() or character.isspace():
            name = unicodedata.name(character, f"U+{ord(character):04X}")
        shown.append(f"{name} ({counts[character]:,})")
    more = len(counts) - len(shown)
    rest = f", and {more:,} more" if more else ""
    return f"{len(counts):,} characters: {', '.join(shown)}{rest}"


def join(texts: Iterable[str]) -> str:
    """One text made of several, each of which begins on a new line."""
    *others, last = texts
    return "".join(text if text.endswith("\n") else text + "\n" for text in others) + last


def download(url: str) -> bytes:
    """Fetch tiny Shakespeare with a progress bar.

    Raises:
        DataError: it cannot be fetched, or its bytes are not the expected ones.
    """
    chunks: list[bytes] = []
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
    """The text of a file, without a byte order mark, its line ends as line feeds.

    Raises:
        DataError: not UTF-8, nor the encoding that a byte order mark names; names the first bad byte or character.
    """
    try:
        text = decode_text(content)
    except ValueError as error:
        raise DataError(f"{name}: {error}") from error
    check_text(text, name)
    return text


def check_text(text: str, name: str) -> None:
    """Refuse content that can be decoded, but is no text.

    Raises:
        DataError: it has NULs, as UTF-16 has when it is read as UTF-8, or many other control characters.
    """
    nulls = text.count("\0")
    controls = sum(text.count(character) for character in CONTROLS)
    if controls > MAX_CONTROL_SHARE * len(text):
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
        DataError: it cannot be read, or is a folder without such files.
    """
    paths = [path]
    try:
        if path.is_dir():
            paths = sorted(file for file in path.rglob("*.txt") if not file.is_dir())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if not paths:
        raise DataError(f"{path}: this folder has no .txt files")
    contents: dict[str, bytes] = {}
    for file in paths:
        try:
            if file != path:  # a pipe may be named as the input; one in a folder would block
                check_file(file, MAX_DATASET_BYTES)
            contents[str(file)] = file.read_bytes()
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror or error})") from error
    return contents


if __name__ == "__main__":
    sys.exit(run(PrepareSettings, prepare, sys.argv[1:]))
