"""The server's three phases: load the model and listen, serve, drain. Owns the signals that end or reload it.

Knows nothing of what the app answers.
"""

import asyncio
import gc
import logging.config
import signal
import socket
import sys
import time
from types import FrameType

import uvicorn

from app.main import create_app
from app.observability import log
from app.security.api_keys import ApiKeys
from app.server import listening
from app.server.http_protocol import Connection, ServerConfig
from app.server.listening import Room
from app.serving.service import Service
from app.settings import ServerSettings, remarks_on_variables
from model.errors import EngineFailedError, InputError

logger = logging.getLogger("app")

SWITCH_SECONDS = 0.0005  # that Python code may keep the generator waiting; 0.005 if not set
FLUSH_SECONDS = 1  # for the last frames to reach their clients, once all is written


class Server(uvicorn.Server):
    """uvicorn, which answers while it drains.

    Asked to stop, it takes no new work but goes on listening: `/health/ready` and new requests are answered 503
    until running streams have ended. Asked again, or when that takes too long, it tells them so and stops.
    """

    config: ServerConfig

    def __init__(self, config: ServerConfig, service: Service, keys: ApiKeys, repeats: log.Repeats) -> None:
        super().__init__(config)
        self.service = service
        self.keys = keys
        self.repeats = repeats
        self._accepting: list[asyncio.Task[None]] = []
        self._reloading: asyncio.Task[None] | None = None  # kept: a task that nobody holds may be collected
        self._is_reload_due = False
        self._draining: tuple[int, FrameType | None] | None = None
        self._deadline = 0.0

    @property
    def is_interrupted(self) -> bool:
        """Whether Ctrl-C asked it to stop."""
        return self._draining is not None and self._draining[0] == signal.SIGINT

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but accepts connections by itself; from then on SIGHUP reads checkpoint and keys again."""
        await super().startup([])
        loop = asyncio.get_running_loop()
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, self.handle_hangup)
        for listener in sockets or ():
            accepting = loop.create_task(listening.accept(listener, self.config.room, self._make_connection))
            accepting.add_done_callback(log.tell_failure)
            self._accepting.append(accepting)
            host, port = listener.getsockname()[:2]
            host = f"[{host}]" if ":" in host else host
            logger.info("running on http://%s:%d (Ctrl-C stops it)", host, port)

    def _make_connection(self) -> Connection:
        return Connection(self.config, self.server_state, self.lifespan.state)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, once nobody is accepted any more."""
        for accepting in self._accepting:
            accepting.cancel()
        await super().shutdown(sockets)

    def handle_hangup(self) -> None:
        """On SIGHUP. While one is being answered, any number of others are one more."""
        if self._draining is not None or self.should_exit:
            logger.info("the server stops: nothing is read again")
            return
        self.keys.reload()
        self._is_reload_due = True
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.get_running_loop().create_task(self._reload())
            self._reloading.add_done_callback(log.tell_failure)

    async def _reload(self) -> None:
        while self._is_reload_due:
            self._is_reload_due = False
            await self.service.reload()

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
        self.repeats.sweep()
        if self._draining is not None and (self.service.idle or time.monotonic() >= self._deadline):
            super().handle_exit(*self._draining)
        if self.service.current.engine.failed:
            self.should_exit = True
        return await super().on_tick(counter)


def serve(settings: ServerSettings) -> None:
    """Start up, serve until told to stop, finish what was begun."""
    sys.setswitchinterval(SWITCH_SECONDS)
    repeats = log.Repeats()
    logging.config.dictConfig(log.configuration(settings, repeats))
    for remark in remarks_on_variables():
        logger.warning("%s", remark)
    listeners = listening.bind(settings.host, settings.port)
    try:
        serve_on(listeners, settings, repeats)
    finally:
        listening.close(listeners)


def serve_on(listeners: list[socket.socket], settings: ServerSettings, repeats: log.Repeats) -> None:
    """Load what is to be served, then let clients connect."""
    room = Room()
    try:
        app = create_app(settings)
    except MemoryError:
        raise InputError("slots", f"there is no memory for {settings.slots} beside the model; lower it") from None
    gc.collect()
    gc.freeze()  # 400,000 objects that stay: to walk through them would stop all texts for a tenth of a second
    service: Service = app.state.service
    card = service.current.card
    logger.info("checkpoint %s: %.2fM parameters on %s", card.checkpoint, card.parameters / 1e6, card.numerics)
    room.size = listening.make_room(settings)
    config = ServerConfig(
        app,
        settings,
        room,
        timeout_graceful_shutdown=FLUSH_SECONDS,
        log_config=None,
        access_log=False,  # it has prompts: they are in the query of GET /generate
    )
    listening.listen(listeners, settings.host, settings.port)
    server = Server(config, service, app.state.keys, repeats)
    server.run(listeners)
    if service.current.engine.failed:
        raise EngineFailedError("the generator cannot go on; the log has why")
    if server.is_interrupted:  # which uvicorn raises, too, but not if its loop has ended by then
        raise KeyboardInterrupt
