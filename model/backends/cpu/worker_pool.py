"""Threads that compute a step together. Each runs one compiled call, in which it waits for its turns."""

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from threading import Thread
from typing import Any

import numba
import numpy as np
from numba import types
from numba.experimental import structref

from model.backends.base import NOT_FINITE, DecodeInput
from model.backends.cpu.barrier import Link, await_call, be_patient, call, close_links, delays, make_links, meet
from model.backends.cpu.buffers import (
    CHUNK,
    MAX_ROWS,
    Cache,
    Floats,
    Indices,
    Results,
    Scratch,
    Shape,
    Weights,
    make_results,
    make_scratch,
)
from model.backends.cpu.forward import forward
from model.backends.cpu.multi_step import (
    CONTEXT,
    DecodeState,
    Speculation,
    draw_rows,
    make_decode_state,
    propose_rows,
)
from model.jit import compile_and_call

# In an order: first row, end, parts that each row is cut into, members that take part. The first member's also has
# the steps for which rows are not cut, and for how many they were last time. That is after a step with more than
# MAX_DELAYS in meetings for each other member: if other programs keep the cores busy, each meeting waits until the
# system lets the last member go on. Each time that cutting them again is no better, they are left whole for longer.
FIRST, END, PARTS, MEMBERS, APART, PERIOD = range(6)
MAX_DELAYS, MIN_APART, MAX_APART = 4, 4, 64
PATIENCE = 5  # in meetings, while there is no such step; who sleeps has had more than MAX_DELAYS
DISMISS = -1
MAX_PLACES, MAX_NOISE = 2048, 1 << 18

# What a thread's work costs, in rows:
READ, READ_BY_AMX = 5.0, 10.5  # reading all weights once; by AMX, rows cost less
ALONE = 0.28  # of each row, what every thread does for itself where they compute it together

NO_SPECULATION = Speculation(np.zeros(1, np.int64), np.zeros((1, 1), np.uint8), 0, 1.0, 1.0, 0, 1.0, 1.0, 0.0)

_FIELDS = [
    "shape",
    "weights",
    "cache",
    "scratch",
    "results",
    "shared",
    "orders",
    "rows",
    "ends",
    "logits",
    "link",
    "ahead",
]
_structref: Any = structref


@_structref.register
class _MemberType(types.StructRef):
    """Many arrays as one argument: Numba takes half a microsecond for each that it is given."""

    def preprocess_fields(self, fields: Any) -> Any:
        unliteral: Any = types.unliteral
        return tuple((name, unliteral(kind)) for name, kind in fields)


class _Member(structref.StructRefProxy):
    """What one thread works with."""


_structref.define_proxy(_Member, _MemberType, _FIELDS)
_new_member: Any = _Member


def make_member(
    shape: Shape,
    weights: Weights,
    cache: Cache,
    scratch: Scratch,
    results: Results,
    shared: Results,
    orders: Indices,
    rows: Indices,
    ends: Indices,
    logits: Floats,
    link: Link,
    ahead: DecodeState,
) -> Any:
    """To be compiled."""
    return _new_member(shape, weights, cache, scratch, results, shared, orders, rows, ends, logits, link, ahead)


@numba.njit(inline="always")
def _compute(m: Any) -> None:
    """The member's part of a step; at its end all parts are there."""
    first, last, parts, members = m.orders[m.link.me, : MEMBERS + 1]
    results = m.shared if parts > 1 else m.results
    for start in range(first, last, MAX_ROWS):
        end = min(start + MAX_ROWS, last)
        slots, positions, tokens = m.rows[0, start:end], m.rows[1, start:end], m.rows[2, start:end]
        logits = m.logits[start:end]
        forward(m.shape, m.weights, m.cache, m.scratch, results, slots, positions, tokens, logits, m.link, parts)
    meet(m.link, members, parts > 1)  # whole rows are not done at the same time: others can use the core meanwhile


@numba.njit(nogil=True, error_model="numpy")
def _order(order: Indices, first: int, end: int, parts: int, members: int) -> None:
    order[FIRST], order[END], order[PARTS], order[MEMBERS] = first, end, parts, members


@numba.njit(nogil=True, error_model="numpy")
def _deal(orders: Indices, shape: Shape, ends: Indices, runs: int, crowded: bool) -> int:
    """Order what is fastest: each thread computes some of the runs, which end at `ends`; or some compute all rows
    together, each a part of every layer, unless it is too `crowded`. Returns how many members take part.
    """
    rows, longest, parts = ends[runs - 1], 0, min(len(orders), shape.heads)
    for run in range(runs):
        longest = max(longest, ends[run] - (ends[run - 1] if run else 0))
    together = rows * (ALONE + (1 - ALONE) / parts)
    if (
        parts > 1
        and not crowded
        and together < max(READ_BY_AMX if shape.tiles else READ, longest, rows / len(orders))
    ):
        for member in range(parts):
            _order(orders[member], 0, rows, parts, parts)
        return parts
    members, run, first = min(len(orders), runs), 0, 0
    for member in range(members):
        fair, end = rows * (member + 1) / members, first
        while run < runs and abs(ends[run] - fair) <= abs(end - fair):
            end = ends[run]
            run += 1
        _order(orders[member], first, end, 1, members)
        first = end
    return members


@numba.njit(nogil=True, error_model="numpy")
def _judge(link: Link, order: Indices, late: int) -> None:
    """Whether rows that were cut, with so many delays in meetings, shall be cut again. The last meeting's may be
    told too late, and count in the next step.
    """
    crowded = late > MAX_DELAYS * (order[PARTS] - 1)
    order[PERIOD] = min(MAX_APART, max(MIN_APART, 2 * order[PERIOD])) if crowded else 0
    order[APART] = order[PERIOD]
    be_patient(link, 1 if crowded else PATIENCE)


