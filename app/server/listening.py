"""The sockets that the server listens on, and the limit of open connections. Knows nothing of HTTP.

A process may have only so many file descriptors. When asyncio has none left for a connection, it logs thousands of
lines a second and tries again. So the process's limit is raised when the server starts, and connections are
counted: at the limit, one that only waits for a request is closed for a new one; if none does, new ones stay in the
kernel's backlog.
"""

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from app.observability.log import log_failure
from app.settings import ServerSettings
from model.errors import InputError

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

BACKLOG = 2048  # connections that the kernel keeps until they are accepted
ACCEPTED_AT_ONCE = 8  # before other tasks may run
SAFE_SECONDS = 0.1  # for which an idle connection is not closed for another one
SPARE_DESCRIPTORS = 48  # for files that are read while the server runs
MIN_CONNECTIONS = 4
WARNING_SECONDS = 60.0  # between two warnings that all connections are taken
ACCEPT_RETRY_SECONDS = 0.1
ABSENT = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}  # an address, or its family, that this machine does not have
REMEDIES = {
    errno.EADDRINUSE: ("port", "{port} is taken on {host}: stop the program that listens there, or choose another"),
    errno.EACCES: ("port", "{port} may not be opened by this user: choose one from 1024 up"),
    errno.EPERM: ("port", "{port} may not be opened by this user: choose another"),
    errno.EADDRNOTAVAIL: ("host", "{host} is no address of this machine; 0.0.0.0 is every one that it has"),
}


class ClosableConnection(Protocol):
    """A connection that can be closed while it waits for a request."""

    def close_idle(self) -> None:
        """Close at once."""


