"""Some steps of streams that draw their own next characters, with guesses where they pay; compiled.

What comes out is what `Generator` would have drawn from the same logits with the same noise, one step at a time.
"""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from model.backends.cpu.buffers import Floats, Indices
from model.sampling.kernels import draw_one
from model.sampling.ngram_kernels import guess_one

Doubles = NDArray[np.float64]

CONTEXT = 16  # ids that are kept to guess with


class Ahead(NamedTuple):
    """Streams that write, up to S, and P places for what they write: stream s has those from s · stride on."""

    slots: Indices  # (S,)
    positions: Indices  # (S,): characters in the slot at first
    lasts: Indices  # (S,): the id to read next
    contexts: Indices  # (S, CONTEXT): it and those before it, -1 first where the text is shorter
    counts: Indices  # (S,): ids written
    limits: Indices  # (S,): ids that may be
    temperatures: Doubles  # (S,)
    noise: Doubles  # (P, V)
    ids: Indices  # (P,)
    logits: Floats  # (P, V): each id was drawn from


class Guessing(NamedTuple):
    """How to guess; see `Draft` and `Generator`."""

    keys: Indices  # (N,)
    surprise: NDArray[np.uint8]  # (N, V)
    longest: int  # context in the table
    nats: float  # in a unit of surprise
    certainty: float
    drafts: int  # in a run at most; 0 without a table
    call_cost: float
    guess_cost: float
    most_chance: float


def make_ahead(streams: int, places: int, vocab_size: int) -> Ahead:
    """Room for so many."""
    slots, positions, lasts, counts, limits = np.zeros((5, streams), dtype=np.int64)
    return Ahead(
        slots=slots,
        positions=positions,
        lasts=lasts,
        contexts=np.zeros((streams, CONTEXT), dtype=np.int64),
        counts=counts,
        limits=limits,
        temperatures=np.zeros(streams),
        noise=np.zeros((places, vocab_size)),
        ids=np.zeros(places, dtype=np.int64),
        logits=np.zeros((places, vocab_size), dtype=np.float32),
    )


@numba.njit(nogil=True, error_model="numpy")
def propose(a: Ahead, streams: int, stride: int, g: Guessing, rows: Indices, ends: Indices) -> int:
    """Write the rows (3, …) of each stream that may go on, its last id and guesses, and their ends; return how many
    runs they are.
    """
    going = 0
    for s in range(streams):
        going += a.counts[s] < a.limits[s]
    end, run, expected, cost = 0, 0, float(going), going + g.call_cost
    for s in range(streams):
        count = a.counts[s]
        if count == a.limits[s]:
            continue
        slot, position = a.slots[s], a.positions[s] + count
        rows[0, end], rows[1, end], rows[2, end] = slot, position, a.lasts[s]
        end += 1
        context, chance = a.contexts[s, CONTEXT - g.longest :].copy(), 1.0
        for i in range(min(g.drafts, a.limits[s] - count - 1)):
            if i == 0 and g.guess_cost * expected / cost > g.most_chance:
                break
            noise, temperature = a.noise[s * stride + count + i], a.temperatures[s]
            guess, right = guess_one(g.keys, g.surprise, context, noise, g.nats, temperature, g.certainty)
            chance *= right
            if chance < g.guess_cost * expected / cost:
                break
            rows[0, end], rows[1, end], rows[2, end] = slot, position + 1 + i, guess
            end, cost, expected = end + 1, cost + g.guess_cost, expected + chance
        ends[run] = end
        run += 1
    return run


@numba.njit(nogil=True, error_model="numpy")
def settle(a: Ahead, streams: int, stride: int, rows: Indices, ends: Indices, logits: Floats) -> None:
    """Draw from the logits of what `propose` wrote, up to the first id that was not guessed."""
    row, run = 0, 0
    for s in range(streams):
        if a.counts[s] == a.limits[s]:
            continue
        end = ends[run]
        run += 1
        while True:
            place = s * stride + a.counts[s]
            chosen = draw_one(logits[row], a.temperatures[s], a.noise[place])
            a.ids[place], a.lasts[s] = chosen, chosen
            a.logits[place] = logits[row]
            a.counts[s] += 1
            for i in range(CONTEXT - 1):
                a.contexts[s, i] = a.contexts[s, i + 1]
            a.contexts[s, CONTEXT - 1] = chosen
            row += 1
            if row == end or rows[2, row] != chosen:
                break
        row = end
