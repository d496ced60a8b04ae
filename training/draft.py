"""Add an n-gram draft for speculative decoding: `python -m training.draft --checkpoint=DIR --data=DIR`.

Training does this by itself; the command is for checkpoints that come from elsewhere.
"""

import sys

import numpy as np
from numpy.typing import NDArray

from model.atomic_files import replacing
from model.checkpoint import DRAFT_FILE, read_checkpoint
from model.cli import SettingsPath, run, settings_config
from model.flags import ProgramSettings
from model.sampling.ngram_draft import UNITS_PER_NAT, Draft
from training.dataset import Dataset, Ids, translate
from training.ngram import MAX_COUNTED_CHARACTERS, KneserNey

ORDER = 5  # order 6 had no higher acceptance rate with the bundled model, order 4 a rate lower by 0.07
MAX_TABLE_BYTES = 2 << 20
MIN_COUNT = 2  # occurrences of a context from which it may have a row
EMPTY_CONTEXT_COUNT = 1 << 62  # more than any other's, so that the empty context always has a row


class DraftSettings(ProgramSettings):
    """Put a table of guesses, by a Kneser-Ney 5-gram of the data set, into a checkpoint. Its texts stay."""

    model_config = settings_config("training.draft", "SOLILOQUY_DRAFT_")

    checkpoint: SettingsPath
    """Checkpoint folder to add to"""
    data: SettingsPath
    """Folder that training.prepare wrote, of the text that the checkpoint was trained on"""


def make_draft(ids: Ids, vocab_size: int) -> Draft:
    """The table of a Kneser–Ney model: a row for each of the most frequent contexts of up to four characters.

    A context's key is the number whose digits, in base `vocab_size + 1`, are its ids plus 1, so that contexts of
    different lengths have different keys. The table has up to 2 MB.
    """
    text = ids[:MAX_COUNTED_CHARACTERS].astype(np.int64)
    base = vocab_size + 1
    max_order = int(63 / np.log2(base)) + 1  # keys are int64
    order = max(1, min(ORDER, len(text), max_order))
    keys = [np.zeros(1, np.int64)]  # for each length of contexts: their keys
    counts = [np.array([EMPTY_CONTEXT_COUNT])]  # and how often each occurs
    window_keys = np.zeros(len(text) + 1, np.int64)  # of the context at each position of the text
    for length in range(1, order):
        window_keys = window_keys[:-1] * base + text[length - 1 :] + 1
        distinct, occurrences = np.unique(window_keys, return_counts=True)
        is_frequent = occurrences >= MIN_COUNT
        keys.append(distinct[is_frequent])
        counts.append(occurrences[is_frequent])
    max_rows = max(1, MAX_TABLE_BYTES // (vocab_size + 8))
    all_counts = np.sort(np.concatenate(counts))
    # Contexts that are more frequent than the first one for which there is no row: `max_rows` of them or fewer.
    threshold = all_counts[-max_rows - 1] if len(all_counts) > max_rows else 0
    model = KneserNey(ids[:MAX_COUNTED_CHARACTERS], order, vocab_size)
    kept_keys: list[NDArray[np.int64]] = []
    surprisals: list[NDArray[np.float64]] = []  # (N, V) nats of every character after each kept context
    for length in range(order):
        kept = keys[length][counts[length] > threshold]
        contexts = kept[:, None] // base ** np.arange(length)[::-1] % base - 1  # (N, length) ids
        kept_keys.append(kept)
        surprisals.append(-np.log(model.distribution(contexts)))
    all_keys = np.concatenate(kept_keys)
    table = np.minimum(np.rint(np.concatenate(surprisals) * UNITS_PER_NAT), 255).astype(np.uint8)
    ascending = np.argsort(all_keys)
    return Draft(all_keys[ascending], np.ascontiguousarray(table[ascending]))


def add_draft(settings: DraftSettings) -> None:
    """Write the table into the checkpoint's folder."""
    checkpoint = read_checkpoint(settings.checkpoint)
    dataset = Dataset.load(settings.data)
    ids = translate(dataset.train, dataset.vocabulary, checkpoint.vocabulary)
    draft = make_draft(ids, len(checkpoint.vocabulary))
    path = settings.checkpoint / DRAFT_FILE
    with replacing(settings.checkpoint) as new:
        draft.save(new / DRAFT_FILE)
    print(f"{len(draft.keys):,} contexts of up to {draft.max_context} characters, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    sys.exit(run(DraftSettings, add_draft, sys.argv[1:]))
