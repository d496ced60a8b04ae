"""HTTP connections: uvicorn's, with deadlines and bounds; and the configuration of uvicorn.

A client that sends slowly, or without end, or does not read, costs a socket and some kilobytes for a bounded time.
Knows how HTTP is framed; nothing of routes.
"""

import asyncio
import logging
import re
import socket
import sys
from ipaddress import IPv6Address, ip_address
from typing import Any
from urllib.parse import unquote, urlsplit

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol
from uvicorn.server import ServerState

from app.observability.middleware import RequestObserver
from app.problems import Problem
from app.security.middleware import MAX_HEAD_BYTES, with_security_headers
from app.server.listening import ConnectionLimit
from app.server.paths import canonical
from app.settings import ServerSettings, listed

logger = logging.getLogger(__name__)

SEND_BUFFER = 64 * 1024  # bytes in the kernel, which doubles it; unset, it grows to megabytes for a slow reader
WRITE_BUFFER = 32 * 1024  # bytes in asyncio, beyond which writers have to wait
MAX_DISCARDED = 1024 * 1024  # bytes of a request that are still read once it has been answered, so that it can end
LINGER_SECONDS = 2.0  # that a connection stays open after a refusal, so that the client can read it
GRACE_SECONDS = 1.0  # after which an answer's own `send_timeout` should have ended it
PROBE_SECONDS = 0.025  # between two checks of a client that has sent all that it will
HEAD_BEGINNING = b"HTTP/1.1 "  # of every answer, whatever its status
MAX_ZEROS = 6  # before the size of a chunk; some clients allow 16 digits in all
HOST_FIELD = re.compile(rb"(\[[0-9a-f:.]+\]|[a-z0-9._~%!$&'()*+,;=-]*)(:[0-9]*)?", re.IGNORECASE)  # RFC 3986 3.2.2
CUT_OFF = "the connection ended before all of the request had come"
REFUSALS = {
    400: "this is not a valid HTTP request",
    408: "the request did not come in time",
    431: f"the request's head is over {MAX_HEAD_BYTES} bytes",
    501: "this transfer coding is not supported",
    505: "this server speaks HTTP/1.1 and HTTP/1.0",
}


class ServerConfig(uvicorn.Config):
    """uvicorn's configuration: no proxy is trusted, and no protocol is spoken, that the settings do not name.

    `more` are further options of uvicorn.
    """

    def __init__(
        self, app: FastAPI, settings: ServerSettings, limit: ConnectionLimit | None = None, **more: Any
    ) -> None:
        self.settings = settings
        self.observer: RequestObserver = app.state.observer
        self.connection_limit = limit or ConnectionLimit()
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


class RefusedRequestError(h11.RemoteProtocolError):
    """A request that h11 accepts and this server does not; the message is for the client."""


class ServerConnection(h11.Connection):
    """h11's state of one connection, stricter with requests, and able to send bytes ahead of an answer.

    Besides what h11 refuses, it refuses requests that another server might frame in another way, which is how
    requests are smuggled (RFC 9112 6.1, 11.2), that name no host (3.2), or that are of another version of HTTP
    (RFC 9110 15.6.6).
    """

    def __init__(self, max_head_bytes: int) -> None:
        super().__init__(h11.SERVER, max_head_bytes)
        self.request: h11.Request | None = None  # the last one
        self._sent_ahead = 0  # bytes of the next head
        self._is_chunked = False
        self._zeros = 0  # before the size of the next chunk

    def next_event(self) -> Any:
        """The next event as h11 has it; a request is checked and brought to origin form.

        Raises:
            h11.RemoteProtocolError: what has come is not valid HTTP.
        """
        event = super().next_event()
        if not isinstance(event, h11.Request):
            return event
        self.request = event
        check(event)
        self.request = to_origin_form(event)
        return self.request

    def send(self, event: h11.Event) -> bytes | None:  # type: ignore[override]
        """The bytes of an event as h11 has them, without those that have been sent ahead."""
        sent = super().send(event)
        if isinstance(event, h11.Response | h11.InformationalResponse):
            has_length = any(name == b"content-length" for name, _ in event.headers)
            self._is_chunked = not has_length and self.their_http_version == b"1.1"
            sent = (sent or b"")[self._sent_ahead :]
            self._sent_ahead = 0
        if sent:
            self._zeros = 0
        return sent

    def send_ahead(self) -> bytes:
        """A byte that can be sent now, whatever comes next; empty if there is no such byte.

        It is one of those that every head begins with, or a zero before the size of a chunk, which does not change
        the size (RFC 9112 7.1).
        """
        if self.our_state is h11.SEND_RESPONSE and self._sent_ahead < len(HEAD_BEGINNING):
            self._sent_ahead += 1
            return HEAD_BEGINNING[self._sent_ahead - 1 : self._sent_ahead]
        if self.our_state is h11.SEND_BODY and self._is_chunked and self._zeros < MAX_ZEROS:
            self._zeros += 1
            return b"0"
        return b""


