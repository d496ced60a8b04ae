"""Draft tokens: how many are worth their cost, and which of them are accepted.

Why a draft never changes a text: the network reads the last character and n draft tokens in one `forward`, which
gives a row of logits after each. Row 0 follows the text itself, so what is drawn from it is the text's next
character. Row i follows the text and draft tokens 1 to i; what is drawn from it belongs to the text only if the
rows before it drew exactly these tokens. So an id is drawn from every row, with the noise of its own position, and
the ids are kept up to the first that differs from its draft token; that one is kept too. The rest is dropped, and
their keys and values are removed from the cache. A draft decides how many characters a step gives, never which.

The draft draws with the same Gumbel noise as the network will, not with noise of its own: where the two
distributions are near each other, the same candidate mostly wins in both.

The same rules, compiled, are in `backends/cpu/multi_step.py` and `backends/cuda/drawing.py`.
"""

from collections.abc import Sequence

from model.backends.base import Backend, StepCosts, room_left
from model.generation.scheduler import ForwardPlan
from model.generation.slot_state import SlotState
from model.sampling.ngram_draft import MAX_BREAK_EVEN, Draft


def max_draft_tokens(costs: StepCosts | None, sequences: int) -> int:
    """How many draft tokens each of so many decoding sequences may have; 0 where even the first does not pay.

    Without draft tokens a step gives `sequences` characters. What it costs makes the break-even of the first draft
    token (see `propose_draft_tokens`), which must not be above MAX_BREAK_EVEN.
    """
    if costs is None:
        return 0
    further_row = costs.further_row(sequences, sequences)
    worthwhile = sequences * further_row <= MAX_BREAK_EVEN * costs.cost(sequences, sequences)
    return costs.max_draft_tokens if worthwhile else 0


def propose_draft_tokens(backend: Backend, draft: Draft, plan: ForwardPlan) -> dict[int, list[int]]:
    """Draft tokens by slot, for sequences that draw their ids: as long as one more makes a character cheaper.

    A step costs `cost` and is expected to give `expected` characters. One more draft token adds its own cost to the
    one, and to the other the probability that it and all before it are accepted. That pays as long as this
    probability is above break-even: the token's cost divided by what a character costs on average.
    """
    costs = backend.speculation
    if costs is None:
        return {}
    drawing = [state for state in plan.decoding if state.sequence.given is None]
    expected = float(len(drawing))
    slots = len(plan.runs)
    rows = sum(map(len, plan.runs.values()))
    cost = costs.cost(rows, slots) if slots else 0.0
    proposed: dict[int, list[int]] = {}
    for state in drawing:
        limit = min(costs.max_draft_tokens, _room_for_more(backend, state))
        further_row = costs.further_row(rows, slots)
        if limit < 1 or further_row * expected > MAX_BREAK_EVEN * cost:
            continue
        sequence = state.sequence
        context = sequence.context(draft.max_context)
        tokens, probabilities = draft.propose(context, sequence.noise(limit), sequence.sampling.temperature)
        chosen: list[int] = []
        all_accepted = 1.0  # the probability that this token and all before it are
        for token, probability in zip(tokens, probabilities, strict=True):
            all_accepted *= probability
            further_row = costs.further_row(rows, slots)
            if all_accepted * cost < further_row * expected:
                break
            chosen.append(token)
            rows += 1
            cost += further_row
            expected += all_accepted
        proposed[state.slot] = chosen
    return proposed


def take_given_ids(backend: Backend, plan: ForwardPlan) -> dict[int, list[int]]:
    """The next ids by slot, for sequences whose text is given: to be read like draft tokens that are all accepted.

    All of them together take no more of the step's budget than its prompts have left.
    """
    if backend.speculation is None:
        return {}
    taken: dict[int, list[int]] = {}
    budget = plan.unused_budget
    for state in plan.decoding:
        if state.sequence.given is None:
            continue
        limit = min(budget, backend.prefill_chunk - 1, _room_for_more(backend, state))
        taken[state.slot] = state.sequence.next_given(max(0, limit))
        budget -= len(taken[state.slot])
    return taken


def count_accepted(draft_tokens: Sequence[int], drawn: Sequence[int]) -> int:
    """How many draft tokens, counted up to the first that differs, are what was drawn in their place."""
    for index, token in enumerate(draft_tokens):
        if token != drawn[index]:
            return index
    return len(draft_tokens)


def _room_for_more(backend: Backend, state: SlotState) -> int:
    """How many ids may be read behind the last character, which itself gives one character and takes one place."""
    return min(state.sequence.remaining - 1, room_left(backend, state.slot) - 1)
