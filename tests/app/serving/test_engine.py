"""The engine alone: joining, leaving, waiting, pausing, failing."""

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from app.serving.engine import MAX_FAILURES, Engine
from app.serving.request_handle import RequestHandle
from model.backends.eager import EagerBackend
from model.device import Numerics
from model.errors import DrainingError, EngineFailedError, InputError, QueueFullError
from model.generation.generator import Generator
from model.generation.sequence import TextSequence
from model.sampling.sampler import Logits, Sampling
from tests.app.gate import GatedBackend
from tests.conftest import PATIENCE
from tests.tiny import DEVICES, INT8, VOCABULARY, tiny_generator

ENDLESS = 100_000


def make_sequence(seed: int = 0, length: int = ENDLESS) -> TextSequence:
    return TextSequence(VOCABULARY, VOCABULARY.encode("ROMEO:"), seed=seed, max_new_tokens=length)


def expected(seed: int, length: int) -> str:
    return "".join(chunk.text for chunk in tiny_generator().write(make_sequence(seed, length)))


async def read(handle: RequestHandle) -> str:
    text = ""
    while chunks := await handle.take():
        text += "".join(chunk.text for _, chunk in chunks)
    return text


@pytest.fixture
def gate() -> GatedBackend:
    return GatedBackend(tiny_generator(slots=2).backend)


@pytest.fixture
def engine(gate: GatedBackend) -> Iterator[Engine]:
    engine = Engine(Generator(gate), queue_size=2, buffer_characters=50)
    engine.start()
    yield engine
    gate.open()
    engine.close()


async def test_more_requests_than_slots_each_get_their_text(engine: Engine) -> None:
    handles = [engine.submit([make_sequence(seed, 30)]) for seed in range(4)]
    texts = await asyncio.gather(*(read(handle) for handle in handles))
    assert texts == [expected(seed, 30) for seed in range(4)]
    assert all(handle.released.wait(PATIENCE) for handle in handles)
    assert engine.generator.free_slots == 2


async def test_requests_that_join_while_others_end() -> None:
    """The engine walked the queue without its lock to see whether a request had left: `deque mutated
    during iteration` then ended every stream. A handle now counts its own sequences."""
    engine = Engine(tiny_generator(slots=2), queue_size=1_000_000, buffer_characters=50)
    engine.start()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        handles = [engine.submit([make_sequence(seed, 1)]) for seed in range(300)]
        while not handles[50].released.is_set():
            engine.submit([make_sequence(length=1)])
        texts = [await read(handle) for handle in handles[:50]]
    finally:
        sys.setswitchinterval(before)
        engine.close()
    assert texts == [expected(seed, 1) for seed in range(50)]


async def test_a_full_queue_refuses_at_once_and_takes_again_later(engine: Engine, gate: GatedBackend) -> None:
    gate.close()
    handles = [engine.submit([make_sequence(length=20)]) for _ in range(2)]
    handles.append(engine.submit([make_sequence(length=20), make_sequence(1, 20)]))
    with pytest.raises(QueueFullError) as caught:
        engine.submit([make_sequence()])
    assert caught.value.retry_after > 0
    gate.open()
    await asyncio.gather(*(read(handle) for handle in handles))
    assert await read(engine.submit([make_sequence(3, 5)])) == expected(3, 5)


async def test_more_samples_than_ever_fit_are_not_told_to_wait(engine: Engine) -> None:
    with pytest.raises(InputError, match="num_samples: this server takes 4 at most, not 5"):
        engine.submit([make_sequence(seed) for seed in range(5)])


