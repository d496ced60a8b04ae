"""API keys: where they are read, how they are compared, and which requests need one."""

import hashlib
import hmac
import logging
import re
import secrets
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from app.problems import Problem
from app.settings import ServerSettings, listed
from model.atomic_files import decode_text, read_bounded
from model.errors import InputError

logger = logging.getLogger(__name__)

MAX_KEYS_BYTES = 1024 * 1024
OPEN_PATHS = frozenset({"/", "/info", "/recording", "/texts", "/verify", "/docs", "/openapi.json"})
OPEN_FOLDERS = ("/static/", "/health/")
API_KEY_PATTERN = re.compile(r"[!-~]+")  # what a header can carry, without spaces
BEARER = re.compile(rb"bearer +(?P<key>[!-~]+) *", re.IGNORECASE)


def is_open(path: str) -> bool:
    """Whether a path is answered without a key on any server."""
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)


class ApiKeys:
    """The keys of this server; there are none, and it is false, if anyone may use the server.

    Only digests are kept, with a salt of this process: the name of a key's owner, which is part of its digest, says
    nothing about the key.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._salt = secrets.token_bytes(16)
        self._digests = [self._digest(key) for key in read_keys(settings)]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def owner(self, key: str) -> str | None:
        """A name for the owner of a key; None if the key is not valid. Takes the same time for any key."""
        digest = self._digest(key)
        matches = [hmac.compare_digest(digest, one) for one in self._digests]
        return digest.hex()[:16] if any(matches) else None

    def reload(self) -> None:
        """Read the keys again; the old ones stay if the new ones cannot be used, and an open server stays open."""
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
    """The keys of the settings, given directly or by a file.

    Raises:
        InputError: the file has none, or a key is one that no client could send. The message does not quote keys.
    """
    given: list[tuple[str, str]] = []
    if settings.api_keys is not None:
        given += [("api_keys", key) for key in listed(settings.api_keys.get_secret_value())]
    if settings.api_keys_file is not None:
        given += [("api_keys_file", key) for key in _lines(settings.api_keys_file)]
    for field, key in given:
        if not key:
            raise InputError(field, "has an empty key; leave it out where no key is wanted")
        if not API_KEY_PATTERN.fullmatch(key):
            raise InputError(field, "has a key with spaces or other characters that a header cannot carry")
    return [key for _, key in given]


def _lines(path: Path) -> list[str]:
    """The keys in a file: its lines, but for blank ones and comments (#)."""
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
    """Middleware that refuses requests without a valid key (401), and notes whose key it is as `state.key`."""

    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        self.app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the Authorization header."""
        if scope["type"] != "http" or is_open(scope["path"]):
            await self.app(scope, receive, send)
            return
        match = BEARER.fullmatch(dict(scope["headers"]).get(b"authorization", b""))
        owner = self._keys.owner(match["key"].decode("ascii")) if match else None
        if owner is None:
            await self._problem(match is not None).response(scope["path"])(scope, receive, send)
            return
        scope.setdefault("state", {})["key"] = owner
        await self.app(scope, receive, send)

    @staticmethod
    def _problem(has_key: bool) -> Problem:
        challenge = 'Bearer error="invalid_token"' if has_key else "Bearer"
        detail = "this API key is not valid" if has_key else "send an API key: Authorization: Bearer KEY"
        return Problem(401, detail, headers={"WWW-Authenticate": challenge})
