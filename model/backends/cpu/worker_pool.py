"""Threads that compute steps together.

Worker 0 is the caller's thread, which plans each step: it writes an assignment for every worker that takes part,
starts them, and computes its own. The other workers' threads each run one compiled call for the life of the pool,
in which they wait for their next assignment. A step's rows are divided in one of two ways:

- by rows: each worker computes some of the sequences through all layers. They wait for each other once, at the end.
- by shards: several workers compute all rows, each a part of the heads and columns of every layer. They wait for
  each other four times a layer; in return, each core reads only its part of the weights from memory, which is what
  a step of few rows takes its time for.

Starting other threads from Python in each step was tried first: they started late, and held the interpreter's lock
at the end of their part. Knows nothing of checkpoints.
"""

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from threading import Thread
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types
from numba.experimental import structref
from numpy.typing import NDArray

from model.backends.base import NOT_FINITE, DecodeInput
from model.backends.cpu.barrier import (
    BarrierHandle,
    barrier_wait,
    close_barrier,
    count_expired_rounds,
    make_barrier,
    set_rounds_before_sleep,
    start_worker,
    wait_for_start,
)
from model.backends.cpu.buffers import (
    MAX_ROWS,
    PREFILL_CHUNK,
    Activations,
    Cache,
    Floats,
    Indices,
    KernelConfig,
    Scratch,
    Weights,
    make_activations,
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
from model.backends.cpu.step_costs import (
    SHARDED,
    WHOLE,
    CostCurve,
    cost_of_mode,
    curve_path,
    fill_curve,
    make_curve,
    observe,
    start_timing,
    stop_timing,
)
from model.jit import cache_folder, compile_and_call, kernel_jit, target_identity

Records = NDArray[np.void]

# What a worker is to do in a step. If no workers take part, its thread is to end.
ASSIGNMENT = np.dtype(
    [
        ("first_row", np.int64),
        ("end_row", np.int64),
        ("num_shards", np.int64),  # of each row; 1 if the worker computes whole rows
        ("num_workers", np.int64),  # that take part in the step
    ],
    align=True,
)

# Whether rows may be sharded. Where other programs keep the cores busy, each barrier waits until the system lets
# the last worker run, and one sequence fell to a fifth of its speed. So after a step in which that was seen, rows
# are not sharded for MIN_BACKOFF_STEPS. Then it is tried again; if cores are still busy, the next pause is twice
# as long, up to MAX_BACKOFF_STEPS.
BACKOFF = np.dtype(
    [
        ("steps_left", np.int64),  # for which rows are not sharded
        ("period", np.int64),  # steps of the last pause; 0 after a step in which sharding went well
    ],
    align=True,
)
MIN_BACKOFF_STEPS = 4
MAX_BACKOFF_STEPS = 64
MAX_EXPIRED_ROUNDS = 4  # in a step's barriers, for each worker beside the first; more are contention
# Rounds of spinning before a worker sleeps, while there is no contention. More than MAX_EXPIRED_ROUNDS, so that a
# barrier at which somebody slept counts as contention.
PATIENT_ROUNDS = 5

SHUT_DOWN = -1  # as a number of steps: let all other workers end

# What a decode call can hold.
MAX_DECODED_IDS = 2048
MAX_NOISE_VALUES = 1 << 18

NO_SPECULATION = Speculation(
    keys=np.zeros(1, np.int64),
    surprisal=np.zeros((1, 1), np.uint8),
    max_context=0,
    nats_per_unit=1.0,
    margin_slope=1.0,
    max_draft_tokens=0,
    max_break_even=0.0,
)

_WORKER_FIELDS = [
    "config",
    "weights",
    "cache",
    "scratch",
    "activations",  # of this worker alone
    "shared_activations",  # of the workers that compute shards of the same rows
    "assignments",
    "backoff",
    "curve",
    "rows",
    "ends",
    "logits",
    "barrier",
    "decode_state",
]
_structref: Any = structref


@_structref.register
class _WorkerType(types.StructRef):
    """The compiled type of `_Worker`.

    A structref makes many arrays one argument: Numba takes half a microsecond for each argument of a call.
    """

    def preprocess_fields(self, fields: Any) -> Any:
        unliteral: Any = types.unliteral
        return tuple((name, unliteral(field_type)) for name, field_type in fields)


class _Worker(structref.StructRefProxy):
    """What one worker computes with."""


_structref.define_proxy(_Worker, _WorkerType, _WORKER_FIELDS)
_new_worker: Any = _Worker


def make_worker(
    config: KernelConfig,
    weights: Weights,
    cache: Cache,
    scratch: Scratch,
    activations: Activations,
    shared_activations: Activations,
    assignments: Records,
    backoff: Records,
    curve: CostCurve,
    rows: Indices,
    ends: Indices,
    logits: Floats,
    barrier: BarrierHandle,
    decode_state: DecodeState,
) -> Any:
    """Return a `_Worker`; to be compiled, since interpreted code cannot make one."""
    return _new_worker(
        config,
        weights,
        cache,
        scratch,
        activations,
        shared_activations,
        assignments,
        backoff,
        curve,
        rows,
        ends,
        logits,
        barrier,
        decode_state,
    )


@numba.njit(inline="always")
def _run_assignment(worker: Any) -> None:
    """Compute this worker's part of a step; return when all parts are there."""
    assignment = worker.assignments[worker.barrier.worker]
    first_row = assignment.first_row
    end_row = assignment.end_row
    num_shards = assignment.num_shards
    num_workers = assignment.num_workers
    activations = worker.shared_activations if num_shards > 1 else worker.activations
    for start in range(first_row, end_row, MAX_ROWS):
        end = min(start + MAX_ROWS, end_row)
        slots = worker.rows[0, start:end]
        positions = worker.rows[1, start:end]
        tokens = worker.rows[2, start:end]
        forward(
            worker.config,
            worker.weights,
            worker.cache,
            worker.scratch,
            activations,
            slots,
            positions,
            tokens,
            worker.logits[start:end],
            worker.barrier,
            num_shards,
        )
    # Workers with whole rows end at different times; who waits sleeps soon, so that others can use the core.
    barrier_wait(worker.barrier, num_workers, num_shards > 1)


@kernel_jit(allocates=True)
def _assign(
    assignments: Records, worker: int, first_row: int, end_row: int, num_shards: int, num_workers: int
) -> None:
    assignments[worker].first_row = first_row
    assignments[worker].end_row = end_row
    assignments[worker].num_shards = num_shards
    assignments[worker].num_workers = num_workers


@kernel_jit(allocates=True)
def _plan_step(assignments: Records, curve: CostCurve, ends: Indices, num_runs: int, may_shard: bool) -> int:
    """Write the assignments of what is expected to be fastest; return how many workers take part.

    Args:
        ends: where the runs of rows end, one run for each sequence. A run stays with one worker.
        num_runs: how many.
        may_shard: whether rows may be sharded.
    """
    rows = ends[num_runs - 1]
    longest_run = 0
    for run in range(num_runs):
        start = ends[run - 1] if run else 0
        longest_run = max(longest_run, ends[run] - start)
    num_workers = min(len(assignments), num_runs)
    num_shards = curve.num_shards
    forced_mode = curve.observation[0].forced_mode
    shards = forced_mode == SHARDED
    if forced_mode < 0 and may_shard and num_shards > 1:
        rows_of_worker = max(longest_run, -(-rows // num_workers))
        whole_cost = cost_of_mode(curve.now, WHOLE, rows_of_worker, -(-num_runs // num_workers))
        shards = cost_of_mode(curve.now, SHARDED, rows, num_runs) < whole_cost
    if shards:
        for worker in range(num_shards):
            _assign(assignments, worker, 0, rows, num_shards, num_shards)
        return num_shards
    run = 0
    first_row = 0
    for worker in range(num_workers):
        fair_end = rows * (worker + 1) / num_workers
        end = first_row
        while run < num_runs and abs(ends[run] - fair_end) <= abs(end - fair_end):
            end = ends[run]
            run += 1
        _assign(assignments, worker, first_row, end, 1, num_workers)
        first_row = end
    return num_workers


@kernel_jit(allocates=True)
def _learn(assignments: Records, curve: CostCurve, ends: Indices, num_runs: int, contended: bool) -> None:
    """Correct what is believed of a step's cost by the one that has just been computed.

    Args:
        contended: whether workers waited for a core, which `BACKOFF` deals with.
    """
    ticks = curve.observation[0].ticks
    curve.observation[0].contended = contended
    if contended or curve.observation[0].forced_mode >= 0:
        return
    num_workers = assignments[0].num_workers
    if assignments[0].num_shards > 1:
        observe(curve, SHARDED, ends[num_runs - 1], num_runs, ticks)
        return
    longest = 0
    for worker in range(num_workers):
        longest = max(longest, assignments[worker].end_row - assignments[worker].first_row)
    observe(curve, WHOLE, longest, min(longest, -(-num_runs // num_workers)), ticks)


@kernel_jit(allocates=True)
def _update_backoff(barrier: BarrierHandle, backoff: Records, num_shards: int, expired_rounds: int) -> bool:
    """Decide after a sharded step whether the next ones may be sharded; return whether it met with contention.

    Args:
        expired_rounds: those of the step's barriers. Those of the last barrier may be added too late, and count in
            the next step.
    """
    contended = expired_rounds > MAX_EXPIRED_ROUNDS * (num_shards - 1)
    if contended:
        backoff[0].period = min(MAX_BACKOFF_STEPS, max(MIN_BACKOFF_STEPS, 2 * backoff[0].period))
    else:
        backoff[0].period = 0
    backoff[0].steps_left = backoff[0].period
    set_rounds_before_sleep(barrier, 1 if contended else PATIENT_ROUNDS)
    return contended


@kernel_jit(allocates=True)
def _shut_down_others(assignments: Records, barrier: BarrierHandle) -> None:
    """Let all other workers return from `run_worker`."""
    for other in range(1, len(assignments)):
        _assign(assignments, other, 0, 0, 0, 0)
        start_worker(barrier, other)


def run_worker(
    worker: Any, num_runs: int, steps: int, num_sequences: int, stride: int, speculation: Speculation
) -> None:
    """Compute steps. Worker 0 returns after as many as it was asked for; the others when they are to end.

    One function for all workers: `forward` is inlined into it, and a second copy would double the time to compile.

    Args:
        worker: whose thread this is. The other arguments are for worker 0 alone.
        num_runs: of rows that are there to be computed, if no sequences decode.
        steps: how many, or `SHUT_DOWN`.
        num_sequences: that decode: the rows of each step follow from the last one's. 0: one step of `num_runs`.
        stride: ids that the decode state holds for each sequence.
        speculation: how to propose draft tokens.
    """
    is_first = worker.barrier.worker == 0
    decodes = num_sequences > 0
    starts = 0
    expired_before = 0
    while True:
        if is_first:
            if steps == SHUT_DOWN:
                _shut_down_others(worker.assignments, worker.barrier)
            if steps > 0 and decodes:
                num_runs = propose_rows(
                    worker.decode_state,
                    num_sequences,
                    stride,
                    speculation,
                    worker.curve,
                    worker.rows,
                    worker.ends,
                )
            if steps <= 0 or num_runs == 0:
                break
            may_shard = worker.backoff[0].steps_left == 0
            if not may_shard:
                worker.backoff[0].steps_left -= 1
            expired_before = count_expired_rounds(worker.barrier)
            num_workers = _plan_step(worker.assignments, worker.curve, worker.ends, num_runs, may_shard)
            start_timing(worker.curve)
            for other in range(1, num_workers):
                start_worker(worker.barrier, other)
        else:
            wait_for_start(worker.barrier, starts)
            if worker.assignments[worker.barrier.worker].num_workers == 0:
                break
        starts += 1
        steps -= 1
        _run_assignment(worker)
        if is_first:
            stop_timing(worker.curve)
            num_shards = worker.assignments[0].num_shards
            contended = False
            if num_shards > 1:
                expired_rounds = count_expired_rounds(worker.barrier) - expired_before
                contended = _update_backoff(worker.barrier, worker.backoff, num_shards, expired_rounds)
            _learn(worker.assignments, worker.curve, worker.ends, num_runs, contended)
            if decodes:
                draw_rows(worker.decode_state, num_sequences, stride, worker.rows, worker.ends, worker.logits)


class PoolInput(NamedTuple):
    """A sequence that decodes, and the ids in its slot; it may draw `limit` more."""

    decode: DecodeInput
    length: int
    limit: int


class WorkerPool:
    """Threads with the memory that they compute in; the caller of `forward` or `decode` is the first of them.

    Attributes:
        max_decoded_ids: that one call of `decode` can hold, of all sequences together.
        curve: what steps cost, by which each is planned.
    """

    def __init__(self, config: KernelConfig, weights: Weights, cache: Cache, num_workers: int, slots: int) -> None:
        vocab_size = len(weights.tokens)
        self.max_decoded_ids = max(1, min(MAX_DECODED_IDS, MAX_NOISE_VALUES // vocab_size))
        self._assignments = np.zeros(num_workers, ASSIGNMENT)
        self._rows = np.zeros((3, slots * PREFILL_CHUNK), dtype=np.int64)  # slots, positions, ids
        self._ends = np.zeros(slots, dtype=np.int64)
        self._logits = np.zeros((slots * PREFILL_CHUNK, vocab_size), dtype=np.float32)
        self._decode_state = make_decode_state(slots, self.max_decoded_ids, vocab_size)
        self._backoff = np.zeros(1, BACKOFF)
        self.curve = make_curve(num_workers, num_shards=min(num_workers, config.heads))
        shared_activations = make_activations(weights)
        barriers = make_barrier(num_workers)
        threads: list[Thread] = []
        # How the threads are ended, once there are any. The finalizer is there before them, so that nothing is left
        # behind if making them fails. Not at exit: a step may go on until the very end of the process.
        shut_downs: list[Callable[[], None]] = []
        weakref.finalize(self, _close, barriers, threads, shut_downs).atexit = False
        worker_arguments: list[tuple[Any, ...]] = []
        for barrier in barriers:
            scratch = make_scratch(weights, cache, config.head_size)
            activations = make_activations(weights)
            computation = (config, weights, cache, scratch, activations, shared_activations)
            shared_state = (self._assignments, self._backoff, self.curve, self._rows, self._ends, self._logits)
            worker_arguments.append((*computation, *shared_state, barrier, self._decode_state))
        compiled_make_worker = compile_and_call(make_worker, *worker_arguments[0])
        workers = [compiled_make_worker(*arguments) for arguments in worker_arguments]
        self._first_worker = workers[0]
        self._run_worker = compile_and_call(run_worker, self._first_worker, 0, 0, 0, 0, NO_SPECULATION)
        shut_downs.append(partial(self._run_worker, self._first_worker, 0, SHUT_DOWN, 0, 0, NO_SPECULATION))
        for number in range(1, num_workers):
            thread = Thread(
                target=self._run_worker,
                args=(workers[number], 0, 0, 0, 0, NO_SPECULATION),
                name=f"kernel-{number}",
                daemon=True,
            )
            thread.start()
            threads.append(thread)
        self._measure_costs(config, weights, cache)

    def _measure_costs(self, config: KernelConfig, weights: Weights, cache: Cache) -> None:
        """Fill `curve`, by steps at the end of a window whose results are thrown away."""
        slots = len(self._ends)

        def measure_step(rows_of_slot: int, num_slots: int) -> int | None:
            self._backoff["steps_left"] = 0
            size = rows_of_slot * num_slots
            self._rows[0, :size] = np.repeat(np.arange(num_slots), rows_of_slot)
            self._rows[1, :size] = np.tile(np.arange(config.window - rows_of_slot, config.window), num_slots)
            self._rows[2, :size] = 0
            self._ends[:num_slots] = rows_of_slot * np.arange(1, num_slots + 1)
            self._run_worker(self._first_worker, num_slots, 1, 0, 0, NO_SPECULATION)
            [observation] = self.curve.observation
            if observation["forced_mode"] == WHOLE:  # as if the worker had its core for itself
                return int(observation["cpu_ticks"])
            return None if observation["contended"] else int(observation["ticks"])

        shapes = [array.shape for array in (*weights, *cache)]
        identity = (target_identity(), config, shapes, len(self._assignments))
        path = curve_path(cache_folder(self._run_worker), *identity)
        fill_curve(self.curve, measure_step, slots, min(config.window, PREFILL_CHUNK), path)
        self._backoff[...] = 0
        cache.scales[...] = 0  # of the keys and values that these steps wrote

    def forward(self, rows: Sequence[Sequence[int]], ends: Sequence[int]) -> Floats:
        """Return the logits (n, V) after each row.

        Args:
            rows: (3, n) slots, positions and ids, in one run for each sequence.
            ends: where each run ends.
        """
        self._rows[:, : ends[-1]] = rows
        self._ends[: len(ends)] = ends
        self._run_worker(self._first_worker, len(ends), 1, 0, 0, NO_SPECULATION)
        return self._logits[: ends[-1]].copy()

    def decode(
        self, inputs: Sequence[PoolInput], steps: int, speculation: Speculation
    ) -> list[tuple[list[int], Floats]]:
        """Return what each sequence draws in these steps, and the logits (n, V) that each id was drawn from.

        Raises:
            FloatingPointError: a logit is not finite.
        """
        state = self._decode_state
        stride = self.max_decoded_ids // len(inputs)
        for s, (one, length, limit) in enumerate(inputs):
            count = min(stride, one.max_tokens)
            state.slots[s] = one.slot
            state.positions[s] = length
            state.last_ids[s] = one.context[-1]
            state.contexts[s] = -1
            state.contexts[s, -len(one.context) :] = one.context[-CONTEXT:]
            noise = one.gumbel_noise.at(one.position, count) if one.temperature else 0.0
            state.noise[s * stride : s * stride + count] = noise
            state.counts[s] = 0
            state.limits[s] = min(count, limit)
            state.temperatures[s] = one.temperature
        self._run_worker(self._first_worker, 0, steps, len(inputs), stride, speculation)
        counts = state.counts[: len(inputs)].tolist()
        drawn = [slice(s * stride, s * stride + count) for s, count in enumerate(counts)]
        if not np.isfinite(np.concatenate([state.logits[places] for places in drawn])).all():
            raise FloatingPointError(NOT_FINITE)
        return [(state.ids[places].tolist(), state.logits[places].copy()) for places in drawn]


def _close(barriers: list[BarrierHandle], threads: list[Thread], shut_downs: list[Callable[[], None]]) -> None:
    """End the threads, and close what they waited in."""
    for shut_down in shut_downs:
        shut_down()
    for thread in threads:
        thread.join()
    close_barrier(barriers)