def to_origin_form(request: h11.Request) -> h11.Request:
    """The request with a path as its target, also if it was an address such as `http://example.org/info`.

    The host of such an address replaces the Host header (RFC 9112 3.2.2).

    Raises:
        RefusedRequestError: the target is neither a path nor an address, nor the `*` of OPTIONS.
    """
    target = request.target
    if target.startswith(b"/") or (target == b"*" and request.method == b"OPTIONS"):
        return request
    try:
        parts = urlsplit(target)
    except ValueError:
        raise RefusedRequestError("the target is neither a path nor an address") from None
    if parts.scheme not in (b"http", b"https") or not parts.netloc or not HOST_FIELD.fullmatch(parts.netloc):
        raise RefusedRequestError("the target is neither a path nor an address with a host")
    headers = [(name, value) for name, value in request.headers.raw_items() if name.lower() != b"host"]
    query = b"?" + parts.query if parts.query else b""
    return h11.Request(
        method=request.method,
        target=(parts.path or b"/") + query,
        headers=[(b"Host", parts.netloc), *headers],
        http_version=request.http_version,
    )


def check(request: h11.Request) -> None:
    """Refuse what h11 accepts and this server does not.

    Raises:
        RefusedRequestError: the request's version, framing or host cannot be relied on.
    """
    if not request.http_version.startswith(b"1."):
        raise RefusedRequestError(REFUSALS[505], error_status_hint=505)
    fields = dict(request.headers)
    if b"transfer-encoding" in fields and (b"content-length" in fields or request.http_version == b"1.0"):
        if request.http_version == b"1.0":
            raise RefusedRequestError("Transfer-Encoding is not for HTTP/1.0; send Content-Length")
        raise RefusedRequestError("the request has both Content-Length and Transfer-Encoding; send one of them")
    if not HOST_FIELD.fullmatch(fields.get(b"host", b"")):
        raise RefusedRequestError("the Host header is not a host, with or without a port")


