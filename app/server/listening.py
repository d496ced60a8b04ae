"""Where the server listens, and how many connections may be open. Knows nothing of HTTP.

A process has so many file descriptors. When asyncio has none left for a connection, it writes thousands of lines a
second and tries again. So the limit is raised when the server starts, and connections have places: when all are
taken, one that only waits for a request is closed for a new one; when none waits, new ones stay in the kernel's
backlog.
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

from app.observability.log import tell_failure
from app.settings import ServerSettings
from model.errors import InputError

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

BACKLOG = 2048  # connections that the kernel keeps until they are accepted
ACCEPTED_AT_ONCE = 8  # before others have their turn
SAFE_SECONDS = 0.1  # that a connection may wait for a request before its place can be another's
SPARE_DESCRIPTORS = 48  # for files that are read while the server runs
MIN_CONNECTIONS = 4
TELL_SECONDS = 60.0
RETRY_SECONDS = 0.1
ABSENT = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}  # an address, or its family, that this machine does not have
REMEDIES = {
    errno.EADDRINUSE: ("port", "{port} is taken on {host}: stop the program that listens there, or choose another"),
    errno.EACCES: ("port", "{port} may not be opened by this user: choose one from 1024 up"),
    errno.EPERM: ("port", "{port} may not be opened by this user: choose another"),
    errno.EADDRNOTAVAIL: ("host", "{host} is no address of this machine; 0.0.0.0 is every one that it has"),
}


class Waiting(Protocol):
    """A connection that can be closed when it waits for a request."""

    def let_go(self) -> None:
        """Close at once."""


class Room:
    """The places for connections: `size` of them, or as many as come."""

    def __init__(self, size: int | None = None) -> None:
        self.size = size
        self._arriving = 0  # have a place, and their protocol does not know them yet
        self._waiting: dict[Waiting, float] = {}  # for a request, since when; the longest first
        self._occupied: set[Waiting] = set()
        self._changed = asyncio.Event()
        self._told = -TELL_SECONDS

    @property
    def is_full(self) -> bool:
        """True while there is no place."""
        taken = self._arriving + len(self._waiting) + len(self._occupied)
        return self.size is not None and taken >= self.size

    async def take_place(self) -> None:
        """Wait for a place; one that waits for a request may lose its own."""
        while self.is_full:
            self._tell()
            self._changed.clear()
            seconds = self._let_oldest_go()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
        self._arriving += 1

    def _let_oldest_go(self) -> float | None:
        """Close the connection that has waited longest; or the seconds until it may be, None if none waits."""
        if not self._waiting:
            return None
        oldest, since = next(iter(self._waiting.items()))
        seconds = since + SAFE_SECONDS - time.monotonic()
        if seconds > 0:
            return seconds
        self.occupy(oldest)  # until it is closed
        oldest.let_go()
        return None

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told >= TELL_SECONDS:
            logger.warning("all %d connections are taken: new clients wait for others to leave", self.size)
            self._told = now

    def enter(self, connection: Waiting) -> None:
        """It has arrived, and waits for a request."""
        self._arriving = max(0, self._arriving - 1)  # 0 for another server's, which takes no places
        self._waiting[connection] = time.monotonic()
        self._changed.set()

    def occupy(self, connection: Waiting) -> None:
        """It has a request."""
        if connection in self._waiting:
            del self._waiting[connection]
            self._occupied.add(connection)

    def free(self, connection: Waiting) -> None:
        """It has its answer, and waits for another request."""
        if connection in self._occupied:
            self._occupied.remove(connection)
            self._waiting[connection] = time.monotonic()
            self._changed.set()

    def leave(self, connection: Waiting) -> None:
        """It is closed."""
        self._waiting.pop(connection, None)
        self._occupied.discard(connection)
        self._changed.set()


async def accept(listener: socket.socket, room: Room, make_protocol: Callable[[], asyncio.Protocol]) -> None:
    """Accept connections as there is room, until cancelled."""
    loop = asyncio.get_running_loop()
    connecting: set[asyncio.Task[Any]] = set()
    accepted_in_a_row = 0
    while True:
        try:
            accepted, _ = await loop.sock_accept(listener)
        except OSError as error:  # the client has gone already, or there is no descriptor in spite of all
            logger.warning("a connection could not be accepted: %s", error.strerror)
            await asyncio.sleep(RETRY_SECONDS)
            continue
        await room.take_place()
        task = loop.create_task(loop.connect_accepted_socket(make_protocol, accepted))
        connecting.add(task)
        task.add_done_callback(connecting.discard)
        task.add_done_callback(tell_failure)
        accepted_in_a_row += 1
        if accepted_in_a_row % ACCEPTED_AT_ONCE == 0:
            await asyncio.sleep(0)


def bind_to(family: int, address: tuple[Any, ...], is_v6_only: bool) -> socket.socket:
    """A socket bound to one address; connections are refused until `listen`."""
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
    """Sockets bound to all addresses of the host that is named; `::` is for IPv4 too.

    That is done before a model is loaded: an address that is not to be had is told at once.

    Raises:
        InputError: the host or the port cannot be listened on; names the setting that has to change.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no name"
        raise InputError("host", f"{host!r:.100} is not an address that can be listened on ({reason})") from None
    is_v6_only = any(family == socket.AF_INET for family, *_ in found)  # which has a socket of its own then
    listeners: list[socket.socket] = []
    failed = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for family, _, _, _, address in dict.fromkeys(found):
        shared_port = listeners[0].getsockname()[1] if listeners else address[1]  # 0 is any, but the same for all
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
        InputError: another program was faster.
    """
    try:
        for listener in listeners:
            listener.listen(BACKLOG)
    except OSError as error:
        raise _refusal(error, host, port) from None


def close(listeners: Sequence[socket.socket]) -> None:
    """Give the addresses back."""
    for listener in listeners:
        listener.close()


def _refusal(error: OSError, host: str, port: int) -> InputError:
    field, remedy = REMEDIES.get(error.errno or 0, ("host", "{host} cannot be listened on, port {port}: {reason}"))
    return InputError(field, remedy.format(host=host, port=port, reason=error.strerror or error))


def make_room(settings: ServerSettings) -> int:
    """How many connections may be open; raises the process's limit of file descriptors for them as far as it may.

    Raises:
        InputError: there are descriptors for hardly any.
    """
    if resource is None:
        return settings.connections
    in_use = len(os.listdir("/dev/fd"))
    limit = _raise_limit(in_use + SPARE_DESCRIPTORS + settings.connections)
    left = limit - in_use
    places = min(settings.connections, left - min(SPARE_DESCRIPTORS, left // 2))
    texts = settings.slots + settings.queue_size
    remedy = f"raise the limit (ulimit -n) to {in_use + SPARE_DESCRIPTORS + texts}"
    if places < min(MIN_CONNECTIONS, settings.connections):
        raise InputError("connections", f"this process may have {limit} files open, {in_use} of them are; {remedy}")
    if places < min(texts, settings.connections):
        logger.warning(
            "this process may have %d files open, enough for %d connections, where slots and queue_size allow for "
            "%d texts; %s, or lower these settings",
            limit,
            places,
            texts,
            remedy,
        )
    return places


def _raise_limit(wanted: int) -> int:
    """Let the process have so many descriptors, if it has not and may; how many it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):  # macOS has a lower limit that it does not tell of
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            return raised
    return soft
