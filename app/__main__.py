"""Serve: `python -m app --host --port`."""

import asyncio
import gc
import logging.config
import signal
import socket
import sys
import time
from types import FrameType

import uvicorn

from app import log
from app.connections import ServerConfig
from app.listening import bind, close, listen
from app.main import create_app
from app.protection import ApiKeys
from app.service import Service
from app.settings import ServerSettings, remarks_on_variables
from model.cli import run
from model.errors import EngineFailedError

logger = logging.getLogger("app")

SWITCH_SECONDS = 0.0005  # that Python code may keep the generator waiting; 0.005 if not set
FLUSH_SECONDS = 1  # for the last frames to reach their clients, once all is written


class Server(uvicorn.Server):
    """uvicorn, which answers while it drains.

    Asked to stop, it takes no new work but goes on listening: `/health/ready` and new requests are answered 503
    until running streams have ended. Asked again, or when that takes too long, it tells them so and stops.
    """

    def __init__(self, config: uvicorn.Config, service: Service, keys: ApiKeys) -> None:
        super().__init__(config)
        self.service, self.keys = service, keys
        self._draining: tuple[int, FrameType | None] | None = None
        self._deadline = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; from then on SIGHUP changes to a new checkpoint and to new keys. Says where it listens, as
        uvicorn does only where it opens the sockets itself.
        """
        await super().startup(sockets)
        if hasattr(signal, "SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.handle_hangup)
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        for port in dict.fromkeys(bound.getsockname()[1] for bound in sockets or ()):
            logger.info("running on http://%s:%d (Ctrl-C stops it)", host, port)

    def handle_hangup(self) -> None:
        """On SIGHUP."""
        self.keys.reload()
        asyncio.get_running_loop().create_task(self.service.reload())

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On SIGINT or SIGTERM."""
        if self.should_exit:
            super().handle_exit(sig, frame)
            return
        seconds = self.service.settings.drain_seconds if self._draining is None else 0.0
        self._draining = sig, frame
        self._deadline = time.monotonic() + seconds
        self.service.drain(seconds)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: is it time to stop, or to let an old checkpoint go?"""
        self.service.release()
        if self._draining is not None and (self.service.idle or time.monotonic() >= self._deadline):
            super().handle_exit(*self._draining)
        if self.service.current.engine.failed:
            self.should_exit = True
        return await super().on_tick(counter)


def serve(settings: ServerSettings) -> None:
    """Start up, serve until told to stop, finish what was begun."""
    sys.setswitchinterval(SWITCH_SECONDS)
    logging.config.dictConfig(log.configuration(settings))
    for remark in remarks_on_variables():
        logger.warning("%s", remark)
    sockets = bind(settings.host, settings.port)
    try:
        serve_on(sockets, settings)
    finally:
        close(sockets)


def serve_on(sockets: list[socket.socket], settings: ServerSettings) -> None:
    """Load what is to be served, then let clients connect."""
    app = create_app(settings)
    gc.collect()
    gc.freeze()  # 400,000 objects that stay: to walk through them would stop all texts for a tenth of a second
    service: Service = app.state.service
    card = service.current.card
    logger.info("checkpoint %s: %.2fM parameters on %s", card.checkpoint, card.parameters / 1e6, card.numerics)
    config = ServerConfig(
        app,
        settings,
        timeout_graceful_shutdown=FLUSH_SECONDS,
        log_config=None,
        access_log=False,  # it has prompts: they are in the query of GET /generate
    )
    listen(sockets, settings.host, settings.port)
    Server(config, service, app.state.keys).run(sockets)
    if service.current.engine.failed:
        raise EngineFailedError("the generator cannot go on; the log has why")


if __name__ == "__main__":
    sys.exit(run(ServerSettings, serve, sys.argv[1:]))
