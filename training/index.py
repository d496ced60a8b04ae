"""Let a checkpoint judge texts by its training text: `python -m training.index --checkpoint=DIR --data=DIR`.

Training does this by itself; the command is for checkpoints that come from elsewhere, or from before.
"""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from model.checkpoint import INDEX_FILE, read_checkpoint
from model.cli import run, settings_config
from model.draft import Draft
from model.errors import DataError
from model.files import replacing_file
from model.flags import ProgramSettings
from model.index import HeldOut, Range, TextIndex
from model.measure import FIGURES, measure
from model.structure import find_speakers
from model.vocabulary import Vocabulary
from model.words import WordList
from training.copies import make_copies
from training.dataset import Dataset, Ids, translate

PIECES = (250, 1000, 4000)  # characters; what a text is compared with is the nearest
MOST_PIECES = 500


class IndexSettings(ProgramSettings):
    """Put an index of its training text into a checkpoint: what reports tell copies and inventions by."""

    model_config = settings_config("training.index", "SOLILOQUY_INDEX_")

    checkpoint: Path
    """Checkpoint folder to add to"""
    data: Path
    """Folder that training.prepare wrote, of the text that the checkpoint was trained on"""


def make_index(dataset: Dataset, draft: Draft | None, progress: bool = False) -> TextIndex:
    """The index of a data set's training split, with the figures of its validation split.

    Args:
        draft: the checkpoint's table of guesses, whose ids are those of the data set.
    """
    text = _decode(dataset.train, dataset.vocabulary)
    sha256 = dataset.source.get("sha256")
    index = TextIndex(make_copies(text), WordList.of(text), find_speakers(text), (), sha256)
    held_out = _decode(dataset.val, dataset.vocabulary)
    found = []
    for size in PIECES:
        pieces = list(cut(held_out, size))
        pieces = [pieces[i] for i in np.linspace(0, len(pieces) - 1, min(len(pieces), MOST_PIECES)).astype(int)]
        if pieces:
            bar = tqdm(pieces, disable=not progress, leave=False, unit="piece", desc=f"{size} characters")
            found.append(summarise(size, [measure(one, index, draft, dataset.vocabulary).figures for one in bar]))
    return dataclasses.replace(index, held_out=tuple(found))


def cut(text: str, size: int) -> Iterator[str]:
    """Pieces of `size` characters, each from the beginning of a line where there is one: as a model begins."""
    start = 0
    while start + size <= len(text):
        yield text[start : start + size]
        start += size
        line = text.find("\n", start - 1, start + size) + 1
        start = line or start


def summarise(size: int, figures: list[dict[str, float]]) -> HeldOut:
    """Mean and range of each figure over the pieces that have it."""
    ranges = {}
    for name in FIGURES:
        values = [one[name] for one in figures if name in one]
        if values:
            low, high = np.percentile(values, (5, 95))
            ranges[name] = Range(float(np.mean(values)), float(low), float(high))
    return HeldOut(size, len(figures), ranges)


def add_index(settings: IndexSettings) -> None:
    """Write the index into the checkpoint's folder."""
    path = settings.checkpoint / INDEX_FILE
    checkpoint, dataset = read_checkpoint(settings.checkpoint, with_index=False), Dataset.load(settings.data)
    named, found = checkpoint.training.get("dataset", {}).get("sha256"), dataset.source.get("sha256")
    if named and found and named != found:
        raise DataError(
            f"{settings.data}: is of another text (SHA-256 {found[:12]}) than the checkpoint was trained on "
            f"({named[:12]})"
        )
    train, val = (translate(ids, dataset.vocabulary, checkpoint.vocabulary) for ids in (dataset.train, dataset.val))
    dataset = Dataset(checkpoint.vocabulary, train, val, dataset.source)
    index = make_index(dataset, checkpoint.draft, progress=True)
    with replacing_file(path) as new:
        index.save(new)
    print(f"{len(index.copies.rungs)} filters of runs from {index.copies.shortest} characters on, ", end="")
    print(f"{len(index.words.words):,} words, {len(index.speakers):,} speakers, {path.stat().st_size:,} bytes")


def _decode(ids: Ids, vocabulary: Vocabulary) -> str:
    points = np.array([ord(character) for character in vocabulary.characters], dtype="<u4")
    return points[ids].tobytes().decode("utf-32-le", "surrogatepass")


if __name__ == "__main__":
    sys.exit(run(IndexSettings, add_index, sys.argv[1:]))
