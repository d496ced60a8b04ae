"""A barrier for threads in compiled code: they wait for each other without the interpreter and its lock.

A waiting thread spins for a while, which is faster than the system can wake a thread, and then sleeps: it reads
from a pipe of its own until another thread writes a byte to it. Knows nothing of what the threads do.

Memory order. All words are read and written by sequentially consistent atomics. Two things rest on that:

- Visibility. A thread publishes what it wrote by its atomic addition to `ARRIVED`; the last to arrive has read all
  those additions, and publishes them by adding to `GENERATION`, which every waiter reads. So after `barrier_wait`
  each thread sees what each other one wrote before it. Acquire and release would be enough for this.
- No lost wake-up. A thread that falls asleep sets its asleep word and then reads the awaited word again; a thread
  that wakes others changes the awaited word and then reads the asleep word. With acquire and release alone, both
  could read the old value, and the sleeper would sleep for ever.

On x86 a read-modify-write is one locked instruction under any order, so weaker orders would save nothing there.
"""

import os
import platform
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from model.jit import kernel_jit

Words = NDArray[np.int64]

# From one word to the next, in words: 128 bytes. Two words in one cache line, or in the pair of lines that CPUs
# fetch together, would slow down the threads that write them.
WORD_SPACING = 16

# Indices into `BarrierHandle.words`. The words of all workers together:
ARRIVED = 0  # workers that have reached the current barrier
GENERATION = WORD_SPACING  # barriers that were passed so far
EXPIRED_ROUNDS = 2 * WORD_SPACING  # rounds of spinning that ended with the barrier still closed, of all workers
ROUNDS_BEFORE_SLEEP = 3 * WORD_SPACING  # see `set_rounds_before_sleep`
# From here on, two words for each worker; see `_starts_word` and `_asleep_word`.
FIRST_WORKER_WORD = 4 * WORD_SPACING

SPINS_PER_ROUND = 10_000  # some 100 to 200 microseconds, as long as Python takes between two steps

# The instruction for a CPU that spins, and its arguments.
_X86_PAUSE: tuple[str, list[int]] = ("llvm.x86.sse2.pause", [])
_ARM_PAUSE = ("llvm.aarch64.isb", [15])  # takes some 20 nanoseconds; ARM's `yield` does nothing on most CPUs
_PAUSES = {"x86_64": _X86_PAUSE, "amd64": _X86_PAUSE, "aarch64": _ARM_PAUSE, "arm64": _ARM_PAUSE}

_PREFIX = "_" if os.name == "nt" else ""
_read: Any = types.ExternalFunction(f"{_PREFIX}read", types.intp(types.intc, types.voidptr, types.uintp))
_write: Any = types.ExternalFunction(f"{_PREFIX}write", types.intp(types.intc, types.voidptr, types.uintp))


class BarrierHandle(NamedTuple):
    """What one worker needs to wait for the others."""

    words: Words  # shared by all workers
    pipes: Words  # (workers, 2): file descriptors to read from and to write to
    byte: NDArray[np.uint8]  # (1,), to read into
    worker: int  # this worker's number


def make_barrier(num_workers: int) -> list[BarrierHandle]:
    """Return a handle for each worker; `close_barrier` closes their pipes.

    Raises:
        OSError: the process has too many files open.
    """
    words = np.zeros(FIRST_WORKER_WORD + 2 * WORD_SPACING * num_workers, dtype=np.int64)
    words[ROUNDS_BEFORE_SLEEP] = 1
    pipes = np.full((num_workers, 2), -1, dtype=np.int64)
    handles: list[BarrierHandle] = []
    for worker in range(num_workers):
        handles.append(BarrierHandle(words, pipes, np.zeros(1, np.uint8), worker))
    try:
        for worker in range(num_workers):
            pipes[worker] = os.pipe()
    except OSError:
        close_barrier(handles)
        raise
    return handles


def close_barrier(handles: list[BarrierHandle]) -> None:
    """Close the pipes, once no worker waits any more."""
    pipes = handles[0].pipes
    for descriptor in pipes[pipes >= 0].tolist():
        os.close(descriptor)


