"""Which sequence has which slot, and what each step reads: prompts in chunks, last characters, full windows anew.

Knows nothing of draft tokens, of how characters are drawn, or of what is shown of them.
"""

from typing import NamedTuple

from model.backends.base import Backend, room_left
from model.generation.sequence import TextSequence
from model.generation.slot_state import SlotState

MAX_STEPS_BESIDE_FORWARD = (
    8  # of a multi-step decode, while other sequences wait for one `forward` of the same step
)


class StepPlan(NamedTuple):
    """How the sequences of one step are shared out.

    Attributes:
        multi_step: these take `steps` steps in one multi-step decode.
        steps: 0 if there are none.
        single_step: these take one step, in one `forward`. Sequences in neither list pause.
    """

    multi_step: list[SlotState]
    steps: int
    single_step: list[SlotState]


class ForwardPlan(NamedTuple):
    """What one `forward` reads.

    Attributes:
        runs: the ids of each slot.
        decoding: sequences whose run is their last character alone, so that draft tokens may follow it.
        unused_budget: ids of prompts that could have been read too.
    """

    runs: dict[int, list[int]]
    decoding: list[SlotState]
    unused_budget: int


class Scheduler:
    """Owns the slots of a backend, and the order in which their sequences are served.

    `slot_states` is in that order: who has waited longest comes first.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.slot_states: dict[TextSequence, SlotState] = {}
        self._free = list(range(backend.slots))

    @property
    def free_slots(self) -> int:
        """How many sequences can be added."""
        return len(self._free)

    def add(self, sequence: TextSequence) -> None:
        """Give the sequence an empty slot, with the end of its prompt to be read.

        Raises:
            IndexError: no slot is free.
        """
        slot = self._free.pop(0)
        self.backend.truncate(slot)
        unread = sequence.context(self.backend.config.block_size)
        self.slot_states[sequence] = SlotState(sequence, slot, unread)

    def remove(self, sequence: TextSequence) -> None:
        """Free the sequence's slot, if it still has one."""
        state = self.slot_states.pop(sequence, None)
        if state is not None:
            self._free.append(state.slot)
            self._free.sort()  # low slots are taken first: `EagerBackend` computes neighbouring slots together

    def reset(self) -> None:
        """Remove all sequences."""
        self.slot_states.clear()
        self._free = list(range(self.backend.slots))

    def plan_step(self, states: list[SlotState]) -> StepPlan:
        """Share the sequences of a step out between multi-step decode and one `forward`."""
        all_single_step = StepPlan([], 0, states)
        multi_step = self.backend.multi_step
        if multi_step is None:
            return all_single_step
        ready: list[SlotState] = []
        others: list[SlotState] = []
        for state in states:
            if self._is_ready_for_multi_step(state):
                ready.append(state)
            else:
                others.append(state)
        if not ready or (others and not multi_step.decodes_separately):
            return all_single_step
        if not all(state.sequence.written for state in ready):
            # Somebody waits for a first character, which should not come several steps late.
            return StepPlan(ready, 1, others) if multi_step.decodes_separately else all_single_step
        plan = multi_step.plan_decode(len(ready))
        if plan.steps == 0:
            return all_single_step
        decoding = ready[: plan.sequences]
        if len(decoding) < len(ready):
            for state in decoding:
                self._move_to_back(state)  # the rest comes first in the next step
        steps = min(plan.steps, MAX_STEPS_BESIDE_FORWARD) if others else plan.steps
        return StepPlan(decoding, steps, others)

    def plan_forward(self, states: list[SlotState]) -> ForwardPlan:
        """Take from each sequence what its slot reads next: its last character, or a chunk of its prompt.

        Prompts are read up to the backend's budget, so that they do not hold up sequences that decode; the last of
        them may exceed it. Where a chunk ends may be seen in the last bits of its logits, so that must depend on no
        other sequence: a chunk is cut at `prefill_chunk`, never at what is left of the budget.
        """
        backend = self.backend
        budget = backend.prefill_budget
        runs: dict[int, list[int]] = {}
        decoding: list[SlotState] = []
        for state in states:
            if room_left(backend, state.slot) == 0:
                self._begin_window_again(state)
            if len(state.unread) == 1:
                runs[state.slot] = state.unread
                state.unread = []
                decoding.append(state)
            elif budget > 0:
                end = min(backend.prefill_chunk, len(state.unread) - self._left_to_multi_step(state))
                runs[state.slot] = state.unread[:end]
                state.unread = state.unread[end:]
                budget -= end
        return ForwardPlan(runs, decoding, budget)

    def _is_ready_for_multi_step(self, state: SlotState) -> bool:
        """True if only its last character is unread, and every character of the vocabulary may be drawn."""
        has_room = room_left(self.backend, state.slot) > 0
        return len(state.unread) == 1 and state.sequence.draws_unfiltered and has_room

    def _left_to_multi_step(self, state: SlotState) -> int:
        """How many ids of a prompt are left unread: its last, where multi-step decode will draw from its logits."""
        multi_step = self.backend.multi_step
        if multi_step is not None and multi_step.decodes_separately and state.sequence.draws_unfiltered:
            return 1
        return 0

    def _begin_window_again(self, state: SlotState) -> None:
        """Empty a full slot of learned positions, and have the newer half of its window read again as a prompt.

        A cached key holds its learned position, so the window cannot roll as a rotary ring does: nothing can be
        moved to a lower position without computing it anew. Half of the window is kept, so that each character is
        read about twice. The slot waits behind those that have waited longer: when it went first, prompts that had
        not been read at all starved.
        """
        self.backend.truncate(state.slot)
        state.unread = state.sequence.context(self.backend.config.block_size // 2)
        self._move_to_back(state)

    def _move_to_back(self, state: SlotState) -> None:
        self.slot_states[state.sequence] = self.slot_states.pop(state.sequence)
