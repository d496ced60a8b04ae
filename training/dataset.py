"""A prepared data set: a folder of token ids, and the batches drawn from it.

train.bin, val.bin   ids as little-endian uint16, as nanoGPT stores them; they stay on disk while they are read
vocab.json           the characters in id order
dataset.json         name, size and SHA-256 of the text

A folder that nanoGPT's own prepare.py wrote has a meta.pkl instead of the last two.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.atomic_files import FolderReader, check_file, names_in, read_json, read_whole, replacing
from model.checkpoint import SOURCE_FIELDS, Checkpoint
from model.errors import DataError, InputError
from model.vocabulary import Vocabulary
from training.nanogpt import describe_text, read_data_vocabulary

Ids = NDArray[np.uint16]
MAX_DATASET_BYTES = 1 << 40  # in the file of one split
DATASET_FILE = "dataset.json"
FILES = ("train.bin", "val.bin", "vocab.json", DATASET_FILE)
TRAIN_SHARE = 0.9
MAX_LISTED_NAMES = 3  # of files, in an error message
MAX_LISTED_DIFFERENCES = 5  # characters, in an error message


@dataclass(frozen=True)
class Dataset:
    """Token ids of the training and the validation split, and the text they came from."""

    vocabulary: Vocabulary
    train: Ids
    val: Ids
    source: dict[str, Any]  # of the text: `SOURCE_FIELDS`

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the vocabulary and of the ids of both splits."""
        digest = hashlib.sha256("".join(self.vocabulary.characters).encode())
        for split in (self.train, self.val):
            digest.update(f"{len(split)} ".encode())
            digest.update(np.ascontiguousarray(split, dtype="<u2").data)
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write the folder's files, all of them or none; other files in it stay.

        Raises:
            InputError: see `check_replaceable`.
        """
        check_replaceable(folder)
        with replacing(folder) as new:
            self.train.astype("<u2").tofile(new / "train.bin")
            self.val.astype("<u2").tofile(new / "val.bin")
            self.vocabulary.save(new / "vocab.json")
            (new / DATASET_FILE).write_text(json.dumps(self.source, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Dataset":
        """Open a folder that `save` or nanoGPT's prepare.py wrote; the ids stay on disk.

        Raises:
            DataError: missing, malformed, or empty.
        """
        has_source = FolderReader(folder).path(DATASET_FILE).exists()
        if not has_source and (folder / "train.bin").exists():
            return cls._load_nanogpt(folder)
        try:
            return read_whole(folder, cls._read)
        except (OSError, ValueError) as error:
            raise DataError(f"{folder}: not a prepared data set ({error}); run training.prepare first") from error

    @classmethod
    def _read(cls, files: FolderReader) -> "Dataset":
        source = read_json(files.path(DATASET_FILE))
        if not isinstance(source, dict):
            raise ValueError(f"{DATASET_FILE} holds no JSON object")
        vocabulary = Vocabulary.load(files.path("vocab.json"))
        train = _open_ids(files.path("train.bin"), vocabulary)
        val = _open_ids(files.path("val.bin"), vocabulary)
        return cls(vocabulary, train, val, source)

    @classmethod
    def _load_nanogpt(cls, folder: Path) -> "Dataset":
        """Open a folder that nanoGPT's prepare.py wrote, with its characters in meta.pkl."""
        vocabulary = read_data_vocabulary(folder)
        try:
            train = _open_ids(folder / "train.bin", vocabulary)
            val = _open_ids(folder / "val.bin", vocabulary)
        except (OSError, ValueError) as error:
            raise DataError(f"{folder}: not a whole data set of nanoGPT's prepare.py ({error})") from error
        return cls(vocabulary, train, val, describe_text(folder, vocabulary, (train, val)))


def _open_ids(path: Path, vocabulary: Vocabulary) -> Ids:
    check_file(path, MAX_DATASET_BYTES)
    ids: Ids = np.memmap(path, dtype="<u2", mode="r")
    if ids.max() >= len(vocabulary):
        raise ValueError(f"{path.name} has the id {ids.max()}, and the vocabulary {len(vocabulary)} characters")
    return ids


