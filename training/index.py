"""Add the index of its training text to a checkpoint: `python -m training.index --checkpoint=DIR --data=DIR`.

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
from model.flags import ProgramSettings
from model.sampling.ngram_draft import Draft
from model.vocabulary import Vocabulary
from training.copies import make_copy_index
from training.dataset import Dataset, Ids, load_text_of

PIECE_SIZES = (50, 100, 150, 250, 400, 600, 1000, 1500, 2500, 4000, 10_000)  # characters
MIN_PIECES = 10  # without overlap; 5 % of fewer cannot be estimated
MAX_PIECES = 500
TAIL_SHARE = 0.05  # of the pieces are above a figure's range, and as many below
OVERLAP = 2  # pieces over each position, so that it matters less where a piece begins


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
        draft: the checkpoint's n-gram table, in the data set's ids.
    """
    text = _decode(dataset.train, dataset.vocabulary)
    sha256 = dataset.source.get("sha256")
    index = TextIndex(make_copy_index(text), WordList.of(text), find_speakers(text), (), sha256)
    held_out = _decode(dataset.val, dataset.vocabulary)
    summaries: list[HeldOut] = []
    for size in PIECE_SIZES:
        pieces = cut_pieces(held_out, size)
        if not pieces:
            continue
        figures: list[dict[str, float]] = []
        for piece in tqdm(pieces, disable=not progress, leave=False, unit="piece", desc=f"{size} characters"):
            figures.append(measure(piece, index, draft, dataset.vocabulary).figures)
        summaries.append(summarise(size, figures))
    return dataclasses.replace(index, held_out=tuple(summaries))


def cut_pieces(text: str, size: int) -> list[str]:
    """Pieces of `size` characters, evenly spread over the text; none if it is shorter than `MIN_PIECES` of them.

    Each begins at the beginning of a line if there is one close before, as the texts of a model do.
    """
    if len(text) < MIN_PIECES * size:
        return []
    count = min(MAX_PIECES, OVERLAP * len(text) // size)
    starts: set[int] = set()
    for position in np.linspace(0, len(text) - size, count).astype(int).tolist():
        line_start = text.rfind("\n", max(0, position - size), position) + 1
        starts.add(line_start or position)
    return [text[start : start + size] for start in sorted(starts)]


def summarise(size: int, figures: list[dict[str, float]]) -> HeldOut:
    """Mean and range of each figure over the pieces that have it."""
    ranges: dict[str, Range] = {}
    for name in FIGURES:
        values = [of_piece[name] for of_piece in figures if name in of_piece]
        if values:
            high = _upper_bound(values)
            low = -_upper_bound([-value for value in values])
            ranges[name] = Range(float(np.mean(values)), low, high)
    return HeldOut(size, len(figures), ranges)


def _upper_bound(values: list[float]) -> float:
    """The value that a share of values closest to 5 % is above.

    Unlike a percentile, it counts right where many values are equal.
    """
    ordered = np.sort(values)
    share_above = 1 - np.searchsorted(ordered, ordered, side="right") / len(ordered)
    return float(ordered[np.abs(share_above - TAIL_SHARE).argmin()])


def add_index(settings: IndexSettings) -> None:
    """Write the index into the checkpoint's folder."""
    path = settings.checkpoint / INDEX_FILE
    checkpoint = read_checkpoint(settings.checkpoint, with_index=False)
    dataset = load_text_of(checkpoint, settings.data, "give its own with --data")
    index = make_index(dataset, checkpoint.draft, progress=True)
    with replacing(settings.checkpoint) as new:
        index.save(new / INDEX_FILE)
    print(f"{len(index.copies.rungs)} filters of runs from {index.copies.shortest} characters on, ", end="")
    print(f"{len(index.words.words):,} words, {len(index.speakers):,} speakers, {path.stat().st_size:,} bytes")


def _decode(ids: Ids, vocabulary: Vocabulary) -> str:
    """The text of the ids, by one look-up for all of them."""
    points = np.array([ord(character) for character in vocabulary.characters], dtype="<u4")
    return points[ids].tobytes().decode("utf-32-le", "surrogatepass")


if __name__ == "__main__":
    sys.exit(run(IndexSettings, add_index, sys.argv[1:]))
