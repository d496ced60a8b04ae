"""Threads wait for each other in compiled code, whether the others come at once or have to be woken."""

from threading import Thread
from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from model.backends.cpu import barrier as barrier_functions
from model.backends.cpu.barrier import (
    BarrierHandle,
    barrier_wait,
    close_barrier,
    make_barrier,
    start_worker,
    wait_for_start,
)

compiled: Any = numba.njit(nogil=True)
count_expired_rounds = compiled(barrier_functions.count_expired_rounds)
set_rounds_before_sleep = compiled(barrier_functions.set_rounds_before_sleep)

BARRIERS = 400


@numba.njit(nogil=True)
def pass_barriers(
    handle: BarrierHandle, num_workers: int, delays: NDArray[np.int64], seen: NDArray[np.int64]
) -> int:
    """Come to each barrier after so many passes of a loop; return how often another had not come before it."""
    missed = 0
    for barrier in range(1, len(delays[handle.worker]) + 1):
        spent = 0.0
        for i in range(delays[handle.worker, barrier - 1]):
            spent += np.sqrt(i)
        seen[handle.worker, 0] = barrier + (spent < 0)
        barrier_wait(handle, num_workers)
        for other in range(num_workers):
            missed += seen[other, 0] != barrier
        barrier_wait(handle, num_workers)
    return missed


@numba.njit(nogil=True)
def count_starts(handle: BarrierHandle, counted: NDArray[np.int64]) -> None:
    """Count each start until there have been as many as `counted[worker, 1]` says."""
    while counted[handle.worker, 0] < counted[handle.worker, 1]:
        wait_for_start(handle, counted[handle.worker, 0])
        counted[handle.worker, 0] += 1
        barrier_wait(handle, 2)


@numba.njit(nogil=True)
def start_often(handle: BarrierHandle, starts: int) -> None:
    for _ in range(starts):
        start_worker(handle, 1)
        barrier_wait(handle, 2)


@pytest.mark.parametrize("rounds_before_sleep", [1, 3])
@pytest.mark.parametrize("num_workers", [1, 2, 3, 5])
def test_nobody_passes_a_barrier_before_all_have_come(num_workers: int, rounds_before_sleep: int) -> None:
    random = np.random.default_rng(num_workers)
    # mostly at once; at times so late that the others sleep
    delays = random.choice([0, 100, 10_000, 1_000_000], size=(num_workers, BARRIERS), p=[0.6, 0.3, 0.08, 0.02])
    handles = make_barrier(num_workers)
    seen = np.zeros((num_workers, 16), np.int64)
    missed = [-1] * num_workers
    set_rounds_before_sleep(handles[0], rounds_before_sleep)

    def take_part(handle: BarrierHandle) -> None:
        missed[handle.worker] = pass_barriers(handle, num_workers, delays, seen)

    threads = [Thread(target=take_part, args=(handle,)) for handle in handles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expired_rounds = count_expired_rounds(handles[0])
    close_barrier(handles)
    assert missed == [0] * num_workers
    assert (expired_rounds > 0) == (num_workers > 1)


def test_each_start_is_answered_whether_the_other_sleeps_or_not() -> None:
    handles = make_barrier(2)
    counted = np.zeros((2, 16), np.int64)
    counted[1, 1] = 1000
    thread = Thread(target=count_starts, args=(handles[1], counted))
    thread.start()
    start_often(handles[0], 1000)
    assert counted[1, 0] == 1000
    thread.join()
    close_barrier(handles)
