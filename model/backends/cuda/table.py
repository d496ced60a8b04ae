"""The n-gram draft's contexts as a GPU looks them up: a hash table with open addressing and linear probing.

A sorted array, as the CPU searches it, would take a loop of dependent reads; here all probes are read at once.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.backends.cuda.drawing import HASH_MULTIPLIER, HASH_SHIFT
from model.sampling.ngram_draft import Draft

MAX_VOCABULARY = 4096  # one program looks at the surprisal of all ids at once


class Table(NamedTuple):
    """The arguments of `drawing.accept_and_propose` that stand for a draft."""

    keys: Tensor  # (TABLE_SIZE,) int64, -1 where a place is empty
    table_rows: Tensor  # (TABLE_SIZE,) int32: each key's row of `surprisal`
    surprisal: Tensor  # (N, V) uint8
    powers: Tensor  # (CONTEXTS,) int64: of the base of keys
    max_context: int  # ids in the longest context
    probes: int  # places in a row that have to be looked at to find a key, rounded up to a power of two


def make_table(draft: Draft | None, vocab_size: int, device: torch.device) -> Table:
    """Return the table of a draft, or one with the empty context alone."""
    keys = np.zeros(1, np.int64)
    surprisal = np.zeros((1, vocab_size), np.uint8)
    max_context = 0
    if draft is not None:
        keys = draft.keys
        surprisal = draft.surprisal
        max_context = draft.max_context
    table_size = 1 << (4 * len(keys)).bit_length()
    table_keys = np.full(table_size, -1, np.int64)
    table_rows = np.zeros(table_size, np.int32)
    hashes = (keys * np.int64(HASH_MULTIPLIER.value)) >> np.int64(HASH_SHIFT.value)
    # All keys try the place at one distance behind their hash; those that find it taken go on to the next distance.
    waiting = np.arange(len(keys))
    distance = 0
    while len(waiting):
        places = (hashes[waiting] + distance) & (table_size - 1)
        free = np.flatnonzero(table_keys[places] < 0)
        _, first = np.unique(places[free], return_index=True)  # one of those that want the same place
        placed = free[first]
        table_keys[places[placed]] = keys[waiting[placed]]
        table_rows[places[placed]] = waiting[placed]
        waiting = np.delete(waiting, placed)
        distance += 1
    contexts = 1 << max_context.bit_length()  # lengths, rounded up to a power of two
    powers = [(vocab_size + 1) ** min(length, max_context) for length in range(contexts)]
    return Table(
        keys=torch.from_numpy(table_keys).to(device),
        table_rows=torch.from_numpy(table_rows).to(device),
        surprisal=torch.from_numpy(surprisal).to(device),
        powers=torch.tensor(powers, device=device),
        max_context=max_context,
        probes=1 << (distance - 1).bit_length(),
    )
