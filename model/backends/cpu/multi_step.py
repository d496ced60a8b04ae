"""Multi-step decode, compiled: each step proposes draft tokens where they pay, and draws from the logits.

What comes out is what the generator would have drawn from the same logits with the same noise, one step at a time;
why draft tokens do not change that is said in `model/generation/speculation.py`, whose rules these are.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.arithmetic import Doubles
from model.backends.cpu.buffers import Floats, Indices
from model.backends.cpu.step_costs import CostCurve, further_row_cost, step_cost
from model.jit import kernel_jit
from model.sampling.kernels import draw_one
from model.sampling.ngram_kernels import propose_one

CONTEXT = 16  # ids that are kept to propose with


class DecodeState(NamedTuple):
    """Up to S sequences that decode, and P places for what they draw: sequence s has those from s · stride on."""

    slots: Indices  # (S,)
    positions: Indices  # (S,): ids in the slot before the first step
    last_ids: Indices  # (S,): the id to read next
    contexts: Indices  # (S, CONTEXT): it and those before it, -1 first where the text is shorter
    counts: Indices  # (S,): ids drawn
    limits: Indices  # (S,): ids that may be
    temperatures: Doubles  # (S,)
    noise: Doubles  # (P, V)
    ids: Indices  # (P,): drawn
    logits: Floats  # (P, V): each id was drawn from


class Speculation(NamedTuple):
    """How to propose draft tokens; see `Draft` and `StepCosts`."""

    keys: Indices  # (N,)
    surprisal: NDArray[np.uint8]  # (N, V)
    max_context: int  # in the table, CONTEXT at most
    nats_per_unit: float  # of surprisal
    margin_slope: float
    max_draft_tokens: int  # in a run; 0 without a table
    max_break_even: float


def make_decode_state(sequences: int, places: int, vocab_size: int) -> DecodeState:
    """Room for so many."""
    return DecodeState(
        slots=np.zeros(sequences, dtype=np.int64),
        positions=np.zeros(sequences, dtype=np.int64),
        last_ids=np.zeros(sequences, dtype=np.int64),
        contexts=np.zeros((sequences, CONTEXT), dtype=np.int64),
        counts=np.zeros(sequences, dtype=np.int64),
        limits=np.zeros(sequences, dtype=np.int64),
        temperatures=np.zeros(sequences),
        noise=np.zeros((places, vocab_size)),
        ids=np.zeros(places, dtype=np.int64),
        logits=np.zeros((places, vocab_size), dtype=np.float32),
    )


@kernel_jit(allocates=True)
def propose_rows(
    state: DecodeState,
    sequences: int,
    stride: int,
    speculation: Speculation,
    curve: CostCurve,
    rows: Indices,
    ends: Indices,
) -> int:
    """Write the rows of the next `forward`: the last id of each sequence that may go on, and its draft tokens.

    Args:
        curve: what steps cost.
        rows: (3, …) slots, positions and ids.
        ends: where each sequence's run of rows ends.
    Returns:
        How many runs there are.
    """
    going_on = 0
    for s in range(sequences):
        if state.counts[s] < state.limits[s]:
            going_on += 1
    if going_on == 0:
        return 0
    expected = float(going_on)  # characters that this step gives, and what it costs
    cost = step_cost(curve, going_on, going_on)
    planned_rows = going_on
    end = 0
    runs = 0
    for s in range(sequences):
        count = state.counts[s]
        if count == state.limits[s]:
            continue
        slot = state.slots[s]
        position = state.positions[s] + count
        temperature = state.temperatures[s]
        rows[0, end] = slot
        rows[1, end] = position
        rows[2, end] = state.last_ids[s]
        end += 1
        context = state.contexts[s, CONTEXT - speculation.max_context :].copy()
        all_accepted = 1.0  # the probability of it
        for i in range(min(speculation.max_draft_tokens, state.limits[s] - count - 1)):
            further_row = further_row_cost(curve, planned_rows, going_on)
            break_even = further_row * expected / cost
            if i == 0 and break_even > speculation.max_break_even:
                break
            token, probability = propose_one(
                speculation.keys,
                speculation.surprisal,
                context,
                state.noise[s * stride + count + i],
                speculation.nats_per_unit,
                temperature,
                speculation.margin_slope,
            )
            all_accepted *= probability
            if all_accepted < break_even:
                break
            rows[0, end] = slot
            rows[1, end] = position + 1 + i
            rows[2, end] = token
            end += 1
            planned_rows += 1
            cost += further_row
            expected += all_accepted
        ends[runs] = end
        runs += 1
    return runs


@kernel_jit(allocates=True)
def draw_rows(
    state: DecodeState, sequences: int, stride: int, rows: Indices, ends: Indices, logits: Floats
) -> None:
    """Draw from the logits of the rows that `propose_rows` wrote, up to the first id that is no draft token."""
    row = 0
    run = 0
    for s in range(sequences):
        if state.counts[s] == state.limits[s]:
            continue
        end = ends[run]
        run += 1
        while True:
            place = s * stride + state.counts[s]
            chosen = draw_one(logits[row], state.temperatures[s], state.noise[place])
            state.ids[place] = chosen
            state.last_ids[s] = chosen
            for i in range(logits.shape[1]):  # Numba compiles an assignment of arrays for four seconds
                state.logits[place, i] = logits[row, i]
            state.counts[s] += 1
            for i in range(CONTEXT - 1):
                state.contexts[s, i] = state.contexts[s, i + 1]
            state.contexts[s, CONTEXT - 1] = chosen
            row += 1
            if row == end or rows[2, row] != chosen:
                break
        row = end
