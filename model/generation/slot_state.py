"""What the parts of a step hand to each other: a sequence in its slot, and what one step gave it."""

from dataclasses import dataclass, field

from model.generation.sequence import TextSequence
from model.sampling.sampler import Logits, Logprob


@dataclass
class SlotState:
    """A sequence and its slot.

    Invariant between steps: the ids in the slot, followed by `unread`, end the sequence's context (its prompt and
    all that it has written). `unread` is never empty: it ends with the last character, whose logits the next step
    needs. It is longer than 1 while a prompt, or a window that begins again, is still being read.
    """

    sequence: TextSequence
    slot: int
    unread: list[int]


@dataclass
class StepResult:
    """What a step gave one sequence; a sequence whose prompt is not read to its end has none.

    Attributes:
        logits: (n, V) after its last character and after each draft token; m of them, m ≤ n, were drawn from.
        ids: the m ids that were drawn, or given.
        draft_tokens: n - 1 ids that the slot has read behind the last character; all but m - 1 were rejected.
        logprobs: m, each None where nobody asked for it.
    """

    state: SlotState
    logits: Logits
    ids: list[int] = field(default_factory=list)
    draft_tokens: list[int] = field(default_factory=list)
    logprobs: list[Logprob | None] = field(default_factory=list)

    @property
    def sequence(self) -> TextSequence:
        """The sequence in the slot."""
        return self.state.sequence

    @property
    def rejected(self) -> int:
        """Ids that the slot has read, but that are not in the text."""
        return len(self.logits) - len(self.ids)
