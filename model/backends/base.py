"""The interface through which the generator computes: ids are appended to cache slots, and logits come back.

`Backend` is what every implementation offers; `EagerBackend` is the readable reference, on any device.
`MultiStepDecode` is what some offer besides: to draw several characters in one call. In all of them a row's
arithmetic does not depend on the rows beside it. Knows nothing of text.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Timer
from typing import NamedTuple, Protocol

from model.config import GPTConfig
from model.sampling.noise import GumbelNoise
from model.sampling.sampler import Logits

NOTICE_SECONDS = 1.5  # what was compiled before is mostly loaded sooner
NOT_FINITE = "the model's logits are not finite"


class StepCosts(Protocol):
    """What a step costs by its rows, in any unit: it decides how many draft tokens are worth their cost."""

    @property
    def max_draft_tokens(self) -> int:
        """Ids of one slot beyond the first that one call can read at less than their full price."""

    def cost(self, rows: int, slots: int) -> float:
        """The cost of a step that reads so many ids, in so many slots."""

    def further_row(self, rows: int, slots: int) -> float:
        """What one more id of one of these slots costs besides."""


@dataclass(frozen=True)
class LinearCosts:
    """`StepCosts` by three constants; the unit is the first row of a slot.

    Attributes:
        max_draft_tokens: see `StepCosts`.
        call: what a call costs besides its rows.
        draft_token: what each further row of a slot costs.
    """

    max_draft_tokens: int
    call: float
    draft_token: float

    def cost(self, rows: int, slots: int) -> float:
        """The cost of a step."""
        return self.call + slots + self.draft_token * (rows - slots)

    def further_row(self, rows: int, slots: int) -> float:
        """What one more row costs, whatever there is."""
        return self.draft_token


class DecodeInput(NamedTuple):
    """A sequence that is to go on for several steps, unfiltered: every character of the vocabulary may be drawn.

    Attributes:
        slot: where all but the last id of its context are cached.
        context: its last ids, as many as the draft's contexts have, or fewer at the beginning of a text.
        max_tokens: how many ids may be drawn.
        temperature: 0 is greedy.
        gumbel_noise: the noise of its draws.
        position: of the next id among all that are drawn for the text; its row of the noise.
    """

    slot: int
    context: Sequence[int]
    max_tokens: int
    temperature: float
    gumbel_noise: GumbelNoise
    position: int


class DecodeOutput(NamedTuple):
    """What a multi-step decode drew for one sequence: n ids, and the logits (n, V) that each was drawn from.

    All ids but the last are in the slot.
    """

    ids: list[int]
    logits: Logits


class DecodePlan(NamedTuple):
    """How many sequences one `decode` should take, and for how many steps; 0 steps: `forward` is faster."""

    sequences: int
    steps: int


class MultiStepDecode(Protocol):
    """Several steps in one call: forward pass, draw, draft tokens and their verification, without the host between.

    What comes out is what the generator would have drawn from the same logits with the same noise, step by step.

    Attributes:
        decodes_separately: whether sequences that are ready for `decode` go there also while others need
            `forward`, so that a step makes two calls. If not, all go to one `forward` as long as any needs it.
    """

    decodes_separately: bool

    def plan_decode(self, ready: int) -> DecodePlan:
        """How one `decode` should be called where so many sequences are ready for it."""

    def decode(self, inputs: Sequence[DecodeInput], steps: int, speculate: bool) -> list[DecodeOutput]:
        """Draw in each sequence, as often as `forward` and `draw` would in so many steps.

        Args:
            inputs: one for each sequence.
            steps: how many; each draws at least one id, and with draft tokens that are accepted more.
            speculate: whether to propose draft tokens, from the draft that the backend was made with.

        Raises:
            FloatingPointError: a logit is not finite.
        """


class Backend(Protocol):
    """Slots of a preallocated cache, each with the keys and values of one sequence.

    Attributes:
        prefill_chunk: ids of one slot that one `forward` reads at most. Longer prompts are read in chunks of
            exactly this size, whatever else is read in the same step: on some devices the last bits of the logits
            depend on where a prompt is cut.
        prefill_budget: ids of prompts that one `forward` should read at most, beside sequences that are decoding.
    """

    config: GPTConfig
    slots: int
    prefill_chunk: int
    prefill_budget: int

    @property
    def speculation(self) -> StepCosts | None:
        """What steps with draft tokens cost; None where a slot reads several ids no faster than singly."""

    @property
    def multi_step(self) -> MultiStepDecode | None:
        """How to draw several characters in one call; None where this backend cannot."""

    def length(self, slot: int) -> int:
        """Ids in the slot's sequence, those included that have left its window."""

    def truncate(self, slot: int, length: int = 0) -> None:
        """Keep the sequence's first `length` ids: none, or all but some draft tokens of the last `forward`."""

    def reset(self) -> None:
        """Empty all slots, and clear what a failed step may have left that is not finite."""

    def forward(self, runs: Mapping[int, Sequence[int]]) -> dict[int, Logits]:
        """Append ids to each slot named; return the logits (n, V) after each of the slot's n ids.

        With rotary positions the oldest id leaves the window when it is full. With learned positions a sequence
        cannot be longer than `block_size`.
        """


def check_run(backend: Backend, slot: int, ids: Sequence[int]) -> None:
    """Refuse ids with which compiled code would read or write beyond its arrays.

    Raises:
        ValueError: an id is not in the vocabulary, or there are too many of them.
    """
    limit = backend.prefill_chunk
    if not ids or min(ids) < 0 or max(ids) >= backend.config.vocab_size or len(ids) > limit:
        raise ValueError(f"slot {slot}: {len(ids)} ids, from 1 to {limit} of the vocabulary's are possible")
    learned = backend.config.positions == "learned"
    if learned and backend.length(slot) + len(ids) > backend.config.block_size:
        raise ValueError(f"slot {slot}: learned positions end at {backend.config.block_size}")


def room_left(backend: Backend, slot: int) -> int:
    """Ids that can still be appended to a slot: `sys.maxsize` with rotary positions, since their ring rolls."""
    if backend.config.positions == "rotary":
        return sys.maxsize
    return backend.config.block_size - backend.length(slot)


@contextmanager
def announced(note: str) -> Iterator[None]:
    """Print a note on stderr if the block takes longer than it does when its compiled code is on disk."""
    timer = Timer(NOTICE_SECONDS, print, (note,), {"file": sys.stderr, "flush": True})
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
