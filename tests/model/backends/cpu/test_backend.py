"""The compiled kernel is near the reference, and a row's bits depend on nothing but the row's own sequence."""

import gc
import os
import sys
import threading
import weakref
from dataclasses import replace
from typing import Any

import numba
import numpy as np
import pytest
import torch

from model.backends.cpu.amx import request_amx
from model.backends.cpu.backend import Int8Backend
from model.backends.cpu.buffers import kernel_config, make_cache, make_scratch, quantise_weights
from model.backends.cpu.step_costs import SHARDED, WHOLE
from model.config import GPTConfig
from model.network import GPT
from model.sampling.sampler import Logits
from model.weights import from_tensors
from tests.model.backends.test_eager import BUNDLED_SHAPE, text, uncached
from tests.tiny import LEARNED, ROTARY, tiny_checkpoint

_numba: Any = numba  # it has no annotations

NANOGPT_SHAPE = GPTConfig(65, 2, bias=True)
QUIET_SHAPE = GPTConfig(65, 2, positions="rotary", qk_norm=True)  # two norms, with different epsilons
ODD_SHAPE = GPTConfig(37, 2, n_head=3, n_embd=42, block_size=24, positions="rotary", norm="rmsnorm")


def network_of(config: GPTConfig) -> GPT:
    """Random weights; biases and weights of norms too."""
    torch.manual_seed(0)
    network = GPT(config).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            parameter.add_(0.1 * torch.randn_like(parameter))
        elif "tokens" in name:
            parameter.mul_(10)
        elif config is QUIET_SHAPE and ("query" in name or "key" in name):
            parameter.mul_(0.01)
    return network


def int8_backend(network: GPT, slots: int, threads: int | None = None) -> Int8Backend:
    """A backend with this network's weights."""
    return Int8Backend(network.config, from_tensors(network.state_dict()), slots, threads)


def read(backend: Int8Backend, slot: int, ids: list[int], chunk_sizes: list[int]) -> Logits:
    """Return the logits (T, V) of a sequence that is read in chunks of these sizes."""
    backend.truncate(slot)
    logits = []
    first = 0
    for size in filter(None, chunk_sizes):
        logits.append(backend.forward({slot: ids[first : first + size]})[slot])
        first += size
    assert first == len(ids)
    return np.concatenate(logits)


