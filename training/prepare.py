"""Turn a text file into a data set: `python -m training.prepare [--input_file=FILE] --out_dir=data/NAME`.

Without a file it downloads the tiny Shakespeare set and checks that its bytes are the ones everyone trains on.
"""

import hashlib
import sys
import urllib.request
from pathlib import Path

from pydantic_settings import BaseSettings
from tqdm import tqdm

from model.cli import run, settings_config
from model.errors import DataError
from training.dataset import from_text

SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


class PrepareSettings(BaseSettings):
    """Turn a UTF-8 text file into a data set: first 90 % to train, last 10 % to validate."""

    model_config = settings_config("training.prepare", "SOLILOQUY_PREPARE_")

    input_file: Path | None = None
    """Text to learn from; if not given, tiny Shakespeare is downloaded"""
    out_dir: Path = Path("data/shakespeare-char")
    """Folder to write"""
    url: str = SHAKESPEARE_URL
    """Where tiny Shakespeare is; its SHA-256 is checked"""


def prepare(settings: PrepareSettings) -> None:
    """Read or download, check, split, encode, write; print what was found."""
    if settings.input_file is None:
        name, content = "tinyshakespeare", download(settings.url)
    else:
        name, content = settings.input_file.stem, _read(settings.input_file)
    text = decode(content, str(settings.input_file or settings.url))
    source = {
        "name": name,
        "characters": len(text),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    dataset = from_text(text, source)
    dataset.save(settings.out_dir)
    print(f"length of dataset in characters: {len(text):,}")
    print(f"all the unique characters: {''.join(dataset.vocabulary.characters)!r}")
    print(f"vocab size: {len(dataset.vocabulary):,}")
    print(f"train has {len(dataset.train):,} tokens, val has {len(dataset.val):,} tokens")
    print(f"wrote {settings.out_dir}")


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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


if __name__ == "__main__":
    sys.exit(run(PrepareSettings, prepare, sys.argv[1:]))
