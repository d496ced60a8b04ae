"""Who a client is, and that no client gets more than its share, whatever it does and however its requests end."""

import asyncio
import time
from collections import Counter
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import HTTPException
from hypothesis import assume, given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from app.api.schemas import GenerateRequest, limit_length
from app.security import rate_limit as limits
from app.security.rate_limit import Claim, ConcurrencyLimit, Counters, RateLimit, client_of
from app.settings import parse_rate
from model.errors import InputError

WINDOW = 60
requests = st.lists(st.tuples(st.floats(0, 40), st.sampled_from(["192.0.2.1", "192.0.2.2"])), max_size=60)


def scope_of(host: str, path: str = "/generate", **more: Any) -> Scope:
    return {"type": "http", "path": path, "client": (host, 1), "headers": []} | more


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def receive() -> Message:
    raise AssertionError("a refusal reads nothing")


class LimitedApp:
    """A rate limit at a time of the test's own."""

    def __init__(self, patch: pytest.MonkeyPatch, amount: int) -> None:
        self.now = time.time()
        self.app = RateLimit(nothing, parse_rate(f"{amount}/minute"))
        patch.setattr(time, "time", lambda: self.now)
        patch.setattr(limits, "REFUSAL_GAP", 0)

    def ask(self, host: str, path: str = "/generate") -> tuple[int, dict[str, str]]:
        """The status, and the headers."""
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        answering = self.app(scope_of(host, path), receive, send)
        with suppress(StopIteration):  # nothing in it waits for long
            while True:
                answering.send(None)
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], headers


@given(amount=st.integers(1, 7), sent=requests)
def test_a_client_gets_its_rate_and_hears_how_long_to_wait(amount: int, sent: list[tuple[float, str]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        here = LimitedApp(patch, amount)
        began = here.now
        granted = Counter[str]()
        for wait, host in sent:
            here.now += wait
            status, headers = here.ask(host)
            assert headers["ratelimit-policy"] == f'"default";q={amount};w={WINDOW}'
            _, left, seconds = (part.partition("=")[2] for part in headers["ratelimit"].split(";"))
            assert 0 <= int(left) < amount
            if status == 429:
                assert left == "0"
                assert headers["retry-after"] == seconds
                here.now += int(seconds)
                assert here.ask(host)[0] == 200  # it is worth waiting
            granted[host] += 1
            windows = (here.now - began) / WINDOW + 2  # a part of one at either end
            assert granted[host] <= amount * windows


@given(amount=st.integers(1, 5), sent=requests)
def test_no_client_notices_another_ones_limit(amount: int, sent: list[tuple[float, str]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        both = LimitedApp(patch, amount)
        alone = LimitedApp(patch, amount)
        alone.now = both.now  # the clock is the one that was patched last
        for wait, host in sent:
            alone.now += wait
            answer = both.ask(host)
            if host == "192.0.2.1":
                assert alone.ask(host) == answer


def test_refusals_go_out_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise who asks most is served most of the server's time.

    The clock stands still for the limit alone: a server of other tests would sleep until it is what it was before.
    """
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    here = LimitedApp(monkeypatch, 1)
    monkeypatch.undo()
    names = SimpleNamespace(sleep=sleep, CancelledError=asyncio.CancelledError)
    monkeypatch.setattr(limits, "asyncio", names)
    monkeypatch.setattr(limits, "time", SimpleNamespace(time=time.time, monotonic=lambda: 100.0))
    assert [here.ask("192.0.2.1")[0] for _ in range(452)] == [200] + 451 * [429]
    assert waits[:251] == pytest.approx([0.02 * number for number in range(251)])
    assert all(0 <= wait <= 5 for wait in waits[251:])
    assert {round(wait) for wait in waits[251:]} == set(range(6))  # all over the five seconds


def test_a_server_that_stops_refuses_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn then cancels what still waits; the client hears its refusal, and the log has no traceback."""
    here = LimitedApp(monkeypatch, 1)
    here.ask("192.0.2.1")
    here.ask("192.0.2.1")
    monkeypatch.undo()
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def stop() -> None:
        monkeypatch.setattr(here.app, "_next_refusal", time.monotonic() + 4)
        waiting = asyncio.create_task(here.app(scope_of("192.0.2.1"), receive, send))
        await asyncio.sleep(0)
        assert not sent
        waiting.cancel("the server stops")
        await waiting

    asyncio.run(stop())
    assert sent[0]["status"] == 429


def test_only_what_costs_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    here = LimitedApp(monkeypatch, 1)
    for path in ("/", "/info", "/health/live", "/metrics", "/v1/models", "/static/main.js"):
        assert here.ask("192.0.2.1", path) == (200, {})
    assert here.ask("192.0.2.1", "/v1/completions")[0] == 200
    assert here.ask("192.0.2.1", "/snapshots")[0] == 429


def test_counters_of_many_addresses_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_COUNTERS", 100)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    counters = Counters()
    for number in range(1000):
        assert counters.incr(f"client {number}", 120) == 1
        assert counters.incr(f"client {number}", 120) == 2
    assert len(counters.storage) == len(counters.expirations) == 100
    assert counters.get("client 999") == 2
    now += 121
    counters.incr("another", 120)
    assert list(counters.storage) == list(counters.expirations) == ["another"]


@given(ends=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4), st.integers(0, 2)), max_size=30))
def test_what_a_request_holds_is_released_however_it_ends(ends: list[tuple[str, int, int]]) -> None:
    """Requests that return, fail and are cancelled, side by side; then every client has its whole share again."""
    most = 5
    wrong: list[str] = []

    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        _, texts, end = scope["end"]
        claim: Claim = scope["state"]["claim"]
        try:
            claim.acquire(texts, "num_samples")
        except HTTPException:
            if limit.counts[client_of(scope)] + texts <= most:
                wrong.append("refused")
        await asyncio.sleep(0)
        if limit.counts[client_of(scope)] > most:
            wrong.append("allowed")
        if end == 1:
            raise ValueError
        if end == 2:
            await asyncio.Event().wait()

    limit = ConcurrencyLimit(work, most)

    async def ask_all() -> None:
        hosts = {"a": "192.0.2.1", "b": "192.0.2.2", "c": "2001:db8::1"}
        tasks = []
        for end in ends:
            scope = scope_of(hosts[end[0]], end=end)
            tasks.append(asyncio.ensure_future(limit(scope, receive, nothing_sent)))
        for _ in range(4):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(ask_all())
    assert wrong == []
    assert limit.counts == {}


async def nothing_sent(message: Message) -> None:
    raise AssertionError("nothing is sent here")


def test_more_texts_than_are_ever_allowed_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="n: one client may have 2 texts written at once, not 3"):
        Claim(Counter(), "a", 2).acquire(3, "n")