@pytest.mark.parametrize(
    "config", [BUNDLED_SHAPE, NANOGPT_SHAPE, ODD_SHAPE, replace(BUNDLED_SHAPE, logit_scale=0.8), QUIET_SHAPE]
)
def test_it_is_near_the_reference(config: GPTConfig) -> None:
    network = network_of(config)
    length = config.block_size if config.positions == "learned" else 2 * config.block_size + 5
    ids = text(length, config.vocab_size)
    expected = torch.from_numpy(uncached(network, ids)).log_softmax(-1)
    backend = int8_backend(network, slots=2)
    chunk_sizes = [7, *[1] * 9, *[16] * ((length - 16) // 16)]
    chunk_sizes.append(length - sum(chunk_sizes))
    found = torch.from_numpy(read(backend, 1, ids, chunk_sizes)).log_softmax(-1)
    assert (found - expected).abs().mean() < 0.01 * expected.std()
    assert (found.argmax(-1) == expected.argmax(-1)).float().mean() > 0.95


def _refuse_amx() -> bool:
    return False


@pytest.mark.skipif(not request_amx(), reason="no AMX here")
@pytest.mark.parametrize("config", [BUNDLED_SHAPE, NANOGPT_SHAPE])
def test_amx_changes_no_bit(config: GPTConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """In runs of any length, of one slot or several, on one thread or shared; past the window, where it rolls."""
    network = network_of(config)
    length = config.block_size if config.positions == "learned" else 2 * config.block_size + 5
    by_amx = [int8_backend(network, slots=5, threads=threads) for threads in (1, 2)]
    monkeypatch.setattr("model.backends.cpu.backend.request_amx", _refuse_amx)
    by_vectors = int8_backend(network, slots=5)
    random = np.random.default_rng(2)
    texts = [text(length, config.vocab_size, seed) for seed in range(5)]
    done = [0] * 5
    while min(done) < length:
        chosen = random.choice(5, size=random.integers(1, 6), replace=False).tolist()
        runs: dict[int, list[int]] = {}
        for slot in chosen:
            if done[slot] < length:
                runs[slot] = texts[slot][done[slot] :][: random.integers(1, 17)]
        expected = by_vectors.forward(runs)
        for backend in by_amx:
            found = backend.forward(runs)
            assert all(np.array_equal(found[slot], expected[slot]) for slot in runs)
        for slot, run in runs.items():
            done[slot] += len(run)


def test_one_compiled_kernel_serves_every_network() -> None:
    """A model with small heads made it compile again: its values were contiguous, another type of array."""
    compiled_types = set()
    for config in (LEARNED, ROTARY, replace(ROTARY, n_embd=64), replace(LEARNED, n_embd=96, bias=True)):
        weights = quantise_weights(config, tiny_checkpoint(config).weights)
        cache = make_cache(config, slots=2)
        scratch = make_scratch(weights, cache, config.head_size)
        compiled_types.add(str(_numba.typeof((kernel_config(config, False), weights, cache, scratch))))
    assert len(compiled_types) == 1


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("config", [BUNDLED_SHAPE, LEARNED, ROTARY, ODD_SHAPE])
def test_a_row_is_bitwise_the_same_however_it_is_read(config: GPTConfig, threads: int) -> None:
    """Alone or beside others, in one chunk or many, in any slot, after draft tokens that were rejected."""
    network = network_of(config)
    length = 16 if config.positions == "learned" else 2 * config.block_size + 5
    texts = [text(length, config.vocab_size, seed) for seed in range(9)]
    alone = [read(int8_backend(network, slots=1, threads=1), 0, ids, [1] * length) for ids in texts]
    backend = int8_backend(network, slots=9, threads=threads)
    random = np.random.default_rng(1)
    done = [0] * 9
    while min(done) < length:
        runs: dict[int, list[int]] = {}
        for slot, ids in enumerate(texts):
            size = int(random.integers(0, min(backend.prefill_chunk, length - done[slot]) + 1))
            if size:
                runs[slot] = ids[done[slot] : done[slot] + size]
        if not runs:
            continue
        logits = backend.forward(runs)
        for slot, run in runs.items():
            assert np.array_equal(logits[slot], alone[slot][done[slot] : done[slot] + len(run)])
            kept = int(random.integers(max(1, len(run) - 15), len(run) + 1))
            backend.truncate(slot, done[slot] + kept)
            done[slot] += kept


@pytest.mark.skipif(sys.platform != "linux", reason="binds threads to a core")
def test_rows_are_not_sharded_for_a_while_where_threads_wait_for_a_core() -> None:
    """Both threads on one core: at each barrier one of them waits until the system lets the other run.

    Where other programs use that core as well, they may chance to follow each other without waiting: then the
    pauses begin anew. So it is tried until they do not.
    """
    network = network_of(BUNDLED_SHAPE)
    others = set(threading.enumerate())
    alone = int8_backend(network, slots=1, threads=1)
    shared = int8_backend(network, slots=1, threads=2)
    [other] = (thread for thread in set(threading.enumerate()) - others if thread.name == "kernel-1")
    assert other.native_id
    for costs in (shared._pool.curve.now, shared._pool.curve.measured):
        costs[SHARDED] = costs[WHOLE] / 100  # as on many idle cores, however busy these are
    pauses: list[int] = []
    for _ in range(5):
        for backend in (alone, shared):
            backend.truncate(0)
        shared._pool._backoff[...] = 0
        pauses = pauses_of_steps(shared, alone, [0, other.native_id])
        if pauses == [4, 8, 16, 32, 64]:
            break
    assert pauses == [4, 8, 16, 32, 64]


def pauses_of_steps(shared: Int8Backend, alone: Int8Backend, threads: list[int]) -> list[int]:
    """For how many steps in a row rows are not sharded, while one core is left to these threads of `shared`."""
    cores = os.sched_getaffinity(0)
    shards_of_steps: list[int] = []
    for thread in threads:
        os.sched_setaffinity(thread, [min(cores)])
    try:
        for character in text(190):
            assert np.array_equal(shared.forward({0: [character]})[0], alone.forward({0: [character]})[0])
            shards_of_steps.append(int(shared._pool._assignments[0]["num_shards"]))
    finally:
        for thread in threads:
            os.sched_setaffinity(thread, cores)
    unsharded = "".join(map(str, shards_of_steps)).strip("1").strip("2").split("2")
    return [len(steps) for steps in unsharded]


def test_a_window_rolls_and_draft_tokens_do_not_disturb_it() -> None:
    """A draft token that was rejected has overwritten only what had left the window."""
    network = tiny_checkpoint(ROTARY).network()
    ids = text(200)
    plain = int8_backend(network, slots=1)
    speculating = int8_backend(network, slots=1)
    for position, character in enumerate(ids):
        [expected] = plain.forward({0: [character]})[0]
        [found, *_] = speculating.forward({0: [character, *text(7, seed=position)]})[0]
        speculating.truncate(0, position + 1)
        assert np.array_equal(found, expected)


def test_ids_beyond_its_arrays_are_refused() -> None:
    """Compiled code checks nothing: an id beyond the vocabulary once read foreign memory."""
    backend = int8_backend(tiny_checkpoint(LEARNED).network(), slots=1)
    for ids in ([LEARNED.vocab_size], [-1], [], [0] * (backend.prefill_chunk + 1)):
        with pytest.raises(ValueError, match="of the vocabulary's are possible"):
            backend.forward({0: ids})
    backend.forward({0: [0] * 16})
    with pytest.raises(ValueError, match="learned positions end at 16"):
        backend.forward({0: [0]})


def test_its_threads_and_files_end_with_it() -> None:
    """A server that is given new weights again and again must not collect threads, pipes or old weights."""

    def held() -> tuple[int, int]:
        gc.collect()
        return threading.active_count(), len(os.listdir("/dev/fd"))

    network = tiny_checkpoint(ROTARY).network()
    before = held()
    backend = int8_backend(network, slots=1, threads=3)
    weights = weakref.ref(backend._weights.qkv)
    backend.forward({0: [1]})
    assert held() == (before[0] + 2, before[1] + 6)
    del backend
    assert held() == before
    assert weights() is None