class ConnectionLimit:
    """Counts open connections, `size` at most, or any number if that is None.

    A connection is arriving from `acquire` until `opened`, then idle while it waits for a request, and busy until
    it has its answer. When all are taken, the one that has been idle longest is closed for a new one.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size = size
        self._arriving = 0
        self._idle: dict[ClosableConnection, float] = {}  # since when (monotonic seconds); the longest first
        self._busy: set[ClosableConnection] = set()
        self._changed = asyncio.Event()
        self._last_warning = -WARNING_SECONDS

    @property
    def is_full(self) -> bool:
        """True while no further connection is allowed."""
        open_connections = self._arriving + len(self._idle) + len(self._busy)
        return self.size is not None and open_connections >= self.size

    async def acquire(self) -> None:
        """Wait until one more connection is allowed, and count it; an idle one may be closed for it."""
        while self.is_full:
            self._warn()
            self._changed.clear()
            seconds = self._close_oldest_idle()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
        self._arriving += 1

    def _close_oldest_idle(self) -> float | None:
        """Close the connection that has been idle longest.

        Returns None if it was closed, or if there is none; else the seconds until it may be.
        """
        if not self._idle:
            return None
        oldest, since = next(iter(self._idle.items()))
        seconds = since + SAFE_SECONDS - time.monotonic()
        if seconds > 0:
            return seconds
        self.mark_busy(oldest)  # so that it is counted, and not closed twice, until `closed` is called
        oldest.close_idle()
        return None

    def _warn(self) -> None:
        now = time.monotonic()
        if now - self._last_warning >= WARNING_SECONDS:
            logger.warning("all %d connections are taken: new clients wait for others to leave", self.size)
            self._last_warning = now

    def opened(self, connection: ClosableConnection) -> None:
        """A connection has been made, and is idle."""
        self._arriving = max(0, self._arriving - 1)  # 0 under a server that does not call `acquire`
        self._idle[connection] = time.monotonic()
        self._changed.set()

    def mark_busy(self, connection: ClosableConnection) -> None:
        """A request has come on it."""
        if connection in self._idle:
            del self._idle[connection]
            self._busy.add(connection)

    def mark_idle(self, connection: ClosableConnection) -> None:
        """It has its answer, and waits for another request."""
        if connection in self._busy:
            self._busy.remove(connection)
            self._idle[connection] = time.monotonic()
            self._changed.set()

    def closed(self, connection: ClosableConnection) -> None:
        """It is closed."""
        self._idle.pop(connection, None)
        self._busy.discard(connection)
        self._changed.set()


async def accept(
    listener: socket.socket, limit: ConnectionLimit, make_protocol: Callable[[], asyncio.Protocol]
) -> None:
    """Accept connections as the limit allows, until cancelled."""
    loop = asyncio.get_running_loop()
    connecting: set[asyncio.Task[Any]] = set()
    accepted_in_a_row = 0
    while True:
        try:
            accepted, _ = await loop.sock_accept(listener)
        except OSError as error:  # the client has left already, or there is no descriptor after all
            logger.warning("a connection could not be accepted: %s", error.strerror)
            await asyncio.sleep(ACCEPT_RETRY_SECONDS)
            continue
        await limit.acquire()
        task = loop.create_task(loop.connect_accepted_socket(make_protocol, accepted))
        connecting.add(task)
        task.add_done_callback(connecting.discard)
        task.add_done_callback(log_failure)
        accepted_in_a_row += 1
        if accepted_in_a_row % ACCEPTED_AT_ONCE == 0:
            await asyncio.sleep(0)


def bind_to(family: int, address: tuple[Any, ...], is_v6_only: bool) -> socket.socket:
    """A socket bound to one address; connections to it are refused until `listen`."""
    protocol = socket.IPPROTO_TCP  # named, or asyncio lets the kernel keep small writes back
    listener = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        listener.setblocking(False)
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, is_v6_only)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets bound to all addresses of a host name; `::` is for IPv4 too.

    They are bound before a model is loaded, so that an address that cannot be used is refused at once.

    Raises:
        InputError: the host or the port cannot be listened on; names the setting that has to change.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no name"
        raise InputError("host", f"{host!r:.100} is not an address that can be listened on ({reason})") from None
    is_v6_only = any(family == socket.AF_INET for family, *_ in found)  # IPv4 then has a socket of its own
    listeners: list[socket.socket] = []
    failed = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for family, _, _, _, address in dict.fromkeys(found):
        shared_port = (
            listeners[0].getsockname()[1] if listeners else address[1]
        )  # of a port 0, which is any free one, but the same for all
        try:
            listeners.append(bind_to(family, (address[0], shared_port, *address[2:]), is_v6_only))
        except OSError as error:
            failed = error
            if error.errno not in ABSENT:  # `localhost` may be ::1 too, where there is no IPv6
                close(listeners)
                raise _refusal(error, host, port) from None
    if not listeners:
        raise _refusal(failed, host, port)
    return listeners


def listen(listeners: Sequence[socket.socket], host: str, port: int) -> None:
    """Let clients connect.

    Raises:
        InputError: another program listens there since.
    """
    try:
        for listener in listeners:
            listener.listen(BACKLOG)
    except OSError as error:
        raise _refusal(error, host, port) from None


def close(listeners: Sequence[socket.socket]) -> None:
    """Close the sockets."""
    for listener in listeners:
        listener.close()


def _refusal(error: OSError, host: str, port: int) -> InputError:
    """What is wrong with the settings, for an error of `bind` or `listen`."""
    field, remedy = REMEDIES.get(error.errno or 0, ("host", "{host} cannot be listened on, port {port}: {reason}"))
    return InputError(field, remedy.format(host=host, port=port, reason=error.strerror or error))


def reserve_descriptors(settings: ServerSettings) -> int:
    """Raise the process's limit of file descriptors; returns how many connections there are descriptors for.

    That is `settings.connections` if the limit can be raised so far.

    Raises:
        InputError: there are descriptors for fewer than MIN_CONNECTIONS.
    """
    if resource is None:
        return settings.connections
    in_use = len(os.listdir("/dev/fd"))
    limit = _raise_limit(in_use + SPARE_DESCRIPTORS + settings.connections)
    left = limit - in_use
    connections = min(settings.connections, left - min(SPARE_DESCRIPTORS, left // 2))
    texts = settings.slots + settings.queue_size
    remedy = f"raise the limit (ulimit -n) to {in_use + SPARE_DESCRIPTORS + texts}"
    if connections < min(MIN_CONNECTIONS, settings.connections):
        raise InputError("connections", f"this process may have {limit} files open, {in_use} of them are; {remedy}")
    if connections < min(texts, settings.connections):
        logger.warning(
            "this process may have %d files open, enough for %d connections, where slots and queue_size allow for "
            "%d texts; %s, or lower these settings",
            limit,
            connections,
            texts,
            remedy,
        )
    return connections


def _raise_limit(wanted: int) -> int:
    """Let the process have so many descriptors, or as many as it may; returns how many it may have then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):  # macOS has a lower limit that it does not report
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            return raised
    return soft