class Connection(H11Protocol):
    """One client's connection.

    A request's head must come within `request_timeout`, and its body within the same time again; else it is refused
    (408). A client that reads nothing of what is sent for `send_timeout` is disconnected. What is not HTTP is
    refused with a problem object.

    A client that has closed its sending side (a half-closed connection) gets its answers to their end. It looks
    like one that has left, until something is written to it: a client that has left answers that with a reset. So a
    byte is sent ahead at once, and the reset that follows cancels the request.
    """

    config: ServerConfig
    conn: ServerConnection

    def __init__(
        self,
        config: ServerConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = ServerConnection(MAX_HEAD_BYTES)
        self._awaited: object = None  # h11's state of the client that must end before the deadline
        self._deadline: asyncio.TimerHandle | None = None
        self._read_check: asyncio.TimerHandle | None = None  # of whether the client reads
        self._discardable: int | None = None  # bytes still read of a request that has been answered before its end
        self._over = False  # True once nothing that comes is handled any more
        self._has_sent_all = False  # True once the client has closed its sending side
        self._probes = 0  # of a client that has sent all
        self._probe_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Bound the buffers, and begin to wait for a request."""
        super().connection_made(transport)
        self.config.connection_limit.opened(self)
        if self.client is not None:
            self.client = (plain_address(self.client[0]), self.client[1])
        accepted = transport.get_extra_info("socket")
        if accepted is not None:
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        self._await(h11.IDLE)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        self.config.connection_limit.closed(self)
        for timer in (self._deadline, self._read_check, self._probe_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Handle part of a request, or discard what is left of one that has been answered."""
        if self._discardable is not None:
            self._discardable -= len(data)
            if self._discardable < 0:
                self.flow.pause_reading()
                self._linger()
        if self._over:
            return
        super().data_received(data)
        if self._is_answering:
            self.config.connection_limit.mark_busy(self)
        self._watch()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client has closed its sending side; returns True if the connection stays open for its answer."""
        self._has_sent_all = True
        if self._over or self.transport.is_closing():
            return False
        if self._is_cut_off:
            self._refuse(400, CUT_OFF)
        elif self._is_answering:
            if self._probe_timer is None:
                self._probe()
            return True
        return False

    @property
    def _is_answering(self) -> bool:
        """True while a request waits for the end of its answer."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _is_cut_off(self) -> bool:
        """True while part of a request, but not all of it, has come."""
        begun = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        return begun or self.conn.their_state is h11.SEND_BODY

    def _probe(self) -> None:
        """Check whether a client that has sent all is still there; repeated while its answer is not complete.

        At every probe whose number is a power of two, it is sent a byte ahead, if nothing else is under way. A
        client that has left answers that with a reset, which the next probe sees.
        """
        if self.transport.is_closing() or not self._is_answering:
            self._probe_timer = None
            return
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
            return
        is_power_of_two = self._probes & (self._probes - 1) == 0
        if is_power_of_two and not self.transport.get_write_buffer_size():
            ahead = self.conn.send_ahead()
            if ahead:
                self.transport.write(ahead)
        self._probes += 1
        self._probe_timer = self.loop.call_later(PROBE_SECONDS, self._probe)

    def close_idle(self) -> None:
        """Close at once, for another client: this one only waits for a request."""
        self.transport.abort()

    def _should_upgrade(self) -> bool:
        """False, and nothing is logged: HTTP lets a server ignore an upgrade."""
        return False

    def on_response_complete(self) -> None:
        """An answer is complete; perhaps before all of its request has come."""
        self._discardable = MAX_DISCARDED if self.conn.their_state is h11.SEND_BODY else None
        super().on_response_complete()
        if not self._is_answering and not self.transport.get_write_buffer_size():
            self.config.connection_limit.mark_idle(self)
        if self._has_sent_all and not self._is_answering:
            if self._is_cut_off and not self._over and self._discardable is None:
                self._refuse(400, CUT_OFF)
            self.transport.close()
        if self.conn.their_state is not h11.IDLE or self.conn.trailing_data[0]:  # of a request sent meanwhile
            self._watch()
        if self.transport.get_write_buffer_size():
            self._watch_reader()

    def pause_writing(self) -> None:
        """The client reads more slowly than the server writes."""
        super().pause_writing()
        self._watch_reader()

    def send_400_response(self, msg: str) -> None:
        """Send a problem object instead of uvicorn's plain text; called while h11's error is being handled."""
        error = sys.exception()
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        self._refuse(status, str(error) if isinstance(error, RefusedRequestError) else None)
        self._discardable = MAX_DISCARDED
        self._linger()

    def _linger(self) -> None:
        """Close after LINGER_SECONDS: closed while the client still sends, its answer might be lost."""
        self._over = True
        self._unset_keepalive_if_required()
        self._await(None)
        if not self.transport.is_closing():
            self.transport.write_eof()
            self._deadline = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _watch(self) -> None:
        """Set a new deadline if the client is expected to send something else than before."""
        state = self.conn.their_state
        if not self._over and state is not self._awaited:
            self._await(state)

    def _await(self, state: object) -> None:
        """Set the deadline for the end of a state of the client, if the client must send something to end it."""
        self._awaited = state
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if state in (h11.IDLE, h11.SEND_BODY):
            self._deadline = self.loop.call_later(self.config.settings.request_timeout, self._on_late)

    def _on_late(self) -> None:
        """The deadline has passed: refuse what has come of a request, and close."""
        if self.cycle is not None or self.conn.trailing_data[0]:
            logger.info("a request did not come within %g seconds", self.config.settings.request_timeout)
            self._refuse(408)
        self.transport.close()  # without an answer if it was only opened, as browsers do ahead of a request

    def _refuse(self, status: int, detail: str | None = None) -> None:
        """Answer instead of the app, if no answer has begun; nothing more is handled on this connection."""
        self._over = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE) or self.transport.is_closing():
            self.transport.close()
            return
        status = status if status in REFUSALS else 400
        self.config.observer.refused(status)
        request = self.conn.request if self.conn.our_state is h11.SEND_RESPONSE else None
        path = ""
        if request is not None:
            path = unquote(request.target.partition(b"?")[0].decode("ascii"))
        path = canonical(path, self.config.settings.root_path)
        answer = Problem(status, detail or REFUSALS[status]).response(path)
        headers = with_security_headers(
            [*self.server_state.default_headers, *answer.raw_headers, (b"connection", b"close")]
        )
        head = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
        body = b"" if request and request.method == b"HEAD" else answer.body
        for event in (head, h11.Data(data=bytes(body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")

    def _watch_reader(self) -> None:
        """Disconnect the client later if it has read nothing by then of what waits for it."""
        if self._read_check is not None:
            self._read_check.cancel()
        waiting = self.transport.get_write_buffer_size()
        seconds = self.config.settings.send_timeout + GRACE_SECONDS
        self._read_check = self.loop.call_later(seconds, self._on_unread, waiting)

    def _on_unread(self, before: int) -> None:
        """Disconnect the client if it has not read since `before` bytes waited for it."""
        waiting = self.transport.get_write_buffer_size()
        if not waiting or not (self.flow.write_paused or self.cycle.response_complete):
            return  # it has caught up
        if waiting < before:
            self._watch_reader()
        else:
            logger.info("a client took nothing for %g seconds", self.config.settings.send_timeout)
            self.transport.abort()


def plain_address(host: str) -> str:
    """An address in its usual form: a socket for both IPv6 and IPv4 has `::ffff:192.0.2.1` for `192.0.2.1`."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or host)
