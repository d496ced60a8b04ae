"""uvicorn's connections, with deadlines and bounds; and uvicorn's configuration from ours.

A client that sends slowly, or without end, or does not read, costs a socket and some kilobytes for a bounded time.
Knows how HTTP is framed, nothing of what is asked for.
"""

import asyncio
import logging
import socket
import sys
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol
from uvicorn.server import ServerState

from app.observe import Observer
from app.problems import Problem
from app.protection import MAX_HEAD_BYTES, guarded
from app.settings import ServerSettings, listed

logger = logging.getLogger(__name__)

SEND_BUFFER = 64 * 1024  # the kernel's, of which it makes two; if not set, it takes megabytes for a slow reader
WRITE_BUFFER = 32 * 1024  # asyncio's, beyond which whoever writes has to wait
SPARE_BYTES = 1024 * 1024  # of a request that has its answer already, read for the client's sake
SPARE_SECONDS = 2.0
GRACE = 1.0  # seconds after which it is clear that an answer's own `send_timeout` did not end it
REFUSALS = {
    400: "this is not a valid HTTP request",
    408: "the request did not come in time",
    431: f"the request's head is over {MAX_HEAD_BYTES} bytes",
    501: "this transfer coding is not supported",
}


class ServerConfig(uvicorn.Config):
    """How uvicorn serves the app: nothing is believed or kept that the settings do not name."""

    def __init__(self, app: FastAPI, settings: ServerSettings, **more: Any) -> None:
        self.settings = settings
        self.observer: Observer = app.state.observer
        own: dict[str, Any] = {
            "host": settings.host,
            "port": settings.port,
            "http": Connection,
            "ws": "none",
            "server_header": False,
            "forwarded_allow_ips": listed(settings.trusted_proxies),  # nobody, unless named
            "timeout_keep_alive": settings.idle_timeout,
            "h11_max_incomplete_event_size": MAX_HEAD_BYTES,
        }
        super().__init__(app, **(own | more))


class Connection(H11Protocol):
    """One client's connection.

    A request's head must come within `request_timeout`, its body within the same time again; else 408. A client
    that takes nothing of what is sent for `send_timeout` is cut off. What is not HTTP gets a problem object.
    """

    config: ServerConfig

    def __init__(
        self,
        config: ServerConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._awaited: object = None  # the state of the other side that must end in time
        self._deadline: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None  # looks whether the other side reads
        self._spare: int | None = None
        self._over = False  # nothing more is read from here

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Bound what waits in buffers, and begin to wait for a request."""
        super().connection_made(transport)
        accepted = transport.get_extra_info("socket")
        if accepted is not None:
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        self._await(h11.IDLE)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        for timer in (self._deadline, self._reading):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Part of a request, or of what is left of one that has its answer."""
        if self._spare is not None:
            self._spare -= len(data)
            if self._spare < 0:
                self.flow.pause_reading()
                self._leave()
        if self._over:
            return
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """An answer has been written; perhaps before all of the request was there."""
        self._spare = SPARE_BYTES if self.conn.their_state is h11.SEND_BODY else None
        super().on_response_complete()
        if self.conn.their_state is not h11.IDLE or self.conn.trailing_data[0]:  # of a request sent meanwhile
            self._watch()
        if self.transport.get_write_buffer_size():
            self._watch_reader()

    def pause_writing(self) -> None:
        """The other side is slower than this one."""
        super().pause_writing()
        self._watch_reader()

    def send_400_response(self, msg: str) -> None:
        """Instead of uvicorn's plain text, while it handles h11's error. A client that still sends can read it."""
        error = sys.exception()
        self._refuse(error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400)
        self._spare = SPARE_BYTES
        self._leave()

    def _leave(self) -> None:
        """Close when the client has had time to read its answer: closed before it has sent all, it might not."""
        self._over = True
        self._unset_keepalive_if_required()
        self._await(None)
        if not self.transport.is_closing():
            self.transport.write_eof()
            self._deadline = self.loop.call_later(SPARE_SECONDS, self.transport.close)

    def _watch(self) -> None:
        """Set the deadline for what is awaited now."""
        state = self.conn.their_state
        if not self._over and state is not self._awaited:
            self._await(state)

    def _await(self, state: object) -> None:
        self._awaited = state
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if state in (h11.IDLE, h11.SEND_BODY):
            self._deadline = self.loop.call_later(self.config.settings.request_timeout, self._on_late)

    def _on_late(self) -> None:
        if self.cycle is not None or self.conn.trailing_data[0]:
            logger.info("a request did not come within %g seconds", self.config.settings.request_timeout)
            self._refuse(408)
        self.transport.close()  # a connection that was only opened, as browsers do, hears nothing

    def _refuse(self, status: int) -> None:
        """Answer in the place of the app, if there is no answer yet; the connection is of no use any more."""
        self._over = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE) or self.transport.is_closing():
            self.transport.close()
            return
        status = status if status in REFUSALS else 400
        self.config.observer.refused(status)
        answer = Problem(status, REFUSALS[status]).response(self.scope["path"] if self.scope else "")
        headers = guarded([*self.server_state.default_headers, *answer.raw_headers, (b"connection", b"close")])
        head = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
        body = b"" if self.conn.our_state is h11.SEND_RESPONSE and self.scope["method"] == "HEAD" else answer.body
        for event in (head, h11.Data(data=bytes(body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")

    def _watch_reader(self) -> None:
        """Cut the client off if it takes nothing of what waits for it."""
        if self._reading is not None:
            self._reading.cancel()
        waiting = self.transport.get_write_buffer_size()
        seconds = self.config.settings.send_timeout + GRACE
        self._reading = self.loop.call_later(seconds, self._on_unread, waiting)

    def _on_unread(self, before: int) -> None:
        waiting = self.transport.get_write_buffer_size()
        if not waiting or not (self.flow.write_paused or self.cycle.response_complete):
            return  # it has caught up
        if waiting < before:
            self._watch_reader()
        else:
            logger.info("a client took nothing for %g seconds", self.config.settings.send_timeout)
            self.transport.abort()
