"""Canonical paths: one spelling of each, made before anything else looks at a request.

`//metrics`, `/./metrics`, `/x/../metrics` and, behind the prefix `/gpt`, `/gpt/metrics` all are `/metrics` for the
routes, the key check, the rate limit and the trusted hosts alike. Knows nothing of what the paths lead to.
"""

from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


def canonical(path: str, root_path: str = "") -> str:
    """The path without empty segments, dot segments (RFC 3986 5.2.4) and the prefix `root_path`.

    The path is percent-decoded already. What is not a path, such as `*`, is returned as it is.
    """
    if not path.startswith("/"):
        return path
    segments = path.split("/")
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    is_folder = bool(kept) and segments[-1] in ("", ".", "..")
    whole = "/" + "/".join(kept) + ("/" if is_folder else "")
    if root_path and f"{whole}/".startswith(f"{root_path}/"):
        return whole[len(root_path) :] or "/"
    return whole


class CanonicalPaths:
    """Middleware that gives the app canonical paths without the prefix, and makes its redirects relative.

    A redirect to an address with a host, or to one that begins at the root, would be wrong behind a proxy that
    shows the server below a path or under another name.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self.app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its canonical path."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent_path: bytes = scope.get("raw_path") or scope["path"].encode()
        path = canonical(scope["path"], scope.get("root_path", ""))  # the prefix that the ASGI server was told
        path = canonical(path, self._root_path)  # and that of the settings

        async def send_relative(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 307:
                headers = MutableHeaders(scope=message)
                headers["location"] = relative(sent_path, headers["location"])
            await send(message)

        await self.app({**scope, "path": path, "root_path": ""}, receive, send_relative)


def relative(sent_path: bytes, location: str) -> str:
    """The address of a redirect, relative to the path that the client sent.

    Starlette redirects only to add or to remove a slash at the end of the path.
    """
    target = urlsplit(location)
    name = target.path.rstrip("/").rpartition("/")[2]
    slashes = len(sent_path) - len(sent_path.rstrip(b"/"))
    up = "../" * slashes or "./"
    slash = "/" if target.path.endswith("/") else ""
    query = f"?{target.query}" if target.query else ""
    return f"{up}{name}{slash}{query}"
