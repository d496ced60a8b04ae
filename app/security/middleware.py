"""What guards the service at its door: keys, sizes, host names, and the headers that guard a browser.

Pure ASGI: nothing here buffers an answer or hides a disconnect. Knows nothing of what is asked for.
"""

import logging
import re
from collections.abc import Collection

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.problems import Problem
from app.security.api_keys import ApiKeys, KeyCheck
from app.security.rate_limit import RateLimit, StreamCeiling
from app.settings import ServerSettings, listed, origin_pattern, parse_rate

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 256 * 1024
MAX_HEAD_BYTES = 64 * 1024
MAX_URL_BYTES = 32 * 1024
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::[0-9]*)?")
GUARDS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}
CORS_METHODS = ("GET", "HEAD", "POST")
CORS_EXPOSED = ("Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-ID")


def install(app: FastAPI, settings: ServerSettings, keys: "ApiKeys") -> None:
    """Guard the app as the settings say; what is added last is the first to see a request."""
    app.add_middleware(HeadRequests)
    if settings.streams_per_client is not None:
        app.add_middleware(StreamCeiling, most=settings.streams_per_client)
    if settings.rate_limit is not None:
        app.add_middleware(RateLimit, rate=parse_rate(settings.rate_limit))
    app.state.keys = keys
    if keys:
        app.add_middleware(KeyCheck, keys=keys)
    app.add_middleware(SizeLimits)
    if settings.trusted_hosts is not None:
        app.add_middleware(TrustedHosts, trusted=listed(settings.trusted_hosts.lower()))
    build = app.build_middleware_stack

    def build_guarded() -> ASGIApp:
        """Around the answers to unexpected errors too, which Starlette makes outside of all middleware."""
        inner = build()
        if settings.cors_origins is not None:
            inner = CORSMiddleware(
                inner,
                allow_origins=("*",) if settings.cors_origins == "*" else (),
                allow_origin_regex=origin_pattern(settings.cors_origins),
                allow_methods=CORS_METHODS,
                allow_headers=("*",),  # whoever may ask may say what they like: clients have headers of their own
                allow_private_network=True,
                expose_headers=CORS_EXPOSED,
            )
        return SecurityHeaders(inner)

    app.build_middleware_stack = build_guarded  # type: ignore[method-assign]


def guarded(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """An answer's headers with those that guard a browser, where the answer has none of its own."""
    own = {name.lower() for name, _ in headers}
    return headers + [(name, value) for name, value in GUARDS.items() if name not in own]


class SecurityHeaders:
    """Middleware that gives every answer the headers that guard a browser."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, with the headers."""

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = guarded(list(message.get("headers", ())))
            await send(message)

        await self.app(scope, receive, send_guarded)


class HeadRequests:
    """Middleware that answers HEAD as GET, without the body (RFC 9110, 9.3.2), on every route that has GET.

    Routes are told by `is_head`, so that none does work whose result nobody gets.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask for GET inside; for all outside, such as the log, the request stays what it is."""
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
    """Middleware that refuses requests for other host names (400): a page elsewhere may have its name lead here.

    Health checks and metrics are for whoever comes: those who ask for them know an address only.
    """

    def __init__(self, app: ASGIApp, trusted: Collection[str]) -> None:
        self.app = app
        self._names = {name for name in trusted if not name.startswith("*")}
        self._endings = tuple(name[1:] for name in trusted if name.startswith("*"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Look at the Host header."""
        if scope["type"] != "http" or _is_for_operators(scope) or self._trusts(scope):
            await self.app(scope, receive, send)
            return
        detail = "the Host header names a host that this server does not answer for"
        await Problem(400, detail).response(scope["path"])(scope, receive, send)

    def _trusts(self, scope: Scope) -> bool:
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").lower()
        match = HOST.fullmatch(host)
        return match is not None and (match[1] in self._names or match[1].endswith(self._endings))


def _is_for_operators(scope: Scope) -> bool:
    path: str = scope["path"]
    return path == "/metrics" or path.startswith("/health/")


class SizeLimits:
    """Middleware that refuses a URL (414), a head (431) or a body (413) that is too large; a body whose length is
    announced before any of it is read, another one as soon as it is."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check what is announced, then count what comes."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if problem := self._problem(scope):
            await problem.response(scope["path"])(scope, receive, send)
            return
        received, begun = 0, False

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES and not begun:  # later it is too late to refuse, and nobody keeps the rest
                raise HTTPException(413, self._body_detail())
            return message

        async def send_noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        await self.app(scope, receive_counted, send_noted)

    def _problem(self, scope: Scope) -> Problem | None:
        url = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        if url > MAX_URL_BYTES:
            return Problem(414, f"the URL is over {MAX_URL_BYTES} bytes; send what is long as the body of a POST")
        if url + sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > MAX_HEAD_BYTES:
            return Problem(431, f"the request's headers are over {MAX_HEAD_BYTES} bytes")
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > MAX_BODY_BYTES:
            return Problem(413, self._body_detail())
        return None

    @staticmethod
    def _body_detail() -> str:
        return f"the body is over {MAX_BODY_BYTES} bytes; send a shorter prompt"