def work(m: Any, runs: int, steps: int, streams: int, stride: int, speculation: Speculation) -> None:
    """Compute with the others a step of the `runs` that are there, or `steps` of some streams ahead, or dismiss the
    others (member 0, `DISMISS` steps); or compute one step at each call until dismissed (the others).
    """
    calls, before = 0, 0
    while True:
        if m.link.me == 0:
            if steps == DISMISS:
                for member in range(1, len(m.orders)):
                    _order(m.orders[member], 0, 0, 0, 0)
                    call(m.link, member)
            if steps > 0 and streams:
                runs = propose_rows(m.ahead, streams, stride, speculation, m.rows, m.ends)
            if steps <= 0 or runs == 0:
                break
            crowded, before = m.orders[0, APART] > 0, delays(m.link)
            m.orders[0, APART] -= crowded
            for member in range(1, _deal(m.orders, m.shape, m.ends, runs, crowded)):
                call(m.link, member)
        else:
            await_call(m.link, calls)
            if m.orders[m.link.me, MEMBERS] == 0:
                break
        calls += 1
        steps -= 1
        _compute(m)
        if m.link.me == 0 and m.orders[0, PARTS] > 1:
            _judge(m.link, m.orders[0], delays(m.link) - before)
        if m.link.me == 0 and streams:
            draw_rows(m.ahead, streams, stride, m.rows, m.ends, m.logits)


class Team:
    """Threads with the memory that they work with; the caller of `compute` or `write` is the first of them.

    Attributes:
        places: ids that one call of `write` can hold.
    """

    def __init__(self, shape: Shape, weights: Weights, cache: Cache, members: int, slots: int) -> None:
        vocab_size = len(weights.tokens)
        self.places = max(1, min(MAX_PLACES, MAX_NOISE // vocab_size))
        self._orders = np.zeros((members, PERIOD + 1), dtype=np.int64)
        self._rows, self._ends = np.zeros((3, slots * CHUNK), dtype=np.int64), np.zeros(slots, dtype=np.int64)
        self._logits = np.zeros((slots * CHUNK, vocab_size), dtype=np.float32)
        self._ahead = make_decode_state(slots, self.places, vocab_size)
        shared, links = make_results(weights), make_links(members)
        memory = [
            (
                *(shape, weights, cache, make_scratch(weights, cache, shape.head_size), make_results(weights)),
                *(shared, self._orders, self._rows, self._ends, self._logits, link, self._ahead),
            )
            for link in links
        ]
        threads: list[Thread] = []
        ends: list[Callable[[], None]] = []  # how the threads are dismissed, once there are any
        weakref.finalize(self, _close, links, threads, ends).atexit = False  # a step may go on until the very end
        make = compile_and_call(make_member, *memory[0])
        self._first, *others = [make(*one) for one in memory]
        self._work = compile_and_call(work, self._first, 0, 0, 0, 0, NO_SPECULATION)
        ends.append(partial(self._work, self._first, 0, DISMISS, 0, 0, NO_SPECULATION))
        for number, member in enumerate(others, start=1):
            thread = Thread(
                target=self._work, args=(member, 0, 0, 0, 0, NO_SPECULATION), name=f"kernel-{number}", daemon=True
            )
            thread.start()
            threads.append(thread)

    def compute(self, rows: Sequence[Sequence[int]], ends: Sequence[int]) -> Floats:
        """The logits (n, V) after each of the rows (3, n): slots, positions, tokens, in runs that end at `ends`."""
        self._rows[:, : ends[-1]] = rows
        self._ends[: len(ends)] = ends
        self._work(self._first, len(ends), 1, 0, 0, NO_SPECULATION)
        return self._logits[: ends[-1]].copy()

    def write(
        self, writings: Sequence[tuple[DecodeInput, int, int]], steps: int, speculation: Speculation
    ) -> list[tuple[list[int], Floats]]:
        """What each stream writes in these steps, and the logits (n, V) that each id was drawn from.

        Args:
            writings: streams, the characters in their slots, and how many more these can hold.
        Raises:
            FloatingPointError: a logit is not finite.
        """
        ahead, stride = self._ahead, self.places // len(writings)
        for s, (one, length, most) in enumerate(writings):
            count = min(stride, one.max_tokens)
            ahead.slots[s], ahead.positions[s], ahead.last_ids[s] = one.slot, length, one.context[-1]
            ahead.contexts[s] = -1
            ahead.contexts[s, -len(one.context) :] = one.context[-CONTEXT:]
            ahead.noise[s * stride :][:count] = one.gumbel_noise.at(one.position, count) if one.temperature else 0.0
            ahead.counts[s], ahead.limits[s], ahead.temperatures[s] = 0, min(count, most), one.temperature
        self._work(self._first, 0, steps, len(writings), stride, speculation)
        places = [
            slice(s * stride, s * stride + count) for s, count in enumerate(ahead.counts[: len(writings)].tolist())
        ]
        if not np.isfinite(np.concatenate([ahead.logits[place] for place in places])).all():
            raise FloatingPointError(NOT_FINITE)
        return [(ahead.ids[place].tolist(), ahead.logits[place].copy()) for place in places]


def _close(links: list[Link], threads: list[Thread], ends: list[Callable[[], None]]) -> None:
    """Let the threads end."""
    for end in ends:
        end()
    for thread in threads:
        thread.join()
    close_links(links)