def _word_pointer(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
    words = context.make_array(signature.args[0])(context, builder, args[0])
    return builder.gep(words.data, [args[1]])


def _atomic_load(typingctx: Any, words: Any, index: Any) -> Any:
    """Return a word."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.load_atomic(_word_pointer(context, builder, signature, args), "seq_cst", 8)

    return types.int64(words, types.int64), codegen


def _atomic_add(typingctx: Any, words: Any, index: Any, value: Any) -> Any:
    """Add to a word; return what it was before."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.atomic_rmw("add", _word_pointer(context, builder, signature, args), args[2], "seq_cst")

    return types.int64(words, types.int64, types.int64), codegen


def _atomic_exchange(typingctx: Any, words: Any, index: Any, value: Any) -> Any:
    """Set a word; return what it was before."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.atomic_rmw("xchg", _word_pointer(context, builder, signature, args), args[2], "seq_cst")

    return types.int64(words, types.int64, types.int64), codegen


def _cpu_pause(typingctx: Any) -> Any:
    """Tell the CPU that this loop spins, so that it saves power and leaves its core to the sibling thread."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        name, values = _PAUSES.get(platform.machine().lower(), ("", []))
        if name:
            arguments = [ir.IntType(32)(value) for value in values]
            function_type = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
            builder.call(builder.module.declare_intrinsic(name, fnty=function_type), arguments)
        return context.get_dummy_value()

    return types.void(), codegen


_load: Any = intrinsic(_atomic_load)
_add: Any = intrinsic(_atomic_add)
_exchange: Any = intrinsic(_atomic_exchange)
_pause: Any = intrinsic(_cpu_pause)


@kernel_jit(allocates=True)
def _starts_word(worker: int) -> int:
    """Return the index of the word that counts how often the worker has been started."""
    return FIRST_WORKER_WORD + 2 * WORD_SPACING * worker


@kernel_jit(allocates=True)
def _asleep_word(worker: int) -> int:
    """Return the index of the word that is 1 while the worker sleeps, or is about to, and nobody has woken it."""
    return _starts_word(worker) + WORD_SPACING


@kernel_jit(allocates=True)
def _wait_for_change(handle: BarrierHandle, word: int, seen: int, rounds_before_sleep: int) -> int:
    """Return when a word is no longer as it was `seen`.

    Returns:
        How many rounds of `SPINS_PER_ROUND` spins have ended before that.
    """
    asleep = _asleep_word(handle.worker)
    spins = 0
    expired_rounds = 0
    while _load(handle.words, word) == seen:
        _pause()
        spins += 1
        if spins < SPINS_PER_ROUND:
            continue
        spins = 0
        expired_rounds += 1
        if expired_rounds % rounds_before_sleep == 0:
            _exchange(handle.words, asleep, 1)
            # A byte is written by the thread that finds the asleep word set and clears it. So one must be read if
            # this thread may sleep (the awaited word has not changed), and also if it need not, but another has
            # cleared the asleep word already: a byte left in the pipe would end a later sleep at once.
            if _load(handle.words, word) == seen or not _exchange(handle.words, asleep, 0):
                _read(handle.pipes[handle.worker, 0], handle.byte.ctypes, 1)
    return expired_rounds


@kernel_jit(allocates=True)
def _wake(handle: BarrierHandle, worker: int) -> None:
    """Wake a worker if it sleeps, after a word that it waits for has been changed."""
    if _exchange(handle.words, _asleep_word(worker), 0):
        _write(handle.pipes[worker, 1], handle.byte.ctypes, 1)


@kernel_jit(allocates=True)
def start_worker(handle: BarrierHandle, worker: int) -> None:
    """Let `wait_for_start` of a worker return; it sees all that this thread wrote before."""
    _add(handle.words, _starts_word(worker), 1)
    _wake(handle, worker)


@kernel_jit(allocates=True)
def wait_for_start(handle: BarrierHandle, starts: int) -> None:
    """Return when this worker has been started more than `starts` times."""
    _wait_for_change(handle, _starts_word(handle.worker), starts, 1)


@kernel_jit(allocates=True)
def count_expired_rounds(handle: BarrierHandle) -> int:
    """Return how many rounds of spinning have ended with a barrier still closed, of all workers, so far."""
    rounds: int = _load(handle.words, EXPIRED_ROUNDS)
    return rounds


@kernel_jit(allocates=True)
def set_rounds_before_sleep(handle: BarrierHandle, rounds: int) -> None:
    """From now on let workers spin for so many rounds in a barrier before they sleep.

    Many rounds cost much where the system keeps other workers from running: it lets a thread that has slept go on
    sooner than one that spins. Few rounds cost much where cores are idle and only slow to wake up: each worker that
    sleeps makes the others wait, and then sleep in turn.
    """
    _exchange(handle.words, ROUNDS_BEFORE_SLEEP, rounds)


@kernel_jit(allocates=True)
def barrier_wait(handle: BarrierHandle, num_workers: int, patient: bool = True) -> None:
    """Return when the first `num_workers` workers have all called this; each sees what the others wrote before.

    Args:
        patient: whether to spin as long as `set_rounds_before_sleep` says; if not, for one round.
    """
    if num_workers == 1:
        return
    # Read before arriving: from then on the last worker may add to it at any time.
    generation = _load(handle.words, GENERATION)
    if _add(handle.words, ARRIVED, 1) < num_workers - 1:
        rounds_before_sleep = _load(handle.words, ROUNDS_BEFORE_SLEEP) if patient else 1
        expired_rounds = _wait_for_change(handle, GENERATION, generation, rounds_before_sleep)
        if expired_rounds:
            _add(handle.words, EXPIRED_ROUNDS, expired_rounds)
        return
    # The last one to arrive: all others wait for the generation, so nobody arrives at the next barrier meanwhile.
    _exchange(handle.words, ARRIVED, 0)
    _add(handle.words, GENERATION, 1)
    for worker in range(num_workers):
        if worker != handle.worker:
            _wake(handle, worker)
