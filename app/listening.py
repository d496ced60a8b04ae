"""The sockets that a server listens on, bound before a model is loaded: an address that is not to be had is told at
once, in one line. Knows nothing of what is served there.
"""

import errno
import socket
from collections.abc import Sequence

from model.errors import InputError

BACKLOG = 2048  # connections that wait to be accepted; as uvicorn's
REMEDIES = {
    errno.EADDRINUSE: ("port", "{port} is taken on {host}: stop the program that listens there, or choose another"),
    errno.EACCES: ("port", "{port} may not be opened by this user: choose one from 1024 up"),
    errno.EPERM: ("port", "{port} may not be opened by this user: choose another"),
    errno.EADDRNOTAVAIL: ("host", "{host} is no address of this machine; 0.0.0.0 is every one that it has"),
}


def bind(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of this name; connections are refused until `listen`.

    Raises:
        InputError: nothing can be bound; names the setting that has to change.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no name"
        raise InputError("host", f"{host!r:.100} is not an address that can be listened on ({reason})") from error
    sockets: list[socket.socket] = []
    failed: OSError | None = None
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                bound = socket.socket(family, kind, protocol)
            except OSError as error:  # a machine without this family
                failed = error
                continue
            sockets.append(bound)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                bound.bind(address)
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
                failed = error  # such as ::1, which a name may have and a container not
                sockets.pop().close()
    except OSError as error:
        close(sockets)
        raise _refusal(error, host, port) from error
    if not sockets:
        raise _refusal(failed or OSError(errno.EADDRNOTAVAIL, ""), host, port)
    return sockets


def listen(sockets: Sequence[socket.socket], host: str, port: int) -> None:
    """Let clients connect.

    Raises:
        InputError: another program was faster.
    """
    try:
        for bound in sockets:
            bound.listen(BACKLOG)
    except OSError as error:
        raise _refusal(error, host, port) from error


def close(sockets: Sequence[socket.socket]) -> None:
    """Give the addresses back."""
    for bound in sockets:
        bound.close()


def _refusal(error: OSError, host: str, port: int) -> InputError:
    field, remedy = REMEDIES.get(error.errno or 0, ("host", "{host} cannot be listened on, port {port}: {reason}"))
    return InputError(field, remedy.format(host=host, port=port, reason=error.strerror or error))
