"""Where logits come from: ids are read into the slots of a preallocated key/value cache.

`Backend` is the interface; `EagerBackend` is the readable reference, on any device. A row's arithmetic does
not depend on the rows beside it. Knows nothing of text.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Timer
from typing import NamedTuple, Protocol

from model.config import GPTConfig
from model.sampling.ngram_draft import Draft
from model.sampling.noise import GumbelNoise
from model.sampling.sampler import Logits

NOTICE_SECONDS = 1.5  # what was compiled before is mostly there sooner
NOT_FINITE = "the model's logits are not finite"


class Writing(NamedTuple):
    """A stream that goes on drawing where every character can come."""

    slot: int
    recent: Sequence[int]  # the last ids of its text; all but the last are in the slot
    most: int  # ids that it may write
    temperature: float
    luck: GumbelNoise
    place: int  # of the next id, where its noise is


def check_run(backend: "Backend", slot: int, ids: Sequence[int]) -> None:
    """Refuse what would be read or written beyond a backend's memory.

    Raises:
        ValueError: an id is not in the vocabulary, or there are too many of them.
    """
    if not ids or min(ids) < 0 or max(ids) >= backend.config.vocab_size or len(ids) > backend.chunk:
        raise ValueError(f"slot {slot}: {len(ids)} ids, from 1 to {backend.chunk} of the vocabulary's are possible")
    learned = backend.config.positions == "learned"
    if learned and backend.length(slot) + len(ids) > backend.config.block_size:
        raise ValueError(f"slot {slot}: learned positions end at {backend.config.block_size}")


class Backend(Protocol):
    """Slots that each hold one sequence's keys and values.

    Attributes:
        draws_apart: whether streams that it can draw for are better left to `write` where others are not.
        chunk: ids of one slot that one call reads at most. Longer prompts are read in chunks of just this size:
            where they are cut may be seen in the last bits.
        prompt_rows: ids of prompts that one call should read at most, beside texts that go on.
        drafts: ids of one slot beyond the next that one call can check at less than their full price; 0 if none.
        call_cost: what a call costs besides its rows, in rows of a slot each.
        guess_cost: what a further row of a slot costs, as a part of its first.
    """

    config: GPTConfig
    slots: int
    chunk: int
    prompt_rows: int
    drafts: int
    call_cost: float
    guess_cost: float
    draws_apart: bool

    def length(self, slot: int) -> int:
        """Characters in the slot's sequence."""

    def forget(self, slot: int, length: int = 0) -> None:
        """Leave the sequence's first `length` characters: none, or all but some that the last `extend` read."""

    def reset(self) -> None:
        """Forget all slots, and clear what a failed step may have left that is not finite."""

    def extend(self, runs: Mapping[int, Sequence[int]]) -> dict[int, Logits]:
        """Append ids to each slot named; return the logits (n, V) after each of the slot's n ids.

        With rotary positions the oldest character leaves when the window is full. With learned positions a sequence
        cannot be longer than `block_size`.
        """

    def streams_ahead(self, streams: int) -> int:
        """How many of so many streams one `write` should draw in."""

    def steps_ahead(self, streams: int, guesses: int) -> int:
        """Steps that one `write` should take in so many streams, with so many guesses each; 0: it should not."""

    def write(self, writings: Sequence[Writing], steps: int, draft: Draft | None) -> list[tuple[list[int], Logits]]:
        """Draw on in each stream, as often as `extend` and `draw` would in so many steps with guesses.

        Returns:
            What each has written, and the logits (n, V) that each id was drawn from. The last id is not read yet.

        Raises:
            FloatingPointError: a logit is not finite.
        """


@contextmanager
def announced(note: str) -> Iterator[None]:
    """Say on stderr what is going on, if it takes longer than it does the second time."""
    timer = Timer(NOTICE_SECONDS, print, (note,), {"file": sys.stderr, "flush": True})
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
