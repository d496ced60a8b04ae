"""Draft tokens: how many are worth their cost, and which of them stand.

Why a draft never changes a text: the network reads the last character and n draft tokens in one `forward`, which
gives the logits after each. Row 0 follows the text itself, so what is drawn from it is the text's next character.
Row i follows draft tokens 1 to i besides; what is drawn from it is the text's only if the rows before it drew just
these tokens. So an id is drawn from every row, with the noise of its own position, and ids are kept up to and with
the first that differs from its draft token. The rest is dropped, and their keys and values are truncated. A draft
decides how many characters a step gives, never which.

The draft draws with the same Gumbel noise as the network will, not with noise of its own: where the two
distributions are near each other, the same candidate mostly wins in both.

The same rules, compiled, are in `backends/cpu/multi_step.py` and `backends/cuda/drawing.py`.
"""

from collections.abc import Sequence

from model.backends.base import Backend, SpeculationCosts, room_left
from model.generation.scheduler import ForwardPlan
from model.generation.slot_state import SlotState
from model.sampling.ngram_draft import MAX_BREAK_EVEN, Draft


def max_draft_tokens(costs: SpeculationCosts | None, sequences: int) -> int:
    """Draft tokens for each of so many sequences that all decode; 0 where they would have to be too sure."""
    if costs is None:
        return 0
    worthwhile = sequences * costs.draft_token <= MAX_BREAK_EVEN * (sequences + costs.call)
    return costs.max_draft_tokens if worthwhile else 0


def propose_draft_tokens(backend: Backend, draft: Draft, plan: ForwardPlan) -> dict[int, list[int]]:
    """Draft tokens of each slot whose sequence draws, while one more makes a character cheaper on average.

    A step costs `cost` and is expected to give `expected` characters. One more draft token adds its own cost, and
    the probability that it and all before it are accepted. That pays as long as the probability is above
    break-even: the token's cost, in characters of the average cost.
    """
    costs = backend.speculation
    if costs is None:
        return {}
    drawing = [state for state in plan.decoding if state.sequence.given is None]
    expected = float(len(drawing))
    cost = costs.call + sum(1 + costs.draft_token * (len(run) - 1) for run in plan.runs.values())
    proposed: dict[int, list[int]] = {}
    for state in drawing:
        limit = min(costs.max_draft_tokens, _room_for_more(backend, state))
        if limit < 1 or costs.draft_token * expected / cost > MAX_BREAK_EVEN:
            continue
        sequence = state.sequence
        context = sequence.context(draft.max_context)
        tokens, probabilities = draft.propose(context, sequence.noise(limit), sequence.sampling.temperature)
        chosen: list[int] = []
        all_accepted = 1.0
        for token, probability in zip(tokens, probabilities, strict=True):
            all_accepted *= probability
            if all_accepted < costs.draft_token * expected / cost:
                break
            chosen.append(token)
            cost += costs.draft_token
            expected += all_accepted
        proposed[state.slot] = chosen
    return proposed


def take_given_ids(backend: Backend, plan: ForwardPlan) -> dict[int, list[int]]:
    """The next ids of each slot whose text is given, to be read like draft tokens, all of which are right.

    They take what prompts have left of the budget.
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
    """How many draft tokens are what was drawn in their place, up to the first that is not."""
    for index, token in enumerate(draft_tokens):
        if token != drawn[index]:
            return index
    return len(draft_tokens)


def _room_for_more(backend: Backend, state: SlotState) -> int:
    """How many ids may be read behind the last character: each gives one more, and takes room in the slot."""
    return min(state.sequence.remaining - 1, room_left(backend, state.slot) - 1)
