"""What happens to everybody's texts when the server is told to stop, fails, or changes its checkpoint."""

import asyncio
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from httpx_sse import ServerSentEvent, aconnect_sse

from app.serving.service import Service
from model.generation.sequence import TextSequence
from model.sampling.sampler import Logits
from tests.conftest import LiveServer
from tests.e2e.test_process import serving
from tests.tiny import VOCABULARY, tiny_checkpoint, tiny_folder, tiny_generator

MANY = httpx.Limits(max_connections=None)
ENDLESS = {"max_new_tokens": 100_000}


async def events_of(
    client: httpx.AsyncClient,
    url: str,
    fields: dict[str, Any],
    begun: asyncio.Event | None = None,
    at: str = "text",
    headers: dict[str, str] | None = None,
) -> list[ServerSentEvent]:
    """All of a stream's events; `begun` is set when the first `at` comes. A body that is cut raises."""
    events: list[ServerSentEvent] = []
    async with aconnect_sse(client, "POST", f"{url}/generate", json=fields, headers=headers or {}) as source:
        async for event in source.aiter_sse():
            events.append(event)
            if begun is not None and event.event == at:
                begun.set()
    return events


def expected(seed: int, length: int, weights: int = 0) -> str:
    stream = TextSequence(VOCABULARY, VOCABULARY.encode("ROMEO:"), seed=seed, max_new_tokens=length)
    generator = tiny_generator(checkpoint=tiny_checkpoint(seed=weights))
    return "".join(chunk.text for chunk in generator.write(stream))


def text_of(events: Sequence[ServerSentEvent]) -> str:
    return "".join(event.json()["text"] for event in events if event.event == "text")


async def test_on_sigterm_a_hundred_streams_and_fifty_that_wait_each_hear_how_it_ends(folder: Path) -> None:
    flags = ("--slots=100", "--queue_size=50", "--drain_seconds=6", "--recording=False")
    with serving(folder, *flags) as (process, url):
        async with httpx.AsyncClient(timeout=60, limits=MANY) as client, asyncio.TaskGroup() as group:
            begun = [asyncio.Event() for _ in range(150)]
            fields = [ENDLESS if i % 2 else {"max_new_tokens": 3000} for i in range(100)]
            live = [
                group.create_task(events_of(client, url, *pair)) for pair in zip(fields, begun[:100], strict=True)
            ]
            await asyncio.gather(*(one.wait() for one in begun[:100]))
            queued = [group.create_task(events_of(client, url, ENDLESS, one, "start")) for one in begun[100:]]
            await asyncio.gather(*(one.wait() for one in begun[100:]))
            process.send_signal(signal.SIGTERM)
            answers = await asyncio.gather(*queued)
            ready = await client.get(f"{url}/health/ready")
            refused = await client.post(f"{url}/generate", json={})
            ended = await asyncio.gather(*live)
    for events in answers:
        names = [event.event for event in events]
        assert [name for name in names if name != "waiting"] == ["start", "error"]  # a place is told as it changes
        assert events[-1].json()["status"] == 503
        assert events[-1].json()["retry_after"] > 0
    assert ready.status_code == 503
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert {events[-1].event for events in ended[::2]} <= {"done", "error"}
    assert {events[-1].event for events in ended[1::2]} == {"error"}
    for events in ended:
        assert sum(event.event in ("done", "error") for event in events) == 1
    process.wait(60)


