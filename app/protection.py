"""What guards the service at its door: keys, sizes, host names, and the headers that guard a browser.

Pure ASGI: nothing here buffers an answer or hides a disconnect. Knows nothing of what is asked for.
"""

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Collection
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.limits import RateLimit, StreamCeiling, parse_rate
from app.problems import Problem
from app.settings import ServerSettings, listed, origin_pattern
from model.errors import InputError
from model.files import decode_text, read_bounded

logger = logging.getLogger(__name__)

MAX_KEYS_BYTES = 1024 * 1024
MAX_BODY_BYTES = 256 * 1024
MAX_HEAD_BYTES = 64 * 1024
MAX_URL_BYTES = 32 * 1024
OPEN = frozenset({"/", "/info", "/docs", "/openapi.json"})  # without a key, and all below these:
OPEN_FOLDERS = ("/static/", "/health/")
KEY = re.compile(r"[!-~]+")  # what a header can carry, without spaces
BEARER = re.compile(rb"bearer +([!-~]+) *", re.IGNORECASE)
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


class ApiKeys:
    """The keys that open this server, none if it is open.

    Only digests are kept, with a salt of this process: what a key's owner is called tells nothing of the key.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._salt = secrets.token_bytes(16)
        self._digests = [self._digest(key) for key in read_keys(settings)]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def owner(self, key: str) -> str | None:
        """What the owner of a key is called; None if it is not one of ours. Takes the same time for any."""
        digest = self._digest(key)
        matches = [hmac.compare_digest(digest, one) for one in self._digests]
        return digest.hex()[:16] if any(matches) else None

    def reload(self) -> None:
        """Read the file again; the old keys stay if it cannot be used, or if there is none."""
        if not self:
            return
        try:
            self._digests = [self._digest(key) for key in read_keys(self._settings)]
            logger.info("read the API keys again: %d", len(self._digests))
        except InputError as error:
            logger.error("the old API keys stay: %s", error)

    def _digest(self, key: str) -> bytes:
        return hashlib.blake2b(key.encode(), key=self._salt, digest_size=16).digest()


def read_keys(settings: ServerSettings) -> list[str]:
    """The keys that the settings name, in either form.

    Raises:
        InputError: there are none where they should be, or one that no client could send. It does not tell them.
    """
    given: list[tuple[str, str]] = []
    if settings.api_keys is not None:
        given += [("api_keys", key) for key in listed(settings.api_keys.get_secret_value())]
    if settings.api_keys_file is not None:
        given += [("api_keys_file", key) for key in _lines(settings.api_keys_file)]
    for field, key in given:
        if not key:
            raise InputError(field, "has an empty key; leave it out where no key is wanted")
        if not KEY.fullmatch(key):
            raise InputError(field, "has a key with spaces or other characters that a header cannot carry")
    return [key for _, key in given]


def _lines(path: Path) -> list[str]:
    """The keys in a file."""
    try:
        lines = [line.strip() for line in decode_text(read_bounded(path, MAX_KEYS_BYTES)).splitlines()]
    except (OSError, ValueError) as error:
        reason = (error.strerror or error) if isinstance(error, OSError) else error
        raise InputError("api_keys_file", f"{path} cannot be read: {reason}") from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise InputError("api_keys_file", f"{path} has no keys")
    return keys


class KeyCheck:
    """Middleware that wants a key (401) for all that is not open, and notes whose it is."""

    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        self.app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Look at the Authorization header."""
        if scope["type"] != "http" or scope["path"] in OPEN or scope["path"].startswith(OPEN_FOLDERS):
            await self.app(scope, receive, send)
            return
        match = BEARER.fullmatch(dict(scope["headers"]).get(b"authorization", b""))
        owner = self._keys.owner(match[1].decode("ascii")) if match else None
        if owner is None:
            await self._problem(match is not None).response(scope["path"])(scope, receive, send)
            return
        scope.setdefault("state", {})["key"] = owner
        await self.app(scope, receive, send)

    @staticmethod
    def _problem(sent: bool) -> Problem:
        challenge = 'Bearer error="invalid_token"' if sent else "Bearer"
        detail = "this API key is not valid" if sent else "send an API key: Authorization: Bearer KEY"
        return Problem(401, detail, headers={"WWW-Authenticate": challenge})
