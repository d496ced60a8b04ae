"""What a step reads: with a backend that computes nothing, so that only the plan counts."""

from collections.abc import Mapping, Sequence

import pytest

from model.backends.base import DecodeInput, DecodeOutput, DecodePlan, MultiStepDecode, StepCosts
from model.config import GPTConfig
from model.generation.scheduler import MAX_STEPS_BESIDE_FORWARD, Scheduler
from model.generation.sequence import TextSequence
from model.sampling.sampler import Logits, Sampling
from tests.tiny import LEARNED, ROTARY, VOCABULARY

SLOTS = 4
CHUNK = 8


class PlannedBackend:
    """A backend whose slots have lengths only."""

    prefill_chunk = CHUNK
    prefill_budget = CHUNK + 1
    speculation: StepCosts | None = None

    def __init__(self, config: GPTConfig, multi_step: MultiStepDecode | None = None) -> None:
        self.config = config
        self.slots = SLOTS
        self.multi_step = multi_step
        self.lengths = [0] * SLOTS

    def length(self, slot: int) -> int:
        return self.lengths[slot]

    def truncate(self, slot: int, length: int = 0) -> None:
        self.lengths[slot] = length

    def reset(self) -> None:
        self.lengths = [0] * SLOTS

    def forward(self, runs: Mapping[int, Sequence[int]]) -> dict[int, Logits]:
        for slot, ids in runs.items():
            self.lengths[slot] += len(ids)
        return {}


class PlannedDecode:
    """A multi-step decode for at most two sequences, of 20 steps."""

    def __init__(self, decodes_separately: bool) -> None:
        self.decodes_separately = decodes_separately

    def plan_decode(self, ready: int) -> DecodePlan:
        return DecodePlan(min(ready, 2), 20)

    def decode(self, inputs: Sequence[DecodeInput], steps: int, speculate: bool) -> list[DecodeOutput]:
        raise AssertionError("only planned")


def make_sequence(prompt_length: int, sampling: Sampling | None = None, written: int = 0) -> TextSequence:
    sequence = TextSequence(VOCABULARY, [3] * prompt_length, sampling or Sampling())
    sequence.written += [5] * written
    return sequence


def scheduler_of(backend: PlannedBackend, sequences: Sequence[TextSequence]) -> Scheduler:
    scheduler = Scheduler(backend)
    for sequence in sequences:
        scheduler.add(sequence)
    return scheduler


def test_a_prompt_is_cut_at_the_chunk_never_at_what_is_left_of_the_budget() -> None:
    """So its logits do not depend on what other prompts there are; the last one exceeds the budget instead."""
    backend = PlannedBackend(ROTARY)
    scheduler = scheduler_of(backend, [make_sequence(12), make_sequence(12), make_sequence(12)])
    plan = scheduler.plan_forward(list(scheduler.slot_states.values()))
    assert {slot: len(run) for slot, run in plan.runs.items()} == {0: CHUNK, 1: CHUNK}
    assert plan.decoding == []
    assert plan.unused_budget < 0


def test_last_characters_are_read_beside_prompts_and_take_none_of_their_budget() -> None:
    backend = PlannedBackend(ROTARY)
    scheduler = scheduler_of(backend, [make_sequence(1), make_sequence(5), make_sequence(1)])
    plan = scheduler.plan_forward(list(scheduler.slot_states.values()))
    assert {slot: len(run) for slot, run in plan.runs.items()} == {0: 1, 1: 5, 2: 1}
    assert [state.slot for state in plan.decoding] == [0, 2]
    assert plan.unused_budget == backend.prefill_budget - 5


def test_a_full_window_of_learned_positions_is_read_again_by_its_newer_half() -> None:
    backend = PlannedBackend(LEARNED)
    full = make_sequence(2, written=30)
    other = make_sequence(1)
    scheduler = scheduler_of(backend, [full, other])
    state = scheduler.slot_states[full]
    state.unread = full.context(1)
    backend.lengths[state.slot] = LEARNED.block_size
    plan = scheduler.plan_forward([state])
    assert backend.lengths[state.slot] == 0
    assert plan.runs[state.slot] == full.context(LEARNED.block_size // 2)
    assert list(scheduler.slot_states) == [other, full]  # it waits behind who has waited longer


@pytest.mark.parametrize("separately", [False, True])
def test_sequences_that_are_ready_decode_without_those_that_read_prompts_only_where_the_backend_wants_it(
    separately: bool,
) -> None:
    sequences = [make_sequence(1, Sampling(top_k=None), written=1), make_sequence(5)]
    backend = PlannedBackend(ROTARY, PlannedDecode(separately))
    scheduler = scheduler_of(backend, sequences)
    ready, reading = scheduler.slot_states.values()
    ready.unread = [5]
    plan = scheduler.plan_step([ready, reading])
    if separately:
        assert plan == ([ready], MAX_STEPS_BESIDE_FORWARD, [reading])
    else:
        assert plan == ([], 0, [ready, reading])


def test_who_waits_for_its_first_character_gets_it_in_one_step() -> None:
    sequences = [make_sequence(1), make_sequence(1)]
    backend = PlannedBackend(ROTARY, PlannedDecode(decodes_separately=True))
    scheduler = scheduler_of(backend, sequences)
    states = list(scheduler.slot_states.values())
    assert scheduler.plan_step(states) == (states, 1, [])


def test_of_more_sequences_than_fit_others_come_next() -> None:
    sequences = [make_sequence(1, written=1) for _ in range(3)]
    scheduler = scheduler_of(PlannedBackend(ROTARY, PlannedDecode(decodes_separately=True)), sequences)
    states = list(scheduler.slot_states.values())
    for state in states:
        state.unread = [5]
    assert scheduler.plan_step(states).multi_step == states[:2]
    assert list(scheduler.slot_states) == [sequences[2], sequences[0], sequences[1]]


def test_a_filtered_sequence_is_never_decoded_for_several_steps() -> None:
    sequence = make_sequence(1, Sampling(top_k=3), written=1)
    scheduler = scheduler_of(PlannedBackend(ROTARY, PlannedDecode(decodes_separately=True)), [sequence])
    [state] = scheduler.slot_states.values()
    state.unread = [5]
    assert scheduler.plan_step([state]) == ([], 0, [state])


def test_low_slots_are_taken_first() -> None:
    sequences = [make_sequence(1) for _ in range(3)]
    scheduler = scheduler_of(PlannedBackend(ROTARY), sequences)
    scheduler.remove(sequences[1])
    scheduler.remove(sequences[0])
    scheduler.remove(sequences[0])  # it has left already
    assert scheduler.free_slots == 3
    late = make_sequence(1)
    scheduler.add(late)
    assert scheduler.slot_states[late].slot == 0