@pytest.mark.parametrize("failure", ["exception", "nan"])
async def test_a_failed_step_ends_every_stream_with_an_error_and_the_server_writes_again(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    forward = server.gate.backend.forward

    def fail(runs: Mapping[int, Sequence[int]]) -> dict[int, Logits]:
        monkeypatch.setattr(server.gate.backend, "forward", forward)
        if failure == "exception":
            raise MemoryError("not for clients")
        return {slot: np.full_like(rows, np.nan) for slot, rows in forward(runs).items()}

    async with httpx.AsyncClient(timeout=60, limits=MANY) as client, asyncio.TaskGroup() as group:
        begun = [asyncio.Event() for _ in range(32)]
        streams = [group.create_task(events_of(client, server.url, ENDLESS, one)) for one in begun]
        await asyncio.gather(*(one.wait() for one in begun))
        monkeypatch.setattr(server.gate.backend, "forward", fail)
        for events in await asyncio.gather(*streams):
            assert events[-1].event == "error"
            assert events[-1].json()["status"] == 500
            assert "not for clients" not in events[-1].data
        assert (await client.get(f"{server.url}/health/ready")).status_code == 200
        again = {"prompt": "ROMEO:", "seed": 5, "max_new_tokens": 60}
        assert text_of(await events_of(client, server.url, again)) == expected(5, 60)


async def test_a_stream_that_failed_goes_on_where_it_was(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"prompt": "ROMEO:", "seed": 9, "max_new_tokens": 2000}
    forward = server.gate.backend.forward

    def fail(runs: Mapping[int, Sequence[int]]) -> dict[int, Logits]:
        monkeypatch.setattr(server.gate.backend, "forward", forward)
        raise MemoryError

    async with httpx.AsyncClient(timeout=60) as client, asyncio.TaskGroup() as group:
        begun = asyncio.Event()
        stream = group.create_task(events_of(client, server.url, fields, begun))
        await begun.wait()
        monkeypatch.setattr(server.gate.backend, "forward", fail)
        first = await stream
        assert first[-1].event == "error"
        last = next(event.id for event in reversed(first) if event.id)
        rest = await events_of(client, server.url, fields, headers={"last-event-id": last})
    assert text_of(first) + text_of(rest) == expected(9, 2000)


async def test_a_new_checkpoint_under_load_fails_no_request_and_mixes_no_text(
    server: LiveServer, tmp_path: Path
) -> None:
    """Each text is whole, from the checkpoint that its `start` names."""
    tiny_folder(tmp_path / "new", seed=1)
    service: Service = server.app.state.service
    service.settings = service.settings.model_copy(update={"checkpoint": tmp_path / "new"})
    old = service.current.card.checkpoint
    finished = dict[str, int]()
    stop = asyncio.Event()
    texts = {(old, seed): expected(seed, 80) for seed in range(4)}

    async def ask_on(client: httpx.AsyncClient, seed: int) -> None:
        fields = {"prompt": "ROMEO:", "seed": seed, "max_new_tokens": 80}
        while not stop.is_set():
            events = await events_of(client, server.url, fields)
            checkpoint = events[0].json()["checkpoint"]
            key = checkpoint, seed
            texts.setdefault(key, expected(seed, 80, weights=1))
            assert text_of(events) == texts[key]
            finished[checkpoint] = finished.get(checkpoint, 0) + 1

    async with httpx.AsyncClient(timeout=60, limits=MANY) as client, asyncio.TaskGroup() as group:
        clients = [group.create_task(ask_on(client, seed)) for seed in range(4)]
        while finished.get(old, 0) < 20:
            await asyncio.sleep(0)
        loop = server.servers[0].get_loop()
        assert await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(service.reload(), loop))
        new = service.current.card.checkpoint
        while finished.get(new, 0) < 20:
            await asyncio.sleep(0)
        stop.set()
        await asyncio.gather(*clients)
    assert finished.keys() == {old, new}


async def test_sighup_reads_the_checkpoint_again(tmp_path: Path) -> None:
    tiny_folder(tmp_path / "served")
    tiny_folder(tmp_path / "new", seed=1)
    with serving(tmp_path / "served") as (process, url):
        async with httpx.AsyncClient(timeout=60) as client, asyncio.TaskGroup() as group:
            before = (await client.get(f"{url}/info")).json()["checkpoint"]
            begun = asyncio.Event()
            fields = {"prompt": "ROMEO:", "seed": 2, "max_new_tokens": 20_000}
            stream = group.create_task(events_of(client, url, fields, begun))
            await begun.wait()
            shutil.rmtree(tmp_path / "served")
            (tmp_path / "new").rename(tmp_path / "served")
            process.send_signal(signal.SIGHUP)
            while (after := (await client.get(f"{url}/info")).json()["checkpoint"]) == before:
                await asyncio.sleep(0)
            new = await events_of(client, url, fields | {"max_new_tokens": 100})
            old = await stream
    assert new[0].json()["checkpoint"] == after
    assert text_of(new) == expected(2, 100, weights=1)
    assert old[-1].event == "done"
    assert old[0].json()["checkpoint"] == before
    assert text_of(old)[:100] == expected(2, 100)
