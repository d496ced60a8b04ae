"""What a step costs on this machine: a curve that is measured, kept on disk, and corrected by what steps take.

All decisions that only change the speed rest on it: how many draft tokens are worth their cost, whether rows are
sharded among the workers, and how much of a prompt is read at once. Constants of one machine were tried before, and
misled others: tuned with AMX, they made draft tokens cost a CPU with AVX2 a third of its speed.

The curve has a cost for some numbers of rows (`NODES`), between which it is interpolated, of two modes and for two
kinds of rows. The unit is a tick of the clock. What is read here, with the rows' own results, changes no text.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numpy.typing import NDArray

from model.jit import kernel_jit

Costs = NDArray[np.float64]  # (modes, kinds, nodes)

NODES = (1, 2, 4, 8, 16, 32, 64)  # rows
MEASURED_NODES = NODES[:-1]  # the last is extrapolated until it is observed
MAX_MEASURING_SECONDS = 0.8  # for all measurements at a start
CALLS_REMEMBERED = 2000  # by `MeasuredCosts`
MAX_PASSES = 5  # over all of them
# Steps of a kind that are measured one after another, of which the fastest counts. The first one meets caches that
# hold what other steps read: a single row took four times as long then as it does in a text.
STEPS_OF_PASS = 3

# How far one step moves what is believed. The speed of the machine as a whole may change within moments, where
# other programs use it; the shape of the curve does so less.
_SPEED_RATE = 1 / 16
_SHAPE_RATE = 1 / 64
_RETURN_RATE = 1 / 2048  # back to what was measured, so that what is not done now is tried again
_MAX_RATIO = 2.0  # by which one step may differ; a thread that was kept waiting says nothing of the work
_MAX_DRIFT = 4.0  # from what was measured
_NO_COST = 1e30


class Mode(IntEnum):
    """How a step's rows are divided, as a first index of costs."""

    SHARDED = 0  # all workers compute all rows
    WHOLE = 1  # each worker computes so many rows


class Kind(IntEnum):
    """Which rows, as a second index of costs."""

    ONE_SLOT = 0
    OWN_SLOTS = 1  # a slot for each row


SHARDED = int(Mode.SHARDED)
WHOLE = int(Mode.WHOLE)
_ONE_SLOT = int(Kind.ONE_SLOT)
_OWN_SLOTS = int(Kind.OWN_SLOTS)
_COSTS_SHAPE = (len(Mode), len(Kind), len(NODES))

# What the compiled code and its caller share besides the curve.
OBSERVATION = np.dtype(
    [
        ("forced_mode", np.int64),  # of the next steps, from which nothing is learned then; -1: the cheaper one
        ("speed", np.float64),  # what steps take now, over what the curve says
        ("began", np.int64),  # when the last step began
        ("ticks", np.int64),  # that it took, and while its mode was forced:
        ("cpu_began", np.int64),
        ("cpu_ticks", np.int64),  # the processor's time of worker 0 alone
        ("contended", np.int64),  # whether workers waited for a core
    ],
    align=True,
)


class CostCurve(NamedTuple):
    """What is known of a step's cost, for compiled code."""

    now: Costs  # (modes, kinds, nodes)
    measured: Costs  # the same, as it was at the start
    observation: NDArray[np.void]  # (1,) `OBSERVATION`
    clock: NDArray[np.int64]  # (2,): where the system writes the time
    num_shards: int  # into which a step's rows can be divided; 1: they cannot
    num_workers: int


def make_curve(num_workers: int, num_shards: int) -> CostCurve:
    """Return a curve in which nothing has been measured yet."""
    observation = np.zeros(1, OBSERVATION)
    observation["forced_mode"] = -1
    observation["speed"] = 1.0
    unknown = np.ones(_COSTS_SHAPE)
    return CostCurve(unknown, unknown.copy(), observation, np.zeros(2, np.int64), num_shards, num_workers)


