"""nanoGPT's own files besides its checkpoints: meta.pkl, and the data folders of its prepare.py.

train.bin, val.bin   ids as little-endian uint16
meta.pkl             the characters, as a pickle: `itos` (id to character), `stoi` and `vocab_size`
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import CheckpointError, DataError
from model.vocabulary import Vocabulary
from training.untrusted.reading import read_pickle_file

META_FILE = "meta.pkl"
MAX_CHARACTERS = 1 << 16  # as many as a uint16 can number
HASH_CHUNK = 1 << 20  # characters


def read_meta(path: Path) -> Vocabulary:
    """The characters in nanoGPT's meta.pkl, in id order; no code in it is run.

    Raises:
        CheckpointError: missing, malformed, not of characters, or it holds anything but plain values.
    """
    meta = read_pickle_file(path)
    if not isinstance(meta, dict) or "itos" not in meta:
        raise CheckpointError(f"{path}: not nanoGPT's meta.pkl: it has no itos, the characters by their ids")
    characters = _in_id_order(path, meta["itos"])
    for number, character in enumerate(characters):
        if not isinstance(character, str) or len(character) != 1 or "\ud800" <= character <= "\udfff":
            kind = f"{character[:20]!r}" if isinstance(character, str) else f"a {type(character).__name__}"
            raise CheckpointError(f"{path}: itos has {kind} for {number}, not a character")
    ids = {character: number for number, character in enumerate(characters)}
    if len(ids) != len(characters):
        raise CheckpointError(f"{path}: itos has a character twice")
    if "stoi" in meta and meta["stoi"] != ids:
        raise CheckpointError(f"{path}: stoi and itos do not belong together")
    size = meta.get("vocab_size", len(ids))
    if type(size) is not int or size != len(ids):
        shown = size if type(size) is int else f"a {type(size).__name__}"
        raise CheckpointError(f"{path}: vocab_size is {shown}, but itos has {len(ids)} characters")
    return Vocabulary(characters)


def _in_id_order(path: Path, itos: object) -> list[Any]:
    """The values of `itos` for the ids 0, 1, 2 and so on.

    Raises:
        CheckpointError: an id is missing, or there are too few or too many.
    """
    if isinstance(itos, str | list | tuple):
        characters = list(itos)
    elif isinstance(itos, dict) and all(number in itos for number in range(len(itos))):
        characters = [itos[number] for number in range(len(itos))]
    else:
        raise CheckpointError(f"{path}: itos does not tell what stands for each number from 0 up")
    if not 1 <= len(characters) <= MAX_CHARACTERS:
        raise CheckpointError(f"{path}: itos has {len(characters):,} characters, not 1 to {MAX_CHARACTERS:,}")
    return characters


def read_data_vocabulary(folder: Path) -> Vocabulary:
    """The characters of a data folder that nanoGPT's prepare.py wrote.

    Raises:
        DataError: it has no meta.pkl: its ids are GPT-2's tokens.
        CheckpointError: as `read_meta`.
    """
    path = folder / META_FILE
    if not path.exists():
        raise DataError(
            f"{folder}: has no {META_FILE}, so its numbers are GPT-2's tokens, not characters; make it with "
            "nanoGPT's data/shakespeare_char/prepare.py, or from the text with training.prepare"
        )
    return read_meta(path)


def describe_text(folder: Path, vocabulary: Vocabulary, splits: tuple[NDArray[np.uint16], ...]) -> dict[str, Any]:
    """Name, size and SHA-256 of the text that the splits make together, as training.prepare records them.

    Raises:
        DataError: an id is not in the vocabulary.
    """
    points = np.array([ord(character) for character in vocabulary.characters], dtype="<u4")
    digest = hashlib.sha256()
    size = 0
    for ids in splits:
        for start in range(0, len(ids), HASH_CHUNK):
            part = np.asarray(ids[start : start + HASH_CHUNK])
            if part.max() >= len(points):
                raise DataError(
                    f"{folder}: has the id {part.max()}, but {META_FILE} has {len(points)} characters; the files "
                    "do not belong together"
                )
            content = points[part].tobytes().decode("utf-32-le").encode()
            digest.update(content)
            size += len(content)
    return {
        "name": folder.absolute().name,
        "characters": sum(len(ids) for ids in splits),
        "bytes": size,
        "sha256": digest.hexdigest(),
    }