@given(address=st.ip_addresses(v=6), other=st.integers(0, 2**64 - 1))
def test_a_subscribers_ipv6_network_is_one_client(address: IPv6Address, other: int) -> None:
    assume(0 < int(address) >> 64 < 2**64 - 1)
    neighbour = IPv6Address(int(address) >> 64 << 64 | other)
    stranger = IPv6Address(int(address) + 2**64)
    assert client_of(scope_of(str(address))) == client_of(scope_of(str(neighbour)))
    assert client_of(scope_of(str(address))) != client_of(scope_of(str(stranger)))


@given(address=st.ip_addresses(v=4))
def test_an_ipv4_address_is_one_client_in_either_form(address: IPv4Address) -> None:
    assert client_of(scope_of(str(address))) == client_of(scope_of(f"::ffff:{address}")) == f"address {address}"


def test_who_has_a_key_is_known_by_it_and_who_has_no_address_is_one_client() -> None:
    assert client_of(scope_of("192.0.2.1", state={"key": "abc"})) == "key abc"
    assert client_of(scope_of("unix:")) == client_of(scope_of("x" * 9999)) == "address unknown"
    assert client_of(scope_of("", client=None)) == "address unknown"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({"max_new_tokens": 100}, 100), ({"max_new_tokens": 7}, 7), ({}, 100)],
)
def test_a_length_that_nobody_named_is_no_longer_than_allowed(fields: dict[str, Any], expected: int) -> None:
    assert limit_length(GenerateRequest(**fields), 100).max_new_tokens == expected


def test_a_length_over_the_limit_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="max_new_tokens: this server writes 100 at most, not 101"):
        limit_length(GenerateRequest(max_new_tokens=101), 100)
