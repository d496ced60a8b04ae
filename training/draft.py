"""Let a checkpoint write faster by a table of guesses: `python -m training.draft --checkpoint=DIR --data=DIR`.

Training does this by itself; the command is for checkpoints that come from elsewhere.
"""

import sys

import numpy as np

from model.atomic_files import replacing
from model.checkpoint import DRAFT_FILE, read_checkpoint
from model.cli import SettingsPath, run, settings_config
from model.flags import ProgramSettings
from model.sampling.ngram_draft import UNITS_PER_NAT, Draft
from training.dataset import Dataset, Ids, translate
from training.ngram import MAX_COUNTED_CHARACTERS, KneserNey

ORDER = 5  # a sixth agreed no more often with the bundled model, a fourth 0.07 less
TABLE_BYTES = 2 << 20
MIN_COUNT = 2  # of a context, to be worth a row


class DraftSettings(ProgramSettings):
    """Put a table of guesses, by a Kneser-Ney 5-gram of the data set, into a checkpoint. Its texts stay."""

    model_config = settings_config("training.draft", "SOLILOQUY_DRAFT_")

    checkpoint: SettingsPath
    """Checkpoint folder to add to"""
    data: SettingsPath
    """Folder that training.prepare wrote, of the text that the checkpoint was trained on"""


def make_draft(ids: Ids, vocab_size: int) -> Draft:
    """A table for the commonest contexts of the text, of up to four characters and 2 MB."""
    text, base = ids[:MAX_COUNTED_CHARACTERS].astype(np.int64), vocab_size + 1
    order = max(1, min(ORDER, len(text), int(63 / np.log2(base)) + 1))
    windows, keys, counts = np.zeros(len(text) + 1, np.int64), [np.zeros(1, np.int64)], [np.array([1 << 62])]
    for length in range(1, order):  # each window's key, of one more character
        windows = windows[:-1] * base + text[length - 1 :] + 1
        found, count = np.unique(windows, return_counts=True)
        keys.append(found[count >= MIN_COUNT])
        counts.append(count[count >= MIN_COUNT])
    room = max(1, TABLE_BYTES // (vocab_size + 8))
    every = np.concatenate(counts)
    least = np.sort(every)[-room - 1] if len(every) > room else 0  # more than `room` are at least as common
    kept = [key[count > least] for key, count in zip(keys, counts, strict=True)]
    model = KneserNey(ids[:MAX_COUNTED_CHARACTERS], order, vocab_size)
    digits = [key[:, None] // base ** np.arange(length)[::-1] % base - 1 for length, key in enumerate(kept)]
    surprise = np.concatenate([-np.log(model.distribution(contexts)) for contexts in digits])
    all_keys = np.concatenate(kept)
    ascending = np.argsort(all_keys)
    table = np.minimum(np.rint(surprise * UNITS_PER_NAT), 255).astype(np.uint8)
    return Draft(all_keys[ascending], np.ascontiguousarray(table[ascending]))


def add_draft(settings: DraftSettings) -> None:
    """Write the table into the checkpoint's folder."""
    checkpoint, dataset = read_checkpoint(settings.checkpoint), Dataset.load(settings.data)
    ids = translate(dataset.train, dataset.vocabulary, checkpoint.vocabulary)
    draft = make_draft(ids, len(checkpoint.vocabulary))
    path = settings.checkpoint / DRAFT_FILE
    with replacing(settings.checkpoint) as new:
        draft.save(new / DRAFT_FILE)
    print(f"{len(draft.keys):,} contexts of up to {draft.max_context} characters, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    sys.exit(run(DraftSettings, add_draft, sys.argv[1:]))
