"""A draft's table of contexts as a GPU looks them up: a hash table with open addressing."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.backends.cuda.drawing import HASH, HASH_SHIFT
from model.sampling.ngram_draft import Draft

MAX_VOCABULARY = 4096  # in a vocabulary: a guess looks at all of them at once


class Table(NamedTuple):
    """See `drawing.advance`."""

    keys: Tensor  # (SIZE,) int64, -1 where there is none
    places: Tensor  # (SIZE,) int32
    surprise: Tensor  # (N, V) uint8
    powers: Tensor  # (CONTEXTS,) int64
    longest: int
    probes: int


def make_table(draft: Draft | None, vocab_size: int, device: torch.device) -> Table:
    """The table of a draft, or one that has the empty context only."""
    keys = np.zeros(1, np.int64) if draft is None else draft.keys
    surprise = np.zeros((1, vocab_size), np.uint8) if draft is None else draft.surprisal
    longest = 0 if draft is None else draft.max_context
    size = 1 << (4 * len(keys)).bit_length()
    slots, places = np.full(size, -1, np.int64), np.zeros(size, np.int32)
    waiting, distance = np.arange(len(keys)), 0
    starts = (keys * np.int64(HASH.value)) >> np.int64(HASH_SHIFT.value)
    while len(waiting):
        found = (starts[waiting] + distance) & (size - 1)
        free = np.flatnonzero(slots[found] < 0)
        _, first = np.unique(found[free], return_index=True)  # one of those that want the same slot
        taken = free[first]
        slots[found[taken]], places[found[taken]] = keys[waiting[taken]], waiting[taken]
        waiting, distance = np.delete(waiting, taken), distance + 1
    contexts = 1 << longest.bit_length()
    powers = [(vocab_size + 1) ** min(length, longest) for length in range(contexts)]
    return Table(
        keys=torch.from_numpy(slots).to(device),
        places=torch.from_numpy(places).to(device),
        surprise=torch.from_numpy(surprise).to(device),
        powers=torch.tensor(powers, device=device),
        longest=longest,
        probes=1 << (distance - 1).bit_length(),
    )
