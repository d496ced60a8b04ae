"""The server's three phases: load the model and listen; serve; drain. Owns the signals that stop or reload it.

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
from app.server.listening import ConnectionLimit
from app.serving.service import Service
from app.settings import ServerSettings, remarks_on_variables
from model.errors import EngineFailedError, InputError

logger = logging.getLogger("app")

SWITCH_SECONDS = 0.0005  # for which Python code may keep the generator waiting; the default is 0.005
FLUSH_SECONDS = 1  # for the last frames to reach their clients, once all has been generated


class Server(uvicorn.Server):
    """uvicorn's server, which goes on answering while it drains.

    After the first signal to stop it takes no new work but goes on listening: `/health/ready` and new requests are
    answered 503 until running streams have ended. After a second signal, or when that takes too long, running
    streams end with an error and the server stops.
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
        self._draining: tuple[int, FrameType | None] | None = None  # the arguments of the signal's handler
        self._deadline = 0.0

    @property
    def is_interrupted(self) -> bool:
        """True if it was stopped by Ctrl-C."""
        return self._draining is not None and self._draining[0] == signal.SIGINT

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start up as uvicorn does, but accept connections in tasks of its own, and handle SIGHUP from then on."""
        await super().startup([])
        loop = asyncio.get_running_loop()
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, self.handle_hangup)
        for listener in sockets or ():
            limit = self.config.connection_limit
            accepting = loop.create_task(listening.accept(listener, limit, self._make_connection))
            accepting.add_done_callback(log.log_failure)
            self._accepting.append(accepting)
            host, port = listener.getsockname()[:2]
            host = f"[{host}]" if ":" in host else host
            logger.info("running on http://%s:%d (Ctrl-C stops it)", host, port)

    def _make_connection(self) -> Connection:
        return Connection(self.config, self.server_state, self.lifespan.state)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting connections, then shut down as uvicorn does."""
        for accepting in self._accepting:
            accepting.cancel()
        await super().shutdown(sockets)

    def handle_hangup(self) -> None:
        """On SIGHUP, read checkpoint and keys again.

        However many signals come while a checkpoint is being read, it is read just once more.
        """
        if self._draining is not None or self.should_exit:
            logger.info("the server stops: nothing is read again")
            return
        self.keys.reload()
        self._is_reload_due = True
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.get_running_loop().create_task(self._reload())
            self._reloading.add_done_callback(log.log_failure)

    async def _reload(self) -> None:
        """Reload the checkpoint until no further signal has come meanwhile."""
        while self._is_reload_due:
            self._is_reload_due = False
            await self.service.reload()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On SIGINT or SIGTERM, begin to drain, or drain no longer; uvicorn's own handler follows in `on_tick`."""
        if self.should_exit:
            super().handle_exit(sig, frame)
            return
        seconds = self.service.settings.drain_seconds if self._draining is None else 0.0
        self._draining = sig, frame
        self._deadline = time.monotonic() + seconds
        self.service.drain(seconds)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: free old checkpoints, and decide whether to stop."""
        self.service.release()
        self.repeats.sweep()
        if self._draining is not None and (self.service.idle or time.monotonic() >= self._deadline):
            super().handle_exit(*self._draining)
        if self.service.current.engine.failed:
            self.should_exit = True
        return await super().on_tick(counter)


def serve(settings: ServerSettings) -> None:
    """Bind the addresses, then serve on them until a signal to stop."""
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
    """Load the model, let clients connect, and serve until a signal to stop.

    Raises:
        InputError: a setting cannot be used.
        EngineFailedError: the generator cannot go on.
        KeyboardInterrupt: the signal was Ctrl-C.
    """
    limit = ConnectionLimit()
    try:
        app = create_app(settings)
    except MemoryError:
        raise InputError("slots", f"there is no memory for {settings.slots} beside the model; lower it") from None
    gc.collect()
    gc.freeze()  # 400,000 objects that stay: visiting them would stop all texts for a tenth of a second
    service: Service = app.state.service
    card = service.current.card
    logger.info("checkpoint %s: %.2fM parameters on %s", card.checkpoint, card.parameters / 1e6, card.numerics)
    limit.size = listening.reserve_descriptors(settings)
    config = ServerConfig(
        app,
        settings,
        limit,
        timeout_graceful_shutdown=FLUSH_SECONDS,
        log_config=None,
        access_log=False,  # it has prompts: they are in the query of GET /generate
    )
    listening.listen(listeners, settings.host, settings.port)
    server = Server(config, service, app.state.keys, repeats)
    server.run(listeners)
    if service.current.engine.failed:
        raise EngineFailedError("the generator cannot go on; the log has why")
    if server.is_interrupted:  # uvicorn raises the signal again itself, but not if its loop has ended by then
        raise KeyboardInterrupt
