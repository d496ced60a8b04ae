"""Threads that wait for each other within compiled code, without the interpreter and its lock.

Who waits looks again and again for a while, which is faster than the system can wake a thread, and then sleeps
until it is woken. Knows nothing of what the threads do.
"""

import os
import platform
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

Words = NDArray[np.int64]

LINE = 16  # words from one to the next that threads write: neighbours in a cache line would slow each other down
ARRIVED, MEETINGS, DELAYS, PATIENCE = 0, LINE, 2 * LINE, 3 * LINE  # of meetings
MEMBERS = 4 * LINE  # from here on two words for each member:
CALLS, ASLEEP = 0, LINE
LOOKS = 10_000  # some 100 to 200 microseconds, as long as Python takes between two steps

_X86: tuple[str, list[int]] = ("llvm.x86.sse2.pause", [])
_ARM = ("llvm.aarch64.isb", [15])  # takes some 20 nanoseconds; its `yield` does nothing on most
_PAUSES = {"x86_64": _X86, "amd64": _X86, "aarch64": _ARM, "arm64": _ARM}
_PREFIX = "_" if os.name == "nt" else ""
_read: Any = types.ExternalFunction(f"{_PREFIX}read", types.intp(types.intc, types.voidptr, types.uintp))
_write: Any = types.ExternalFunction(f"{_PREFIX}write", types.intp(types.intc, types.voidptr, types.uintp))


class Link(NamedTuple):
    """What one member, number `me`, needs to meet the others."""

    words: Words  # what all tell each other
    pipes: Words  # (members, 2): file descriptors to read and to write
    byte: NDArray[np.uint8]  # (1,), to read into
    me: int


def make_links(members: int) -> list[Link]:
    """A link for each member; `close_links` takes them back."""
    words = np.zeros(MEMBERS + 2 * LINE * members, dtype=np.int64)
    words[PATIENCE] = 1
    pipes = np.full((members, 2), -1, dtype=np.int64)
    links = [Link(words, pipes, np.zeros(1, np.uint8), me) for me in range(members)]
    try:
        for me in range(members):
            pipes[me] = os.pipe()
    except OSError:
        close_links(links)
        raise
    return links


def close_links(links: list[Link]) -> None:
    """Give back what the system lent, once no member waits any more."""
    for descriptor in links[0].pipes[links[0].pipes >= 0].tolist():
        os.close(descriptor)


def _pointer(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
    words = context.make_array(signature.args[0])(context, builder, args[0])
    return builder.gep(words.data, [args[1]])


def _atomic_load(typingctx: Any, words: Any, place: Any) -> Any:
    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.load_atomic(_pointer(context, builder, signature, args), "seq_cst", 8)

    return types.int64(words, types.int64), codegen


def _atomic_add(typingctx: Any, words: Any, place: Any, value: Any) -> Any:
    """Returns what was there before; so does `_atomic_swap`."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.atomic_rmw("add", _pointer(context, builder, signature, args), args[2], "seq_cst")

    return types.int64(words, types.int64, types.int64), codegen


def _atomic_swap(typingctx: Any, words: Any, place: Any, value: Any) -> Any:
    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.atomic_rmw("xchg", _pointer(context, builder, signature, args), args[2], "seq_cst")

    return types.int64(words, types.int64, types.int64), codegen


def _cpu_pause(typingctx: Any) -> Any:
    """Tell the CPU that this is a loop that waits."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        name, values = _PAUSES.get(platform.machine().lower(), ("", []))
        if name:
            arguments = [ir.IntType(32)(value) for value in values]
            kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
            builder.call(builder.module.declare_intrinsic(name, fnty=kind), arguments)
        return context.get_dummy_value()

    return types.void(), codegen


_load: Any = intrinsic(_atomic_load)
_add: Any = intrinsic(_atomic_add)
_swap: Any = intrinsic(_atomic_swap)
_pause: Any = intrinsic(_cpu_pause)


@numba.njit(nogil=True, error_model="numpy")
def _await_change(link: Link, place: int, seen: int, patience: int) -> int:
    """Return when the word at `place` is no longer as it was `seen`: how often `LOOKS` looks were not enough.
    Sleeps after `patience` times so many.
    """
    looks, late, asleep = 0, 0, MEMBERS + 2 * LINE * link.me + ASLEEP
    while _load(link.words, place) == seen:
        _pause()
        looks += 1
        if looks < LOOKS:
            continue
        looks, late = 0, late + 1
        if late % patience == 0:
            _swap(link.words, asleep, 1)
            # whoever finds this word set clears it and sends a byte: as many are read as are sent
            if _load(link.words, place) == seen or not _swap(link.words, asleep, 0):
                _read(link.pipes[link.me, 0], link.byte.ctypes, 1)
    return late


@numba.njit(nogil=True, error_model="numpy")
def _wake(link: Link, member: int) -> None:
    """Wake the member if it sleeps, after a word that it waits for has changed."""
    if _swap(link.words, MEMBERS + 2 * LINE * member + ASLEEP, 0):
        _write(link.pipes[member, 1], link.byte.ctypes, 1)


@numba.njit(nogil=True, error_model="numpy")
def call(link: Link, member: int) -> None:
    """Begin the member's next turn; it can read all that was written before."""
    _add(link.words, MEMBERS + 2 * LINE * member + CALLS, 1)
    _wake(link, member)


@numba.njit(nogil=True, error_model="numpy")
def await_call(link: Link, calls: int) -> None:
    """Return when this member has been called more than `calls` times."""
    _await_change(link, MEMBERS + 2 * LINE * link.me + CALLS, calls, 1)


@numba.njit(nogil=True, error_model="numpy")
def delays(link: Link) -> int:
    """How often somebody has waited for `LOOKS` looks in a meeting, so far."""
    found: int = _load(link.words, DELAYS)
    return found


@numba.njit(nogil=True, error_model="numpy")
def be_patient(link: Link, times: int) -> None:
    """From now on sleep in meetings after so many times `LOOKS` looks.

    It costs the more the others are kept from coming: a system lets a thread go on sooner that has slept. Where
    they are only slow to wake up, each that sleeps in turn makes the others sleep.
    """
    _swap(link.words, PATIENCE, times)


@numba.njit(nogil=True, error_model="numpy")
def meet(link: Link, members: int, patient: bool = True) -> None:
    """Return when the first `members` are all here; each can read what the others wrote before.

    Who is not `patient` sleeps as soon as `LOOKS` looks were not enough; for others see `be_patient`.
    """
    if members == 1:
        return
    meetings = _load(link.words, MEETINGS)
    if _add(link.words, ARRIVED, 1) < members - 1:
        late = _await_change(link, MEETINGS, meetings, _load(link.words, PATIENCE) if patient else 1)
        if late:
            _add(link.words, DELAYS, late)
        return
    _swap(link.words, ARRIVED, 0)
    _add(link.words, MEETINGS, 1)
    for member in range(members):
        if member != link.me:
            _wake(link, member)