def check_replaceable(folder: Path) -> None:
    """Refuse a folder whose files must not be replaced.

    Raises:
        InputError: it is a file, or not empty and not a data set that `Dataset.save` wrote.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError("out_dir", f"{folder} is a file; name a folder")
    names = names_in(folder)
    if not names or _is_dataset(folder):
        return
    shown = ", ".join(names[:MAX_LISTED_NAMES])
    if len(names) > MAX_LISTED_NAMES:
        shown += f" and {len(names) - MAX_LISTED_NAMES:,} more"
    raise InputError(
        "out_dir",
        f"{folder} is no data set, and holds files of yours: {shown}; use a folder of its own, such as "
        f"{folder / 'dataset'}",
    )


def _is_dataset(folder: Path) -> bool:
    try:
        record = read_json(FolderReader(folder).path(DATASET_FILE))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.keys() >= set(SOURCE_FIELDS)


def from_text(text: str, source: dict[str, Any]) -> Dataset:
    """Split and encode a text as nanoGPT does: the first 90 % to train, ids in the order of code points.

    Raises:
        DataError: fewer than two different characters, or more than 65,536, or too short to split.
    """
    code_points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    distinct, inverse = np.unique(code_points, return_inverse=True)
    if not 2 <= len(distinct) <= 1 << 16:
        raise DataError(
            f"the text has {len(distinct)} different characters in {len(text)}; training needs 2 to 65,536"
        )
    ids = inverse.astype(np.uint16)
    split = int(len(ids) * TRAIN_SHARE)
    if len(ids) - split < 2:
        raise DataError(f"the text has {len(text)} characters; training and validation need at least 20")
    vocabulary = Vocabulary(chr(code_point) for code_point in distinct)
    return Dataset(vocabulary, ids[:split], ids[split:], source)


def translate(ids: Ids, data: Vocabulary, model: Vocabulary) -> Ids:
    """The ids of a data set's text in the model's vocabulary.

    Raises:
        DataError: the text has characters that the model does not know.
    """
    if data.characters == model.characters:
        return ids
    unknown = [character for character in data.characters if character not in model.characters]
    if unknown:
        raise DataError(f"the data set has characters that the model has never seen: {''.join(unknown)!r}")
    table = np.array(model.encode("".join(data.characters)), dtype=np.uint16)
    translated: Ids = table[ids]
    return translated


def load_text_of(checkpoint: Checkpoint, folder: Path, remedy: str) -> Dataset:
    """The data set that a checkpoint was trained on, from its folder, in the checkpoint's ids.

    Args:
        remedy: what to do if the folder has another text, for the message.

    Raises:
        DataError: it is of another text, or malformed.
    """
    dataset = Dataset.load(folder)
    trained_on = checkpoint.training.get("dataset", {}).get("sha256")
    given = dataset.source.get("sha256")
    if trained_on and given and trained_on != given:
        raise DataError(
            f"{folder}: is of another text (SHA-256 {given[:12]}) than the checkpoint was trained on "
            f"({trained_on[:12]}); {remedy}"
        )
    train = translate(dataset.train, dataset.vocabulary, checkpoint.vocabulary)
    val = translate(dataset.val, dataset.vocabulary, checkpoint.vocabulary)
    return Dataset(checkpoint.vocabulary, train, val, dataset.source)


def describe_difference(one: Vocabulary, other: Vocabulary) -> str:
    """How two different vocabularies differ, for an error message: `which differ in 'xyz'`."""
    different = sorted(set(one.characters) ^ set(other.characters))
    if not different:
        return "which are in another order"
    shown = "".join(different[:MAX_LISTED_DIFFERENCES])
    more = len(different) - MAX_LISTED_DIFFERENCES
    return f"which differ in {shown!r}" + (f" and {more} more" if more > 0 else "")


class CalibrationSplit(NamedTuple):
    """The training split in two: what is trained on, and what the scale of the logits is fitted on."""

    train: Ids
    calibration: Ids


def split_calibration(ids: Ids, share: float, block_size: int) -> CalibrationSplit:
    """Hold out a `share` of the training split, its beginning, for calibration.

    The beginning and not the end: the validation split goes on where the end breaks off, perhaps in the middle of a
    play, and a model that has not read that end predicts it worse, by 0.1 nats for Shakespeare.

    Raises:
        DataError: a part that is used is too short for a block and the character after it; names both sizes.
    """
    held_out = round(len(ids) * share)
    split = CalibrationSplit(train=ids[held_out:], calibration=ids[:held_out])
    _check_length("training split", split.train, block_size)
    if share:
        name = "part of the training split that --calibration holds out"
        _check_length(name, split.calibration, block_size)
    return split


def _check_length(name: str, ids: Ids, block_size: int) -> None:
    if len(ids) < block_size + 1:
        raise DataError(
            f"the {name} has {len(ids)} characters; a block_size of {block_size} needs {block_size + 1} or more: "
            "use a longer text or a smaller --block_size"
        )


@dataclass(frozen=True)
class RandomBatches:
    """nanoGPT's batches: each row starts anywhere. A batch is a function of the seed and the step's number."""

    ids: Ids
    batch_size: int
    block_size: int
    seed: int

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of one step, each (batch_size, block_size) int64."""
        random = np.random.default_rng((self.seed, step))
        starts = random.integers(0, len(self.ids) - self.block_size, self.batch_size)
        return gather(self.ids, starts, self.block_size)


@dataclass(frozen=True)
class EpochBatches:
    """Every block once per epoch, shuffled; the blocks of each epoch begin at another offset.

    A batch is a function of the seed and the step's number, like those of `RandomBatches`.
    """

    ids: Ids
    batch_size: int
    block_size: int
    seed: int

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of one step, each (batch_size, block_size) int64."""
        blocks = (len(self.ids) - 1) // self.block_size
        if blocks > 1:
            blocks -= 1  # leaves characters for the offset
        steps_per_epoch = max(1, blocks // self.batch_size)
        epoch, step_in_epoch = divmod(step, steps_per_epoch)
        random = np.random.default_rng((self.seed, epoch))
        unused = len(self.ids) - 1 - blocks * self.block_size
        offset = random.integers(0, min(unused, self.block_size - 1) + 1)
        shuffled = random.permutation(blocks)
        first = step_in_epoch * self.batch_size
        own = shuffled[first : first + self.batch_size]
        return gather(self.ids, offset + own * self.block_size, self.block_size)


def gather(ids: Ids, starts: NDArray[np.int64], length: int) -> tuple[Tensor, Tensor]:
    """Inputs: the `length` ids from each start on (rows, length). Targets: the same, one character later."""
    windows = np.asarray(ids)[starts[:, None] + np.arange(length + 1)]  # (rows, length + 1)
    rows = torch.from_numpy(windows.astype(np.int64))
    inputs = rows[:, :-1].contiguous()
    targets = rows[:, 1:].contiguous()
    return inputs, targets
