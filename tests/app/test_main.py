"""What signals do to the server.

The task of a reload was held by nobody, so it could be collected before its end, and each SIGHUP began one more.
"""

import asyncio
import gc
import signal
import weakref
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.observability import log
from app.security.api_keys import ApiKeys
from app.server.http_protocol import ServerConfig
from app.server.lifecycle import Server
from app.serving.service import Service


class Reloads:
    """In the place of the service: reloads that end when told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()
        self.settings = SimpleNamespace(drain_seconds=5.0)
        self._error = error

    async def reload(self) -> bool:
        self.begun += 1
        here = asyncio.get_running_loop().create_future()  # what waits is known to nobody else
        waiting = weakref.ref(here)
        asyncio.get_running_loop().call_soon(self._resolve, waiting)
        await here
        await self.may_end.wait()
        if self._error is not None:
            raise self._error
        return True

    @staticmethod
    def _resolve(waiting: "weakref.ref[asyncio.Future[None]]") -> None:
        gc.collect()
        future = waiting()
        assert future is not None
        future.set_result(None)

    def drain(self, seconds: float) -> None:
        pass


def server_of(service: Reloads) -> Server:
    keys = cast(ApiKeys, SimpleNamespace(reload=lambda: None))
    config: Any = SimpleNamespace(limit_max_requests=None, limit_max_requests_jitter=0)
    return Server(cast(ServerConfig, config), cast(Service, service), keys, log.Repeats())


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_hangups_during_a_reload_are_one_more() -> None:
    service = Reloads()
    server = server_of(service)
    server.handle_hangup()
    await turns()
    for _ in range(50):
        server.handle_hangup()
    await turns()
    assert service.begun == 1
    service.may_end.set()
    await turns()
    assert service.begun == 2
    server.handle_hangup()
    await turns()
    assert service.begun == 3


async def test_a_hangup_while_the_server_stops_reads_nothing(caplog: pytest.LogCaptureFixture) -> None:
    service = Reloads()
    server = server_of(service)
    server.handle_exit(signal.SIGTERM, None)
    with caplog.at_level("INFO"):
        server.handle_hangup()
    await turns()
    assert service.begun == 0
    assert "nothing is read again" in caplog.text


async def test_what_ends_a_reload_is_logged_and_the_next_one_is_done(caplog: pytest.LogCaptureFixture) -> None:
    service = Reloads(RuntimeError("no device"))
    service.may_end.set()
    server = server_of(service)
    server.handle_hangup()
    await turns()
    assert "no device" in caplog.text
    server.handle_hangup()
    await turns()
    assert service.begun == 2
