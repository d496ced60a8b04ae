"""Threads meet in compiled code, whether the others come at once or have to be woken."""

from threading import Thread

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from model.backends.cpu.barrier import Link, await_call, be_patient, call, close_links, delays, make_links, meet

MEETINGS = 400


@numba.njit(nogil=True)
def keep_meeting(link: Link, members: int, waits: NDArray[np.int64], seen: NDArray[np.int64]) -> int:
    """Come to each meeting after so many turns of a loop; returns how often another was not there before it."""
    missed = 0
    for meeting in range(1, len(waits[link.me]) + 1):
        spent = 0.0
        for turn in range(waits[link.me, meeting - 1]):
            spent += np.sqrt(turn)
        seen[link.me, 0] = meeting + (spent < 0)
        meet(link, members)
        for other in range(members):
            missed += seen[other, 0] != meeting
        meet(link, members)
    return missed


@numba.njit(nogil=True)
def count_calls(link: Link, counted: NDArray[np.int64]) -> None:
    """Count each call until there have been as many as `counted[me, 1]` says."""
    while counted[link.me, 0] < counted[link.me, 1]:
        await_call(link, counted[link.me, 0])
        counted[link.me, 0] += 1
        meet(link, 2)


@numba.njit(nogil=True)
def make_calls(link: Link, calls: int) -> None:
    for _ in range(calls):
        call(link, 1)
        meet(link, 2)


@pytest.mark.parametrize("patience", [1, 3])
@pytest.mark.parametrize("members", [1, 2, 3, 5])
def test_nobody_leaves_a_meeting_before_all_are_there(members: int, patience: int) -> None:
    random = np.random.default_rng(members)
    # mostly at once; at times so late that the others sleep
    waits = random.choice([0, 100, 10_000, 1_000_000], size=(members, MEETINGS), p=[0.6, 0.3, 0.08, 0.02])
    links, seen, missed = make_links(members), np.zeros((members, 16), np.int64), [-1] * members
    be_patient(links[0], patience)

    def take_part(link: Link) -> None:
        missed[link.me] = keep_meeting(link, members, waits, seen)

    threads = [Thread(target=take_part, args=(link,)) for link in links]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    late = delays(links[0])
    close_links(links)
    assert missed == [0] * members
    assert (late > 0) == (members > 1)


def test_each_call_is_answered_whether_the_other_sleeps_or_not() -> None:
    links, counted = make_links(2), np.zeros((2, 16), np.int64)
    counted[1, 1] = 1000
    thread = Thread(target=count_calls, args=(links[1], counted))
    thread.start()
    make_calls(links[0], 1000)
    assert counted[1, 0] == 1000
    thread.join()
    close_links(links)