async def test_requests_that_wait_know_their_places(
    engine: Engine, gate: GatedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.serving.engine.PLACES_SECONDS", 0)
    gate.close()
    for seed in (1, 2):
        assert engine.submit([make_sequence(seed, 40)]).place == 0
    first, second = (engine.submit([make_sequence(seed, 5)]) for seed in (3, 4))
    assert await first.next_place(0) == 1
    assert await second.next_place(0) == 2
    first.cancel()
    await asyncio.to_thread(gate.step)
    assert await second.next_place(2) == 1
    gate.open()
    assert await second.next_place(1) == 0
    assert await read(second) == expected(4, 5)


async def test_a_cancelled_stream_leaves_its_slot_within_one_step(engine: Engine, gate: GatedBackend) -> None:
    gate.close()
    handle = engine.submit([make_sequence()])
    await asyncio.to_thread(gate.step)
    assert await handle.take()
    handle.cancel()  # while a step is under way
    steps = len(gate.forwarded)
    gate.open()
    assert await asyncio.to_thread(handle.released.wait, 10)
    assert len(gate.forwarded) == steps + 1
    assert engine.generator.free_slots == 2


async def test_a_request_cancelled_in_the_queue_is_never_written(engine: Engine, gate: GatedBackend) -> None:
    gate.close()
    running = [engine.submit([make_sequence(seed, 40)]) for seed in (1, 2)]
    queued = make_sequence(3)
    handle = engine.submit([queued])
    handle.cancel()
    gate.open()
    await asyncio.gather(*(read(other) for other in running))
    assert await asyncio.to_thread(handle.released.wait, 10)
    assert queued.written == []


async def test_a_slow_reader_pauses_and_the_others_go_on(engine: Engine) -> None:
    slow = engine.submit([make_sequence(1, 400)])
    fast = engine.submit([make_sequence(2, 400)])
    assert await read(fast) == expected(2, 400)
    while len(slow.sequences[0].written) < 50:  # it may still be on its way to its bound
        await asyncio.sleep(0)
    assert slow.full
    assert await read(engine.submit([make_sequence(4, 100)])) == expected(4, 100)
    assert len(slow.sequences[0].written) == 50
    assert await read(slow) == expected(1, 400)


async def test_a_slow_readers_alternatives_take_its_buffer_too(engine: Engine) -> None:
    """Only characters were counted: a thousand alternatives to each filled the memory."""
    sequence = make_sequence(1, 400)
    sequence.logprobs_from = 0
    sequence.alternatives = 4
    slow = engine.submit([sequence])
    assert await read(engine.submit([make_sequence(2, 100)])) == expected(2, 100)
    while not slow.full:  # it may still be on its way to its bound
        await asyncio.sleep(0)
    assert await read(engine.submit([make_sequence(4, 100)])) == expected(4, 100)
    assert len(sequence.written) == 10
    assert await read(slow) == expected(1, 400)


async def test_draining_refuses_new_work_and_finishes_the_old(engine: Engine) -> None:
    handle = engine.submit([make_sequence(1, 60)])
    engine.drain(60)
    assert not engine.ready
    with pytest.raises(DrainingError):
        engine.submit([make_sequence()])
    assert await read(handle) == expected(1, 60)


async def test_a_drain_that_is_over_ends_the_rest_with_an_error(engine: Engine) -> None:
    handle = engine.submit([make_sequence()])
    assert await handle.take()
    engine.drain(0)
    with pytest.raises(DrainingError, match="before the text was finished"):
        await read(handle)
    assert await asyncio.to_thread(handle.released.wait, 10)


def fail_once(backend: Any, monkeypatch: pytest.MonkeyPatch, failure: str) -> None:
    """Let the next step fail: an exception, or numbers that are not."""
    forward = backend.forward

    def fail(runs: Mapping[int, Sequence[int]]) -> dict[int, Logits]:
        monkeypatch.setattr(backend, "forward", forward)
        logits: dict[int, Logits] = forward(runs)
        if failure == "exception":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return {slot: np.full_like(rows, np.nan) for slot, rows in logits.items()}

    monkeypatch.setattr(backend, "forward", fail)


@pytest.mark.parametrize("failure", ["exception", "nan"])
async def test_a_step_that_fails_ends_its_streams_and_the_engine_goes_on(
    engine: Engine, gate: GatedBackend, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    gate.close()
    handles = [engine.submit([make_sequence(seed)]) for seed in range(2)]
    queued = engine.submit([make_sequence(2, 30)])
    await asyncio.to_thread(gate.step)
    fail_once(gate.backend, monkeypatch, failure)
    gate.open()
    for handle in handles:
        with pytest.raises(EngineFailedError) as caught:
            await read(handle)
        assert "CUDA" not in str(caught.value)
        assert await asyncio.to_thread(handle.released.wait, 10)
    assert await read(queued) == expected(2, 30)
    assert await read(engine.submit([make_sequence(3, 30)])) == expected(3, 30)
    assert engine.ready
    assert engine.failures == 1


async def test_a_text_that_ended_in_a_step_that_failed_is_heard_of(
    engine: Engine, gate: GatedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers are woken once a step; when the step failed half-way, one whose text was complete waited for ever."""
    gate.close()
    short = engine.submit([make_sequence(0, 1)])
    other = engine.submit([make_sequence(1)])
    monkeypatch.setattr(other.sequences[0], "accept", lambda *_: 1 / 0)
    reading = asyncio.create_task(read(short))
    await asyncio.sleep(0)  # now it waits
    gate.open()
    assert await asyncio.wait_for(reading, PATIENCE) == expected(0, 1)
    with pytest.raises(EngineFailedError):
        await read(other)


@pytest.mark.parametrize("numerics", [*DEVICES, INT8], ids=lambda one: one.name)
def test_what_a_failed_step_left_behind_does_not_stay(numerics: Numerics) -> None:
    """A masked position is multiplied too, and 0 x NaN is NaN: the caches of a failed step must be cleared."""
    generator = tiny_generator(numerics=numerics)
    text = "".join(chunk.text for chunk in generator.write(make_sequence(length=30)))
    if isinstance(generator.backend, EagerBackend):
        generator.backend._cache.fill_(float("nan"))
    else:
        generator.backend._cache.scales[:] = np.nan  # type: ignore[attr-defined]
    generator.add(make_sequence())
    generator.reset()
    assert generator.free_slots == 4
    assert "".join(chunk.text for chunk in generator.write(make_sequence(length=30))) == text


async def test_an_engine_that_fails_again_and_again_says_so(
    engine: Engine, gate: GatedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(runs: object) -> None:
        raise RuntimeError("CUDA error: the device is lost")

    monkeypatch.setattr(gate.backend, "forward", fail)
    handles = []
    while not engine.failed:
        with suppress(EngineFailedError):
            handles.append(engine.submit([make_sequence()]))
            await read(handles[-1])
    assert len(handles) <= MAX_FAILURES + 1
    assert not engine.ready
    with pytest.raises(EngineFailedError, match="must be restarted"):
        engine.submit([make_sequence()])


async def test_a_drain_tells_those_that_wait_at_once_and_lets_the_others_finish(
    engine: Engine, gate: GatedBackend
) -> None:
    gate.close()
    running = [engine.submit([make_sequence(seed, 40)]) for seed in range(2)]
    await asyncio.to_thread(gate.step)
    queued = engine.submit([make_sequence(2, 40)])
    engine.drain(60)
    gate.open()
    with pytest.raises(DrainingError) as caught:
        await read(queued)
    assert caught.value.retry_after > 0
    assert await asyncio.gather(*(read(handle) for handle in running)) == [expected(seed, 40) for seed in range(2)]


async def test_a_retired_engine_finishes_all_that_it_took_and_ends(engine: Engine) -> None:
    handles = [engine.submit([make_sequence(seed, 40)]) for seed in range(4)]  # two of them wait
    engine.retire()
    with pytest.raises(DrainingError):
        engine.submit([make_sequence()])
    assert await asyncio.gather(*(read(handle) for handle in handles)) == [expected(seed, 40) for seed in range(4)]
    await asyncio.to_thread(engine.close)
    assert engine.ended


@pytest.mark.parametrize(("active", "seconds"), [(1, 0.025), (16, 0.025), (32, 0.05), (1000, 0.1)])
async def test_the_more_are_written_the_rarer_texts_are_flushed_all_together(
    monkeypatch: pytest.MonkeyPatch, active: int, seconds: float
) -> None:
    """With 128 streams, each step's frames of one character each took as long as the step itself."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    loop = asyncio.get_running_loop()
    for late in (0, 0.004, -0.006):
        monkeypatch.setattr(loop, "time", lambda late=late: 10 + late)
        await RequestHandle([make_sequence()], 50, lambda: None, lambda: active).pause()
    assert slept == pytest.approx([seconds, seconds - 0.004, seconds + 0.006])


async def test_samples_of_a_request_differ_and_do_not_wait_for_each_other(engine: Engine) -> None:
    sequences = [
        TextSequence(VOCABULARY, [0], Sampling(), seed=5, sample=sample, max_new_tokens=25) for sample in range(3)
    ]
    handle = engine.submit(sequences)
    assert len(await read(handle)) == 75
    assert len({tuple(sequence.written) for sequence in sequences}) == 3