# Windows has a clock of its own, whose unit is mostly 100 nanoseconds.
_WINDOWS = os.name == "nt"
TICKS_PER_SECOND = 10_000_000 if _WINDOWS else 1_000_000_000
WALL_CLOCK = 0 if _WINDOWS else time.CLOCK_MONOTONIC
THREAD_CLOCK = 0 if _WINDOWS else time.CLOCK_THREAD_CPUTIME_ID  # Windows has one clock for both
if _WINDOWS:
    _read_clock: Any = types.ExternalFunction("QueryPerformanceCounter", types.intc(types.voidptr))
else:
    _read_clock = types.ExternalFunction("clock_gettime", types.intc(types.intc, types.voidptr))


if _WINDOWS:

    @kernel_jit(allocates=True)
    def ticks_now(clock: NDArray[np.int64], which: int) -> int:
        """Return the time of one of the clocks in ticks."""
        _read_clock(clock.ctypes)
        ticks: int = clock[0]
        return ticks
else:

    @kernel_jit(allocates=True)
    def ticks_now(clock: NDArray[np.int64], which: int) -> int:
        """Return the time of one of the clocks in ticks."""
        _read_clock(which, clock.ctypes)
        ticks: int = clock[0] * 1_000_000_000 + clock[1]
        return ticks


@kernel_jit(allocates=True)
def start_timing(curve: CostCurve) -> None:
    """Write down when a step begins."""
    curve.observation[0].began = ticks_now(curve.clock, WALL_CLOCK)
    if curve.observation[0].forced_mode >= 0:
        curve.observation[0].cpu_began = ticks_now(curve.clock, THREAD_CLOCK)


@kernel_jit(allocates=True)
def stop_timing(curve: CostCurve) -> None:
    """Write down what it took."""
    curve.observation[0].ticks = ticks_now(curve.clock, WALL_CLOCK) - curve.observation[0].began
    if curve.observation[0].forced_mode >= 0:
        cpu_now = ticks_now(curve.clock, THREAD_CLOCK)
        curve.observation[0].cpu_ticks = cpu_now - curve.observation[0].cpu_began


@kernel_jit(allocates=True)
def _lower_node(rows: int) -> int:
    """Return the index of the node from which a number of rows is interpolated, to the next one."""
    node = 0
    while node < len(NODES) - 2 and NODES[node + 1] <= rows:
        node += 1
    return node


@kernel_jit(allocates=True)
def _share_of_own_slots(rows: int, slots: int) -> float:
    """Return how far rows in so many slots are from one slot (0) to a slot for each (1)."""
    return (slots - 1) / (rows - 1) if rows > 1 else 0.0


@kernel_jit(allocates=True)
def cost_of_mode(costs: Costs, mode: int, rows: int, slots: int) -> float:
    """Return what a step of so many rows in so many slots costs in a mode."""
    node = _lower_node(rows)
    part = (rows - NODES[node]) / (NODES[node + 1] - NODES[node])
    one_slot = costs[mode, _ONE_SLOT, node] * (1 - part) + costs[mode, _ONE_SLOT, node + 1] * part
    own_slots = costs[mode, _OWN_SLOTS, node] * (1 - part) + costs[mode, _OWN_SLOTS, node + 1] * part
    share = _share_of_own_slots(rows, slots)
    cost: float = one_slot * (1 - share) + own_slots * share
    return cost


