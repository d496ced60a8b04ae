"""Limits for each client: requests in a period, and sequences generated at once. Owns who counts as one client.

All counts are in memory and bounded; what is counted for a request is released however the request ends.
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

# The paths to which both limits apply.
LIMITED = frozenset({"/generate", "/score", "/report", "/snapshots", "/qr", "/v1/completions"})
MAX_COUNTERS = 65_536  # some 20 MB; a client has one for each of the last two windows in which it made a request
REFUSAL_GAP = 0.02  # seconds between two refusals, so that a flood of refused requests does not slow down others
REFUSAL_WAIT = 5.0  # seconds that a refusal waits at most; enough for 250 at once
CONCURRENCY_RETRY = 5  # seconds; arbitrary, since how long the client's other texts will take is unknown


def client_of(scope: Scope) -> str:
    """Whose request it is: the owner of a valid key, else an IPv4 address, or the /64 network of an IPv6 address.

    A /64 is what one IPv6 subscriber has.
    """
    owner = scope.get("state", {}).get("key")  # set by `api_keys`
    if owner:
        return f"key {owner}"
    host, _ = scope.get("client") or ("", 0)
    try:
        address = ip_address(host)
    except ValueError:
        return "address unknown"
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            prefix = int(address) >> 64 << 64  # without its lower half
            return f"address {ip_network((prefix, 64))}"
        address = address.ipv4_mapped
    return f"address {address}"


class Counters(MemoryStorage):
    """The memory storage of `limits`, but bounded, and without its thread that visits all counters at each request.

    It is for a single rate: only then do counters expire in the order in which they were begun, so that the first
    in `expirations` is the oldest.
    """

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Add to a counter and return its count.

        Counters that have expired are dropped, and the oldest ones if there are too many.
        """
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
    """Middleware that refuses a client's requests over the rate (429), and adds what is left of it to every answer.

    The header fields are those of the IETF's draft-ietf-httpapi-ratelimit-headers-11.
    """

    def __init__(self, app: ASGIApp, rate: RateLimitItem) -> None:
        self.app = app
        self._rate = rate
        self._policy = f'"default";q={rate.amount};w={rate.get_expiry()}'
        self._limiter = SlidingWindowCounterRateLimiter(Counters())
        self._next_refusal = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the request, if its path is limited."""
        if scope["type"] != "http" or scope["path"] not in LIMITED:
            await self.app(scope, receive, send)
            return
        client = client_of(scope)
        allowed = self._limiter.hit(self._rate, client)
        reset, remaining = self._limiter.get_window_stats(self._rate, client)
        seconds = max(1, math.ceil(reset - time.time()))  # until the window ends
        fields = {"RateLimit-Policy": self._policy, "RateLimit": f'"default";r={remaining};t={seconds}'}
        if not allowed:
            await self._pace_refusal()
            response = self._problem(seconds, fields).response(scope["path"])
            await response(scope, receive, send)
            return

        async def send_with_fields(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(fields)
            await send(message)

        await self.app(scope, receive, send_with_fields)

    async def _pace_refusal(self) -> None:
        """Wait until the next refusal may be sent: many at once would delay the texts of other clients.

        Refusals are REFUSAL_GAP apart. When so many are waiting that this one would wait longer than REFUSAL_WAIT,
        it waits for a random part of REFUSAL_WAIT instead.
        """
        now = time.monotonic()
        due = max(now, self._next_refusal)
        if due > now + REFUSAL_WAIT:
            due = now + REFUSAL_WAIT * random.random()
        else:
            self._next_refusal = due + REFUSAL_GAP
        with suppress(asyncio.CancelledError):  # the server stops: refuse at once
            await asyncio.sleep(due - now)

    def _problem(self, seconds: int, fields: dict[str, str]) -> Problem:
        detail = f"over {self._rate.amount} requests in {self._rate.get_expiry()} seconds; wait {seconds} seconds"
        return Problem(429, detail, {"retry_after": seconds}, fields | {"Retry-After": str(seconds)})


class Claim:
    """How many sequences one request has added to its client's count, so that they can be taken off again.

    Args:
        counts: the sequences of each client, shared by all requests.
        client: whose request it is, by `client_of`.
        limit: sequences that one client may have at once.
    """

    def __init__(self, counts: Counter[str], client: str, limit: int) -> None:
        self._counts = counts
        self._client = client
        self._limit = limit
        self._held = 0

    def acquire(self, sequences: int, field: str) -> None:
        """Count sequences that are about to be submitted.

        Raises:
            InputError: so many are never allowed; names `field`.
            HTTPException: the client has too many already (429).
        """
        if sequences > self._limit:
            raise InputError(field, f"one client may have {self._limit} texts written at once, not {sequences}")
        active = self._counts[self._client]
        if active + sequences > self._limit:
            detail = f"this client has {active} texts being written, of {self._limit} at most"
            raise HTTPException(429, detail, {"Retry-After": str(CONCURRENCY_RETRY)})
        self._counts[self._client] += sequences
        self._held += sequences

    def release(self) -> None:
        """Take this request's sequences off the count; called when it has ended."""
        self._counts[self._client] -= self._held
        self._held = 0
        if self._counts[self._client] <= 0:
            del self._counts[self._client]


class ConcurrencyLimit:
    """Middleware that gives each request a `Claim` and releases it when the request has ended, in whatever way."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self._limit = limit
        self.counts: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, then release its claim."""
        if scope["type"] != "http" or scope["path"] not in LIMITED:
            await self.app(scope, receive, send)
            return
        claim = Claim(self.counts, client_of(scope), self._limit)
        scope.setdefault("state", {})["claim"] = claim
        try:
            await self.app(scope, receive, send)
        finally:
            claim.release()


def claim_sequences(request: Request, sequences: int, field: str = "num_samples") -> None:
    """Count sequences for the request's client until the request has ended; called before they are submitted.

    Raises:
        InputError: so many are never allowed; names `field`.
        HTTPException: the client has too many already (429).
    """
    claim: Claim | None = getattr(request.state, "claim", None)  # None if the server has no such limit
    if claim is not None:
        claim.acquire(sequences, field)
