"""Let a checkpoint write faster by a table of guesses: `python -m training.draft --checkpoint=DIR --data=DIR`.

Training does this by itself; the command is for checkpoints that come from elsewhere.
"""

import sys
from pathlib import Path

import numpy as np
from pydantic_settings import BaseSettings

from model.checkpoint import DRAFT_FILE, read_checkpoint
from model.cli import run, settings_config
from model.draft import UNITS, Draft, context_keys
from training.dataset import Dataset, Ids, translate
from training.ngram import KneserNey

ORDER = 5  # a sixth agreed no more often with the bundled model, a fourth 0.07 less
TABLE_BYTES = 2 << 20
LEAST_COUNT = 2  # of a context, to be worth a row
MOST_CHARACTERS = 5_000_000  # to count in


class DraftSettings(BaseSettings):
    """Put a table of guesses, by a Kneser-Ney 5-gram of the data set, into a checkpoint. Its texts stay."""

    model_config = settings_config("training.draft", "SOLILOQUY_DRAFT_")

    checkpoint: Path
    """Checkpoint folder to add to"""
    data: Path
    """Folder that training.prepare wrote, of the text that the checkpoint was trained on"""


def make_draft(ids: Ids, vocab_size: int) -> Draft:
    """A table for the commonest contexts of the text, of up to four characters and 2 MB."""
    order = max(1, min(ORDER, len(ids), int(63 / np.log2(vocab_size + 1)) + 1))
    ids = ids[:MOST_CHARACTERS]
    text = ids.astype(np.int64)
    model = KneserNey(ids, order, vocab_size)
    contexts, counts, lengths = [], [], []
    for length in range(1, order):
        found, count = np.unique(np.lib.stride_tricks.sliding_window_view(text, length), axis=0, return_counts=True)
        contexts.append(found[count >= LEAST_COUNT])
        counts.append(count[count >= LEAST_COUNT])
        lengths.append(len(contexts[-1]))
    room = max(1, TABLE_BYTES // (vocab_size + 8)) - 1
    least = np.sort(np.concatenate([*counts, [0]]))[::-1][: room + 1][-1]  # more than `room` are at least so common
    if sum(lengths) > room:
        contexts = [c[count > least] for c, count in zip(contexts, counts, strict=True)]
    contexts.insert(0, np.zeros((1, 0), np.int64))
    keys = np.concatenate([context_keys(c, vocab_size) for c in contexts])
    surprise = np.concatenate([-np.log(model.distribution(c)) for c in contexts])
    order_of_keys = np.argsort(keys)
    table = np.minimum(np.rint(surprise * UNITS), 255).astype(np.uint8)
    return Draft(keys[order_of_keys], np.ascontiguousarray(table[order_of_keys]))


def add_draft(settings: DraftSettings) -> None:
    """Write the table into the checkpoint's folder."""
    checkpoint, dataset = read_checkpoint(settings.checkpoint), Dataset.load(settings.data)
    ids = translate(dataset.train, dataset.vocabulary, checkpoint.vocabulary)
    draft = make_draft(ids, len(checkpoint.vocabulary))
    path = settings.checkpoint / DRAFT_FILE
    new = path.with_suffix(".new")
    draft.save(new)
    new.replace(path)
    print(f"{len(draft.keys):,} contexts of up to {draft.longest} characters, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    sys.exit(run(DraftSettings, add_draft, sys.argv[1:]))