@kernel_jit(allocates=True)
def step_cost(curve: CostCurve, rows: int, slots: int) -> float:
    """Return what a step of so many rows costs in the cheaper mode; slots have about as many rows each."""
    workers = min(curve.num_workers, slots)
    whole = cost_of_mode(curve.now, WHOLE, -(-rows // workers), -(-slots // workers))
    if curve.num_shards > 1:
        return min(whole, cost_of_mode(curve.now, SHARDED, rows, slots))
    return whole


@kernel_jit(allocates=True)
def further_row_cost(curve: CostCurve, rows: int, slots: int) -> float:
    """Return what one more row of a slot costs, on average over as many as make it cheapest.

    A microkernel multiplies several rows in the time of one, so a second row may cost much, and a third nothing.
    """
    before = step_cost(curve, rows, slots)
    cheapest = _NO_COST
    more = 1
    while more <= 4:
        added = step_cost(curve, rows + more * slots, slots) - before
        cheapest = min(cheapest, max(added, 0.0) / (more * slots))
        more *= 2
    return cheapest


@kernel_jit(allocates=True)
def observe(curve: CostCurve, mode: int, rows: int, slots: int, ticks: int) -> None:
    """Correct the curve by what a step has taken."""
    believed = curve.observation[0].speed * cost_of_mode(curve.now, mode, rows, slots)
    ratio = min(_MAX_RATIO, max(1 / _MAX_RATIO, ticks / believed))
    curve.observation[0].speed *= 1 + _SPEED_RATE * (ratio - 1)
    node = _lower_node(rows)
    part = min(1.0, (rows - NODES[node]) / (NODES[node + 1] - NODES[node]))
    share = _share_of_own_slots(rows, slots)
    for kind in range(2):
        kind_share = share if kind == _OWN_SLOTS else 1 - share
        for i in range(2):
            weight = kind_share * (part if i == 1 else 1 - part)
            curve.now[mode, kind, node + i] *= 1 + _SHAPE_RATE * weight * (ratio - 1)
    for m in range(curve.now.shape[0]):
        for kind in range(curve.now.shape[1]):
            for i in range(curve.now.shape[2]):
                measured = curve.measured[m, kind, i]
                now = curve.now[m, kind, i] + _RETURN_RATE * (measured - curve.now[m, kind, i])
                curve.now[m, kind, i] = min(_MAX_DRIFT * measured, max(measured / _MAX_DRIFT, now))


class MeasuredCosts:
    """`StepCosts` of a curve; see there. What was asked before is remembered for a while: it changes slowly."""

    def __init__(self, curve: CostCurve, max_draft_tokens: int) -> None:
        self.max_draft_tokens = max_draft_tokens
        self._curve = curve
        self._costs: dict[tuple[int, int], float] = {}
        self._further_rows: dict[tuple[int, int], float] = {}
        self._calls = 0

    def cost(self, rows: int, slots: int) -> float:
        """What a step of so many rows in so many slots costs, in ticks at the speed of the start."""
        self._forget()
        if (rows, slots) not in self._costs:
            self._costs[rows, slots] = float(step_cost(self._curve, rows, slots))
        return self._costs[rows, slots]

    def further_row(self, rows: int, slots: int) -> float:
        """What one more row of a slot costs besides."""
        self._forget()
        if (rows, slots) not in self._further_rows:
            self._further_rows[rows, slots] = float(further_row_cost(self._curve, rows, slots))
        return self._further_rows[rows, slots]

    def _forget(self) -> None:
        """Forget all that was remembered, after so many calls."""
        self._calls += 1
        if self._calls % CALLS_REMEMBERED == 0:
            self._costs.clear()
            self._further_rows.clear()


# Computes one step of so many rows in each of so many slots; returns its ticks, or None if they say nothing.
MeasureStep = Callable[[int, int], int | None]


def fill_curve(curve: CostCurve, measure_step: MeasureStep, slots: int, max_rows: int, path: Path | None) -> None:
    """Set the curve to what is kept at `path`; if nothing is, measure it and keep it there.

    Where other programs keep the cores busy, sharded steps cannot be timed. They are taken to cost their share of
    whole ones then, so that they are tried; and nothing is kept, so that the next start measures again.

    Args:
        measure_step: called with `forced_mode` set.
        slots: that rows can be in.
        max_rows: of one slot in a step.
        path: None where nothing can be kept.
    """
    kept = None if path is None else _read(path)
    if kept is None:
        kept, is_complete = _measure(curve, measure_step, slots, max_rows)
        if path is not None and is_complete:
            _write(path, kept)
    curve.measured[...] = kept
    curve.now[...] = kept


def curve_path(folder: Path | None, *identity: object) -> Path | None:
    """Return the file in which a curve is kept for whatever decides it: CPU, code, shapes."""
    if folder is None:
        return None
    digest = hashlib.sha256(repr(identity).encode()).hexdigest()
    return folder / f"step_costs-{digest[:16]}.json"


class _Point(NamedTuple):
    """A node of the curve that can be measured, and the step to do so."""

    mode: Mode
    kind: Kind
    node: int
    rows_of_slot: int
    num_slots: int


def _points(curve: CostCurve, slots: int, max_rows: int) -> list[_Point]:
    """Return all nodes that can be measured with so many slots, and rows of one slot."""
    points: list[_Point] = []
    for mode in Mode:
        if mode is Mode.SHARDED and curve.num_shards == 1:
            continue
        workers = 1 if mode is Mode.SHARDED else min(curve.num_workers, slots)
        for node, rows in enumerate(MEASURED_NODES):
            if rows <= max_rows:
                points.append(_Point(mode, Kind.ONE_SLOT, node, rows, workers))
            if 1 < rows <= slots // workers:
                points.append(_Point(mode, Kind.OWN_SLOTS, node, 1, rows * workers))
    return points


def _measure(curve: CostCurve, measure_step: MeasureStep, slots: int, max_rows: int) -> tuple[Costs, bool]:
    """Return the curve, from the fastest of some steps at each node that can be measured; and whether all were.

    Some of them follow each other, as they do when texts are written.
    """
    points = _points(curve, slots, max_rows)
    fastest = np.full(_COSTS_SHAPE, math.inf)
    began = time.perf_counter()
    for passes in range(1, MAX_PASSES + 1):
        for mode, kind, node, rows_of_slot, num_slots in points:
            curve.observation["forced_mode"] = mode
            for _ in range(STEPS_OF_PASS):
                ticks = measure_step(rows_of_slot, num_slots)
                if ticks is not None:
                    fastest[mode, kind, node] = min(fastest[mode, kind, node], max(1, ticks))
        if (time.perf_counter() - began) * (passes + 1) / passes > MAX_MEASURING_SECONDS:
            break
    curve.observation["forced_mode"] = -1
    is_complete = all(math.isfinite(fastest[point.mode, point.kind, point.node]) for point in points)
    _extrapolate(fastest[Mode.WHOLE])
    if curve.num_shards > 1 and is_complete:
        _extrapolate(fastest[Mode.SHARDED])
    else:
        fastest[Mode.SHARDED] = fastest[Mode.WHOLE] / curve.num_shards
    return fastest, is_complete


def _extrapolate(costs: Costs) -> None:
    """Fill in what could not be measured of a mode's costs (kinds, nodes).

    Costs that fall with more rows are the noise of a busy machine; they are levelled.
    """
    one_slot = costs[Kind.ONE_SLOT]
    own_slots = costs[Kind.OWN_SLOTS]
    own_slots[0] = one_slot[0]
    for kind_costs in (one_slot, own_slots):
        known = kind_costs[np.isfinite(kind_costs)]
        kind_costs[: len(known)] = np.minimum.accumulate(known[::-1])[::-1]
        if len(known) == 1:
            kind_costs[1] = 2 * kind_costs[0]
        for node in range(max(2, len(known)), len(NODES)):  # as many rows again cost what the last as many did
            growth = kind_costs[node - 1] - kind_costs[node - 2]
            kind_costs[node] = kind_costs[node - 1] + 2 * growth


def _read(path: Path) -> Costs | None:
    """Return the costs in a file; None if there is none, or it is not a whole one."""
    try:
        costs = np.array(json.loads(path.read_text()), dtype=np.float64)
    except (OSError, ValueError, TypeError):
        return None
    if costs.shape != _COSTS_SHAPE or not np.isfinite(costs).all() or (costs <= 0).any():
        return None
    return costs


def _write(path: Path, costs: Costs) -> None:
    """Keep costs in a file, if it can be written."""
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        temporary.write_text(json.dumps(costs.tolist()))
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
