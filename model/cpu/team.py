"""Threads that compute a step together. Each runs one compiled call, in which it waits for its turns."""

import weakref
from collections.abc import Sequence
from threading import Thread
from typing import Any

import numba
import numpy as np
from numba import types
from numba.experimental import structref

from model.cpu.compiled import compile_and_call
from model.cpu.kernel import forward
from model.cpu.layout import (
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
from model.cpu.meeting import Link, await_call, call, close_links, dismiss, make_links, meet

MEMBERS = 3  # in an order: first row, end, parts that each row is cut into, members that take part


_FIELDS = ["shape", "weights", "cache", "scratch", "results", "shared", "orders", "rows", "logits", "link"]
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
    logits: Floats,
    link: Link,
) -> Any:
    """To be compiled."""
    return _new_member(shape, weights, cache, scratch, results, shared, orders, rows, logits, link)


@numba.njit(nogil=True, error_model="numpy")
def _compute(m: Any) -> None:
    """The member's part of a step; at its end all parts are there."""
    first, last, parts, members = m.orders[m.link.me]
    results = m.shared if parts > 1 else m.results
    for start in range(first, last, MAX_ROWS):
        end = min(start + MAX_ROWS, last)
        slots, positions, tokens = m.rows[0, start:end], m.rows[1, start:end], m.rows[2, start:end]
        logits = m.logits[start:end]
        forward(m.shape, m.weights, m.cache, m.scratch, results, slots, positions, tokens, logits, m.link, parts)
    meet(m.link, members)


def work(m: Any) -> None:
    """Compute a step with the others (member 0), or one at each call until `dismiss` (all others)."""
    if m.link.me == 0:
        for member in range(1, m.orders[0, MEMBERS]):
            call(m.link, member)
    calls = 0
    while True:
        if m.link.me > 0:
            await_call(m.link, calls)
            calls += 1
            if m.orders[m.link.me, MEMBERS] == 0:
                break
        _compute(m)
        if m.link.me == 0:
            break


class Team:
    """Threads with the memory that they work with; the caller of `compute` is the first of them."""

    def __init__(self, shape: Shape, weights: Weights, cache: Cache, members: int, rows: int) -> None:
        self.members = members
        self._orders = np.zeros((members, 4), dtype=np.int64)
        self._rows = np.zeros((3, rows), dtype=np.int64)
        self._logits = np.zeros((rows, len(weights.tokens)), dtype=np.float32)
        shared, links = make_results(weights), make_links(members)
        memory = [
            (
                *(shape, weights, cache, make_scratch(weights, cache, shape.head_size), make_results(weights)),
                *(shared, self._orders, self._rows, self._logits, link),
            )
            for link in links
        ]
        make = compile_and_call(make_member, *memory[0])
        self._first, *others = [make(*one) for one in memory]
        self._orders[0] = 0, 1, 1, 1
        self._work = compile_and_call(work, self._first)
        threads = [
            Thread(target=self._work, args=(member,), name=f"kernel-{number}", daemon=True)
            for number, member in enumerate(others, start=1)
        ]
        for thread in threads:
            thread.start()
        weakref.finalize(self, _close, self._orders, links, threads)

    def compute(self, rows: Sequence[Sequence[int]], ends: Sequence[int], parts: int) -> Floats:
        """The logits (n, V) after each of the rows (3, n): slots, positions, tokens.

        With one part, each member computes whole rows, up to its end among `ends`; with more, so many members
        compute all rows, each a part of the network.
        """
        members = max(len(ends), parts)
        self._rows[:, : ends[-1]] = rows
        firsts = [0, *ends]
        self._orders[:members] = [
            (0, ends[-1], parts, members) if parts > 1 else (firsts[member], ends[member], 1, members)
            for member in range(members)
        ]
        self._work(self._first)
        return self._logits[: ends[-1]].copy()


def _close(orders: Indices, links: list[Link], threads: list[Thread]) -> None:
    """Let the threads end."""
    orders[:] = 0
    dismiss(links)
    for thread in threads:
        thread.join()
    close_links(links)
