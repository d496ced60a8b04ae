"""Where the server listens, and how many connections may be open. Knows nothing of HTTP.

A process has so many file descriptors. When asyncio has none left for a connection, it writes thousands of lines
a second and tries again. So the limit is raised when the server starts, and connections are counted as they are
accepted: when all places are taken, one that only waits for a request is closed for a new one, and when none waits,
the new one is.
"""

import errno
import logging
import os
import socket
import time
from contextlib import suppress
from typing import Any, Protocol

from app.settings import ServerSettings
from model.errors import InputError

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

BACKLOG = 2048  # connections that the kernel keeps until they are accepted
LEAVING = 8  # connections that have been let go and are not closed yet
SPARE_DESCRIPTORS = 48  # for files that are read while the server runs, and for connections that leave
FEWEST_CONNECTIONS = 4
TELL_SECONDS = 60.0
FULL_SECONDS = 0.01
NONE_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Waiting(Protocol):
    """A connection that can be closed when it waits for a request."""

    def let_go(self) -> None:
        """Close at once."""


class Room:
    """The places for connections: `size` of them, or as many as come."""

    def __init__(self, size: int | None = None) -> None:
        self.size = size
        self._arriving = 0  # accepted, and not told to their protocol yet
        self._waiting: dict[Waiting, None] = {}  # for a request, the longest first
        self._occupied: set[Waiting] = set()
        self._leaving: set[Waiting] = set()
        self._turned_away = 0
        self._told = -TELL_SECONDS

    @property
    def taken(self) -> int:
        """Places that are."""
        return self._arriving + len(self._waiting) + len(self._occupied)

    @property
    def is_settling(self) -> bool:
        """True while places are about to become free in the next turns of the event loop."""
        if len(self._leaving) >= LEAVING:
            return True
        return self.size is not None and self.taken >= self.size and not self._waiting and self._arriving > 0

    def arrive(self) -> bool:
        """Take a place for a connection that has been accepted; False if there is none."""
        if self.size is not None and self.taken >= self.size:
            if not self._waiting:
                self._turn_away()
                return False
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            self._leaving.add(oldest)
            oldest.let_go()
        self._arriving += 1
        return True

    def enter(self, connection: Waiting) -> None:
        """It has arrived, and waits for a request."""
        self._arriving = max(0, self._arriving - 1)  # one that nobody counted, if the server made its own socket
        self._waiting[connection] = None

    def occupy(self, connection: Waiting) -> None:
        """It has a request."""
        if connection in self._waiting:
            del self._waiting[connection]
            self._occupied.add(connection)

    def free(self, connection: Waiting) -> None:
        """It has its answer, and waits for another request."""
        if connection in self._occupied:
            self._occupied.remove(connection)
            self._waiting[connection] = None

    def leave(self, connection: Waiting) -> None:
        """It is closed."""
        self._waiting.pop(connection, None)
        self._occupied.discard(connection)
        self._leaving.discard(connection)

    def _turn_away(self) -> None:
        self._turned_away += 1
        now = time.monotonic()
        if now - self._told >= TELL_SECONDS:
            logger.warning("all %d connections have a request: turned away %d", self.size, self._turned_away)
            self._told = now
            self._turned_away = 0


class Listener(socket.socket):
    """A listening socket that accepts as many connections as there is room for.

    When the process has no descriptor left in spite of that, it gives up a spare one to accept a connection and
    close it: one left in the backlog would be reported again and again.
    """

    room: Room
    _spare: int | None

    @classmethod
    def bind_to(cls, family: int, address: tuple[Any, ...], is_v6_only: bool, room: Room) -> "Listener":
        """A socket bound to one address; it does not listen yet."""
        listener = cls(family, socket.SOCK_STREAM)
        listener.room = room
        listener._spare = os.open(os.devnull, os.O_RDONLY)
        try:
            if os.name == "posix":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, is_v6_only)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
        return listener

    def accept(self) -> tuple[socket.socket, Any]:
        """As a socket's.

        Raises:
            BlockingIOError: nothing has come, or what has come must wait for the next turn of the event loop.
        """
        if self.room.is_settling:
            raise BlockingIOError
        try:
            accepted, address = super().accept()
        except OSError as error:
            if error.errno not in NONE_LEFT:
                raise
            self._turn_away()
            raise BlockingIOError from None
        if not self.room.arrive():
            accepted.close()
            raise BlockingIOError
        return accepted, address

    def _turn_away(self) -> None:
        logger.warning("the process has no file descriptor left for a client")
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
            with suppress(OSError):  # another thread was quicker
                super().accept()[0].close()
        try:
            self._spare = os.open(os.devnull, os.O_RDONLY)
        except OSError:
            time.sleep(FULL_SECONDS)  # or the event loop would ask again at once, and take a whole core


def bind(settings: ServerSettings, room: Room) -> list[Listener]:
    """Sockets bound to all addresses of the host that is named; `::` is for IPv4 too.

    Raises:
        InputError: the host or the port cannot be listened on.
    """
    host = settings.host
    try:
        found = socket.getaddrinfo(host or None, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise InputError("host", f"no address of this machine is called {host!r}: {error.strerror}") from None
    is_v6_only = any(family == socket.AF_INET for family, *_ in found)  # which has a socket of its own then
    listeners: list[Listener] = []
    refusal: OSError | None = None
    for family, _, _, _, address in dict.fromkeys(found):
        port = listeners[0].getsockname()[1] if listeners else address[1]  # 0 is any, but the same for all
        try:
            listeners.append(Listener.bind_to(family, (address[0], port, *address[2:]), is_v6_only, room))
        except OSError as error:
            refusal = error
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):  # `localhost` may be ::1 without IPv6
                break
    if refusal is not None and (not listeners or refusal.errno in (errno.EADDRINUSE, errno.EACCES)):
        for listener in listeners:
            listener.close()
        field = "host" if refusal.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) else "port"
        raise InputError(field, f"cannot listen on {host}, port {settings.port}: {refusal.strerror}")
    return listeners


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
    if places < min(FEWEST_CONNECTIONS, settings.connections):
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
