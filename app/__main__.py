"""Serve: `python -m app --host --port`."""

import asyncio
import signal
import sys
import time
from types import FrameType

import uvicorn

from app.main import create_app
from app.service import Service
from app.settings import ServerSettings
from model.cli import run
from model.errors import EngineFailedError

SWITCH_SECONDS = 0.0005  # that Python code may keep the generator waiting; 0.005 if not set
FLUSH_SECONDS = 1  # for the last frames to reach their clients, once all is written


class Server(uvicorn.Server):
    """uvicorn, which answers while it drains.

    Asked to stop, it takes no new work but goes on listening: `/health/ready` and new requests are answered 503
    until running streams have ended. Asked again, or when that takes too long, it stops at once.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        self._draining: tuple[int, FrameType | None] | None = None
        self._deadline = 0.0

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """As uvicorn's; from then on SIGHUP changes to a new checkpoint."""
        await super().startup(sockets)  # type: ignore[arg-type]
        if hasattr(signal, "SIGHUP"):
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, lambda: loop.create_task(self.service.reload()))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On SIGINT or SIGTERM."""
        if self._draining is not None:
            super().handle_exit(sig, frame)
            return
        self._draining = sig, frame
        self._deadline = time.monotonic() + self.service.settings.drain_seconds
        self.service.drain()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: is it time to stop?"""
        if self._draining is not None and (self.service.idle or time.monotonic() >= self._deadline):
            super().handle_exit(*self._draining)
        if self.service.current.engine.failed:
            self.should_exit = True
        return await super().on_tick(counter)


def serve(settings: ServerSettings) -> None:
    """Start up, serve until told to stop, finish what was begun."""
    sys.setswitchinterval(SWITCH_SECONDS)
    app = create_app(settings)
    service: Service = app.state.service
    card = service.current.card
    print(f"checkpoint {card.checkpoint}: {card.parameters / 1e6:.2f}M parameters on {card.numerics}")
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        timeout_graceful_shutdown=FLUSH_SECONDS,
        timeout_keep_alive=settings.idle_timeout,
        ws="none",
    )
    Server(config, service).run()
    if service.current.engine.failed:
        raise EngineFailedError("the generator cannot go on; the log has why")


if __name__ == "__main__":
    sys.exit(run(ServerSettings, serve, sys.argv[1:]))
