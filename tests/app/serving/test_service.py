"""Changing to another checkpoint under way: nobody's text is lost, mixed or refused."""

import asyncio
import gc
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.serving.request_handle import RequestHandle
from app.serving.service import Service, Serving
from app.settings import ServerSettings
from model.checkpoint import write_checkpoint
from model.errors import DrainingError
from model.generation.sequence import TextSequence
from tests.tiny import LEARNED, VOCABULARY, tiny_checkpoint, tiny_folder, tiny_generator


def make_stream(seed: int, length: int) -> TextSequence:
    return TextSequence(VOCABULARY, VOCABULARY.encode("ROMEO:"), seed=seed, max_new_tokens=length)


async def read(handle: RequestHandle) -> str:
    text = ""
    while chunks := await handle.take():
        text += "".join(chunk.text for _, chunk in chunks)
    return text


def expected(seed: int, length: int, weights: int) -> str:
    generator = tiny_generator(checkpoint=tiny_checkpoint(seed=weights))
    return "".join(chunk.text for chunk in generator.write(make_stream(seed, length)))


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A checkpoint folder of this test's own."""
    folder = tmp_path / "mine"
    tiny_folder(folder)
    return folder


def replace_checkpoint(folder: Path, seed: int) -> None:
    shutil.rmtree(folder)
    tiny_folder(folder, seed=seed)


async def test_running_streams_stay_on_their_checkpoint_and_new_ones_take_the_new(mine: Path) -> None:
    service = Service(ServerSettings(checkpoint=mine, device="cpu", slots=2, buffer_characters=20))
    service.start()
    try:
        old = service.current
        handles = [old.engine.submit([make_stream(seed, 200)]) for seed in range(4)]  # two wait
        replace_checkpoint(mine, seed=1)
        assert await service.reload()
        assert service.current.card.identity != old.card.identity
        new = service.current.engine.submit([make_stream(0, 200)])
        assert await read(new) == expected(0, 200, weights=1)
        assert await asyncio.gather(*(read(handle) for handle in handles)) == [
            expected(i, 200, weights=0) for i in range(4)
        ]
        await asyncio.to_thread(old.engine.close)
        assert old.engine.ended
        assert service.idle
        generator = weakref.ref(old.engine.generator)
        service.release()
        del old, handles
        gc.collect()
        assert generator() is None
    finally:
        service.close()


async def test_a_checkpoint_that_cannot_be_served_changes_nothing(
    mine: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(ServerSettings(checkpoint=mine, device="cpu"))
    service.start()
    try:
        old = service.current
        (mine / "model.safetensors").write_bytes(b"not weights")
        assert not await service.reload()
        assert service.current is old
        assert "model.safetensors" in caplog.text
        assert await read(old.engine.submit([make_stream(0, 50)])) == expected(0, 50, weights=0)
    finally:
        service.close()


async def test_a_server_that_is_told_to_stop_while_it_loads_takes_no_work(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new checkpoint's engine knew nothing of it: the server was ready again."""
    service = Service(ServerSettings(checkpoint=mine, device="cpu"))
    service.start()
    load = Serving.load

    def load_and_stop(settings: ServerSettings) -> Serving:
        new = load(settings)
        service.drain(60)
        return new

    monkeypatch.setattr(Serving, "load", load_and_stop)
    try:
        await service.reload()
        assert not service.current.engine.ready
        with pytest.raises(DrainingError):
            service.current.engine.submit([make_stream(0, 5)])
    finally:
        service.close()


async def test_weights_that_write_nothing_finite_are_refused(mine: Path) -> None:
    """Finite but far too large weights were served, and failed at the first text."""
    service = Service(ServerSettings(checkpoint=mine, device="cpu", dtype="float32"))
    checkpoint = tiny_checkpoint(LEARNED)
    weights = {name: np.float32(3e38) * np.sign(array) for name, array in checkpoint.weights.items()}
    write_checkpoint(mine, replace(checkpoint, weights=weights))
    assert not await service.reload()
    service.close()


async def test_many_changes_leave_no_engine_behind_but_those_that_still_write(mine: Path) -> None:
    service = Service(ServerSettings(checkpoint=mine, device="cpu", slots=2, buffer_characters=20))
    service.start()
    try:
        first = service.current
        handle = first.engine.submit([make_stream(0, 200)])
        assert await service.reload()
        for _ in range(3):
            old = service.current
            assert await service.reload()
            await asyncio.to_thread(old.engine.close)
        service.release()
        assert service.engines == [service.current.engine, first.engine]
        assert await read(handle) == expected(0, 200, weights=0)
    finally:
        service.close()
