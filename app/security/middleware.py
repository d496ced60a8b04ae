"""Middleware that guards the app: host names, sizes, HEAD, and the headers that guard a browser.

Pure ASGI: nothing here buffers an answer or hides a disconnect. Knows nothing of the routes, and nothing of the
order of the layers (`app/application.py`).
"""

import re
from collections.abc import Collection

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.problems import Problem
from app.settings import origin_pattern

MAX_BODY_BYTES = 256 * 1024
MAX_HEAD_BYTES = 64 * 1024
MAX_URL_BYTES = 32 * 1024
HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^:\[\]]+)(?::[0-9]*)?")  # of a Host header, with or without a port
SECURITY_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}
CORS_METHODS = ("GET", "HEAD", "POST")
CORS_EXPOSED = ("Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-ID")


def cors(origins: str) -> Middleware:
    """The layer that lets pages of these origins call the API from a browser; `origins` as in the settings."""
    return Middleware(
        CORSMiddleware,
        allow_origins=("*",) if origins == "*" else (),
        allow_origin_regex=origin_pattern(origins),
        allow_methods=CORS_METHODS,
        allow_headers=("*",),  # clients have headers of their own, and none of them means anything here
        allow_private_network=True,
        expose_headers=CORS_EXPOSED,
    )


def with_security_headers(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """An answer's headers, and those that guard a browser where the answer has none of its own."""
    own = {name.lower() for name, _ in headers}
    return headers + [(name, value) for name, value in SECURITY_HEADERS.items() if name not in own]


class SecurityHeaders:
    """Middleware that gives every answer the headers that guard a browser."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the headers to the answer."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = with_security_headers(list(message.get("headers", ())))
            await send(message)

        await self.app(scope, receive, send_with_headers)


class HeadRequests:
    """Middleware that answers HEAD as GET, without the body (RFC 9110, 9.3.2), on every route that has GET.

    A route asks `is_head`, so that it does no work whose result nobody gets.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Show the inner layers GET; for the outer ones, such as the log, the request stays HEAD."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        scope["method"] = "GET"
        scope.setdefault("state", {})["head"] = True
        try:
            await self.app(scope, receive, send_head)
        finally:
            scope["method"] = "HEAD"


def is_head(request: Request) -> bool:
    """Whether only the head of the answer is asked for."""
    return bool(getattr(request.state, "head", False))


class TrustedHosts:
    """Middleware that refuses requests for other host names (400).

    It guards against DNS rebinding: a page of another site whose name is made to lead to this server. Health checks
    and metrics are answered under any name, for those who ask for them know only an address.
    """

    def __init__(self, app: ASGIApp, trusted: Collection[str]) -> None:
        self.app = app
        self._names = {name for name in trusted if not name.startswith("*")}
        self._endings = tuple(name[1:] for name in trusted if name.startswith("*"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the Host header."""
        if scope["type"] != "http" or _is_for_operators(scope) or self._trusts(scope):
            await self.app(scope, receive, send)
            return
        detail = "the Host header names a host that this server does not answer for"
        await Problem(400, detail).response(scope["path"])(scope, receive, send)

    def _trusts(self, scope: Scope) -> bool:
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").lower()
        match = HOST.fullmatch(host)
        return match is not None and (match["name"] in self._names or match["name"].endswith(self._endings))


def _is_for_operators(scope: Scope) -> bool:
    path: str = scope["path"]
    return path == "/metrics" or path.startswith("/health/")


class SizeLimits:
    """Middleware that refuses a URL (414), a head (431) or a body (413) that is too large.

    A body whose Content-Length is too large is refused before any of it is read, another one as soon as too much of
    it has come.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the head, then count the bytes of the body as they come."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        problem = self._problem(scope)
        if problem is not None:
            await problem.response(scope["path"])(scope, receive, send)
            return
        received = 0
        answered = False

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if (
                received > MAX_BODY_BYTES and not answered
            ):  # afterwards it is too late to refuse, and nothing is kept
                raise HTTPException(413, self._body_detail())
            return message

        async def send_and_note(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        await self.app(scope, receive_counted, send_and_note)

    def _problem(self, scope: Scope) -> Problem | None:
        """Why the request's head is refused, if it is."""
        url_bytes = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        if url_bytes > MAX_URL_BYTES:
            return Problem(414, f"the URL is over {MAX_URL_BYTES} bytes; send what is long as the body of a POST")
        header_bytes = sum(len(name) + len(value) + len(": \r\n") for name, value in scope["headers"])
        if url_bytes + header_bytes > MAX_HEAD_BYTES:
            return Problem(431, f"the request's headers are over {MAX_HEAD_BYTES} bytes")
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > MAX_BODY_BYTES:
            return Problem(413, self._body_detail())
        return None

    @staticmethod
    def _body_detail() -> str:
        return f"the body is over {MAX_BODY_BYTES} bytes; send a shorter prompt"
