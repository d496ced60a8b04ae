"""Write a text again and compare: `python -m model.verify receipt.json`.

The file holds a receipt, or a whole JSON answer of the server with the receipt in it; with the texts at hand, the
first character that differs is found too.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import CliPositionalArg

from model.atomic_files import parse_json, read_text
from model.checkpoint import read_checkpoint
from model.cli import SettingsPath, run, settings_config
from model.device import numerics_named
from model.errors import InputError
from model.flags import ProgramSettings
from model.generation.generator import Generator, load_generator
from model.generation.receipt import FORMER, Digest, Receipt
from model.generation.sequence import TextSequence

MAX_ANSWER = 1 << 28  # bytes; with all alternatives of all characters, an answer has some 100 MB


class VerifySettings(ProgramSettings):
    """Write a receipt's text again; say `identical`, or where it differs (and exit with 1)."""

    model_config = settings_config("model.verify", "SOLILOQUY_VERIFY_")

    receipt: CliPositionalArg[SettingsPath]
    """File with a receipt, or with a JSON answer that has one"""
    checkpoint: SettingsPath = Path("checkpoints/shakespeare-char")
    """Checkpoint folder"""


def verify(settings: VerifySettings) -> None:
    """Compare sample by sample."""
    receipt = read_receipt(settings.receipt)
    checkpoint = read_checkpoint(settings.checkpoint)
    if receipt.checkpoint == checkpoint.former_identity:
        here = f"this checkpoint, {checkpoint.identity[:12]}, by {FORMER}, {receipt.checkpoint[:12]}"
        raise InputError("checkpoint", f"the receipt is of {here}; have the text written again for a new receipt")
    if checkpoint.identity != receipt.checkpoint:
        here = f"{settings.checkpoint} holds {checkpoint.identity[:12]}"
        raise InputError("checkpoint", f"the receipt is of {receipt.checkpoint[:12]}, but {here}")
    generator = load_generator(checkpoint, numerics_named(receipt.numerics), slots=1)
    streams = receipt.sequences(checkpoint.vocabulary)
    if [digest.index for digest in receipt.samples] != [stream.sample for stream in streams]:
        raise InputError("samples", f"the receipt does not list samples 0 to {len(streams) - 1}")
    differing = [compare(generator, *pair) for pair in zip(streams, receipt.samples, strict=True)]
    if any(differing):
        sys.exit(1)
    print("identical")


def compare(generator: Generator, stream: TextSequence, digest: Digest) -> bool:
    """Whether the text is another; if so, say where."""
    text = "".join(piece.text for piece in generator.write(stream))
    if hashlib.sha256(text.encode()).hexdigest() == digest.sha256 and digest.text in (None, text):
        return False
    there, name = digest.text, f"sample {stream.sample}"
    if there is None:
        print(f"{name}: another text, of {len(text)} characters (the receipt has only its SHA-256)")
    elif there == text:
        print(f"{name}: the same text, but the receipt has the SHA-256 of another")
    else:
        pairs = enumerate(zip(there, text, strict=False))
        place = next((i for i, (a, b) in pairs if a != b), min(len(there), len(text)))
        here = f"{there[place : place + 20]!r} there, {text[place : place + 20]!r} here"
        print(f"{name}: differs from character {place} on: {here}")
    return True


def read_receipt(path: Path) -> Receipt:
    """A receipt, with the texts of the answer around it if there is one.

    Raises:
        InputError: the file cannot be read, or holds no receipt.
    """
    try:
        content: Any = parse_json(read_text(path, MAX_ANSWER))
        answer = content if isinstance(content, dict) and "receipt" in content else {"receipt": content}
        receipt = Receipt.model_validate(answer["receipt"])
        answered = [Digest.model_validate(one) for one in answer.get("samples", [])]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "receipt"
        raise InputError("receipt", f"{path} holds no receipt ({where}: {first['msg']})") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError("receipt", f"{path} cannot be read ({error})") from error
    texts = {digest.index: digest.text for digest in answered}
    samples = [digest.model_copy(update={"text": texts.get(digest.index)}) for digest in receipt.samples]
    return receipt.model_copy(update={"samples": samples})


if __name__ == "__main__":
    sys.exit(run(VerifySettings, verify, sys.argv[1:]))
