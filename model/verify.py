"""The command that writes a receipt's text again and compares: `python -m model.verify receipt.json`.

The file holds a receipt, or a whole JSON answer of the server with the receipt in it. With the texts of the answer,
the first character that differs is found too.
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
from model.generation.receipt import FORMER_IDENTITY, Digest, Receipt
from model.generation.sequence import TextSequence

MAX_ANSWER_BYTES = 1 << 28  # bytes; with all alternatives of all characters, an answer has some 100 MB


class VerifySettings(ProgramSettings):
    """Write a receipt's text again; say `identical`, or where it differs (and exit with 1)."""

    model_config = settings_config("model.verify", "SOLILOQUY_VERIFY_")

    receipt: CliPositionalArg[SettingsPath]
    """File with a receipt, or with a JSON answer that has one"""
    checkpoint: SettingsPath = Path("checkpoints/shakespeare-char")
    """Checkpoint folder"""


def verify(settings: VerifySettings) -> None:
    """Write each sample again and compare; print `identical`, or exit with 1."""
    receipt = read_receipt(settings.receipt)
    checkpoint = read_checkpoint(settings.checkpoint)
    if receipt.checkpoint == checkpoint.former_identity:
        named = f"this checkpoint, {checkpoint.identity[:12]}, by {FORMER_IDENTITY}, {receipt.checkpoint[:12]}"
        raise InputError("checkpoint", f"the receipt is of {named}; have the text written again for a new receipt")
    if checkpoint.identity != receipt.checkpoint:
        found = f"{settings.checkpoint} holds {checkpoint.identity[:12]}"
        raise InputError("checkpoint", f"the receipt is of {receipt.checkpoint[:12]}, but {found}")
    generator = load_generator(checkpoint, numerics_named(receipt.numerics), slots=1)
    sequences = receipt.sequences(checkpoint.vocabulary)
    if [sample.index for sample in receipt.samples] != [sequence.sample for sequence in sequences]:
        raise InputError("samples", f"the receipt does not list samples 0 to {len(sequences) - 1}")
    identical = True
    for sequence, sample in zip(sequences, receipt.samples, strict=True):
        if not verify_sample(generator, sequence, sample):
            identical = False
    if not identical:
        sys.exit(1)
    print("identical")


def verify_sample(generator: Generator, sequence: TextSequence, sample: Digest) -> bool:
    """Write a sample again; return whether it is as the receipt has it. If not, print where it differs."""
    text = "".join(chunk.text for chunk in generator.write(sequence))
    expected = sample.text
    if hashlib.sha256(text.encode()).hexdigest() == sample.sha256 and expected in (None, text):
        return True
    name = f"sample {sequence.sample}"
    if expected is None:
        print(f"{name}: another text, of {len(text)} characters (the receipt has only its SHA-256)")
    elif expected == text:
        print(f"{name}: the same text, but the receipt has the SHA-256 of another")
    else:
        first = first_difference(expected, text)
        passages = (
            f"the receipt has {expected[first : first + 20]!r}, written again it is {text[first : first + 20]!r}"
        )
        print(f"{name}: differs from character {first} on: {passages}")
    return False


def first_difference(a: str, b: str) -> int:
    """The index of the first character in which two texts differ, or at which the shorter one ends."""
    for index, (one, other) in enumerate(zip(a, b, strict=False)):
        if one != other:
            return index
    return min(len(a), len(b))


def read_receipt(path: Path) -> Receipt:
    """A receipt, with the texts of the answer around it if there is one.

    Raises:
        InputError: the file cannot be read, or holds no receipt.
    """
    try:
        content: Any = parse_json(read_text(path, MAX_ANSWER_BYTES))
        answer = content if isinstance(content, dict) and "receipt" in content else {"receipt": content}
        receipt = Receipt.model_validate(answer["receipt"])
        samples_with_text = [Digest.model_validate(sample) for sample in answer.get("samples", [])]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "receipt"
        raise InputError("receipt", f"{path} holds no receipt ({where}: {first['msg']})") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError("receipt", f"{path} cannot be read ({error})") from error
    texts = {sample.index: sample.text for sample in samples_with_text}
    samples = [one.model_copy(update={"text": texts.get(one.index)}) for one in receipt.samples]
    return receipt.model_copy(update={"samples": samples})


if __name__ == "__main__":
    sys.exit(run(VerifySettings, verify, sys.argv[1:]))
