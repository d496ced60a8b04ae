"""How much one client may ask for: requests in a time, texts at once, characters in a text. Owns who a client is.

All counts are in memory and bounded; what is counted for a request is given back however the request ends.
"""

import asyncio
import math
import random
import time
from collections import Counter
from contextlib import suppress
from ipaddress import IPv6Address, ip_address, ip_network

from fastapi import HTTPException, Request
from limits import RateLimitItem
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.problems import Problem
from model.errors import InputError

LIMITED = frozenset({"/generate", "/score", "/report", "/snapshots", "/v1/completions"})
MAX_COUNTERS = 65_536  # some 20 MB; each client that asked in the last two windows has one or two
REFUSAL_GAP = 0.02  # seconds between two refusals: who asks on and on has to wait, and others notice nothing
REFUSAL_WAIT = 5.0  # at most, enough for 250 that ask at once; when it is not, by chance within it
CEILING_RETRY = 5  # seconds: nobody knows how long its other texts will take


def client_of(scope: Scope) -> str:
    """Who asks: the owner of a valid key, else an address. An IPv6 subscriber has a whole /64 of them."""
    if key := scope.get("state", {}).get("key"):
        return f"key {key}"
    host, _ = scope.get("client") or ("", 0)
    try:
        address = ip_address(host)
    except ValueError:
        return "address unknown"
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return f"address {ip_network((int(address) >> 64 << 64, 64))}"
        address = address.ipv4_mapped
    return f"address {address}"


class Counters(MemoryStorage):
    """limits' own memory, but bounded, and without its thread that walks over all counters at each request.

    For one rate: then counters expire in the order in which they were begun.
    """

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count, and forget what has expired, or the oldest if there are too many."""
        count = self.get(key) + amount
        self.storage[key] = count
        now = time.time()
        self.expirations.setdefault(key, now + expiry)
        oldest = next(iter(self.expirations))
        while len(self.expirations) > MAX_COUNTERS or self.expirations[oldest] <= now:
            del self.expirations[oldest]
            self.storage.pop(oldest, None)
            oldest = next(iter(self.expirations))
        return count


class RateLimit:
    """Middleware that refuses a client's requests over the rate (429), and tells every client where it stands.

    The header fields are those of the IETF's draft-ietf-httpapi-ratelimit-headers-11.
    """

    def __init__(self, app: ASGIApp, rate: RateLimitItem) -> None:
        self.app = app
        self._rate = rate
        self._policy = f'"default";q={rate.amount};w={rate.get_expiry()}'
        self._limiter = SlidingWindowCounterRateLimiter(Counters())
        self._next_refusal = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the request, if it is one that costs."""
        if scope["type"] != "http" or scope["path"] not in LIMITED:
            await self.app(scope, receive, send)
            return
        client = client_of(scope)
        allowed = self._limiter.hit(self._rate, client)
        reset, remaining = self._limiter.get_window_stats(self._rate, client)
        seconds = max(1, math.ceil(reset - time.time()))
        fields = {"RateLimit-Policy": self._policy, "RateLimit": f'"default";r={remaining};t={seconds}'}
        if not allowed:
            await self._take_turn()
            await self._problem(seconds, fields).response(scope["path"])(scope, receive, send)
            return

        async def send_with_fields(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(fields)
            await send(message)

        await self.app(scope, receive, send_with_fields)

    async def _take_turn(self) -> None:
        """Refusals go out one after another: many at once would keep the texts of others waiting."""
        now = time.monotonic()
        turn = max(now, self._next_refusal)
        if turn > now + REFUSAL_WAIT:
            turn = now + REFUSAL_WAIT * random.random()
        else:
            self._next_refusal = turn + REFUSAL_GAP
        with suppress(asyncio.CancelledError):  # when the server stops, all turns have come
            await asyncio.sleep(turn - now)

    def _problem(self, seconds: int, fields: dict[str, str]) -> Problem:
        detail = f"over {self._rate.amount} requests in {self._rate.get_expiry()} seconds; wait {seconds} seconds"
        return Problem(429, detail, {"retry_after": seconds}, fields | {"Retry-After": str(seconds)})


class Claim:
    """What one request has of its client's share; `client` counts the texts that it has being written."""

    def __init__(self, counts: Counter[str], client: str, most: int) -> None:
        self._counts, self._client, self._most = counts, client, most
        self._held = 0

    def take(self, texts: int, field: str) -> None:
        """Count texts that are about to be written.

        Raises:
            InputError: so many never are allowed; names `field`.
            HTTPException: the client has too many already (429).
        """
        if texts > self._most:
            raise InputError(field, f"one client may have {self._most} texts written at once, not {texts}")
        if self._counts[self._client] + texts > self._most:
            detail = f"this client has {self._counts[self._client]} texts being written, of {self._most} at most"
            raise HTTPException(429, detail, {"Retry-After": str(CEILING_RETRY)})
        self._counts[self._client] += texts
        self._held += texts

    def give_back(self) -> None:
        """The request has ended."""
        self._counts[self._client] -= self._held
        self._held = 0
        if self._counts[self._client] <= 0:
            del self._counts[self._client]


class StreamCeiling:
    """Middleware that gives each request a `Claim` and takes it back when it has ended, in whatever way."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app = app
        self._most = most
        self.counts: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, then count its texts no more."""
        if scope["type"] != "http" or scope["path"] not in LIMITED:
            await self.app(scope, receive, send)
            return
        claim = scope.setdefault("state", {})["claim"] = Claim(self.counts, client_of(scope), self._most)
        try:
            await self.app(scope, receive, send)
        finally:
            claim.give_back()


def claim_streams(request: Request, texts: int, field: str = "num_samples") -> None:
    """Count texts for the request's client, before they are submitted; until the request has ended.

    Raises:
        InputError, HTTPException: they are too many.
    """
    claim: Claim | None = getattr(request.state, "claim", None)
    if claim is not None:
        claim.take(texts, field)
