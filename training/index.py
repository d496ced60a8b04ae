"""Let a checkpoint judge texts by its training text: `python -m training.index --checkpoint=DIR --data=DIR`.

Training does this by itself; the command is for checkpoints that come from elsewhere, or from before.
"""

import dataclasses
import sys

import numpy as np
from tqdm import tqdm

from model.analysis.measure import FIGURES, measure
from model.analysis.structure import find_speakers
from model.analysis.text_index import HeldOut, Range, TextIndex
from model.analysis.words import WordList
from model.atomic_files import replacing
from model.checkpoint import INDEX_FILE, read_checkpoint
from model.cli import SettingsPath, run, settings_config
from model.errors import DataError
from model.flags import ProgramSettings
from model.sampling.ngram_draft import Draft
from model.vocabulary import Vocabulary
from training.copies import make_copies
from training.dataset import Dataset, Ids, translate

PIECES = (50, 100, 150, 250, 400, 600, 1000, 1500, 2500, 4000, 10_000)  # characters; others lie between
MIN_PIECES = 10  # side by side; of fewer nobody can say what 5 % of them are above
MAX_PIECES = 500
OUTSIDE = 0.05  # of the pieces are above a figure's range, and as many below
OVERLAP = 2  # pieces over each place, so that where a piece begins by chance decides less


class IndexSettings(ProgramSettings):
    """Put an index of its training text into a checkpoint: what reports tell copies and inventions by."""

    model_config = settings_config("training.index", "SOLILOQUY_INDEX_")

    checkpoint: SettingsPath
    """Checkpoint folder to add to"""
    data: SettingsPath
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
        pieces = cut(held_out, size)
        if pieces:
            bar = tqdm(pieces, disable=not progress, leave=False, unit="piece", desc=f"{size} characters")
            found.append(summarise(size, [measure(one, index, draft, dataset.vocabulary).figures for one in bar]))
    return dataclasses.replace(index, held_out=tuple(found))


def cut(text: str, size: int) -> list[str]:
    """Pieces of `size` characters, evenly spread, each from the beginning of a line where there is one: as a model
    begins. None from a text that has too little room for different ones.
    """
    room = len(text) - size
    count = min(MAX_PIECES, OVERLAP * len(text) // size)
    if len(text) < MIN_PIECES * size:
        return []
    starts = set()
    for place in np.linspace(0, room, count).astype(int).tolist():
        line = text.rfind("\n", max(0, place - size), place) + 1
        starts.add(line or place)
    return [text[start : start + size] for start in sorted(starts)]


def summarise(size: int, figures: list[dict[str, float]]) -> HeldOut:
    """Mean and range of each figure over the pieces that have it."""
    ranges = {}
    for name in FIGURES:
        values = [one[name] for one in figures if name in one]
        if values:
            high = _bound(values)
            low = -_bound([-value for value in values])
            ranges[name] = Range(float(np.mean(values)), low, high)
    return HeldOut(size, len(figures), ranges)


def _bound(values: list[float]) -> float:
    """The value above which about 5 % are: of equal ones a percentile would count too many, or too few."""
    ordered = np.sort(values)
    shares = 1 - np.searchsorted(ordered, ordered, side="right") / len(ordered)
    return float(ordered[np.abs(shares - OUTSIDE).argmin()])


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
    with replacing(settings.checkpoint) as new:
        index.save(new / INDEX_FILE)
    print(f"{len(index.copies.rungs)} filters of runs from {index.copies.shortest} characters on, ", end="")
    print(f"{len(index.words.words):,} words, {len(index.speakers):,} speakers, {path.stat().st_size:,} bytes")


def _decode(ids: Ids, vocabulary: Vocabulary) -> str:
    points = np.array([ord(character) for character in vocabulary.characters], dtype="<u4")
    return points[ids].tobytes().decode("utf-32-le", "surrogatepass")


if __name__ == "__main__":
    sys.exit(run(IndexSettings, add_index, sys.argv[1:]))
