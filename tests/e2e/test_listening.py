"""Where the server listens, and more connections than a process may have descriptors for.

With 1,024 descriptors, 1,200 open sockets made the server use a whole core and write 35 MB of log in 12 seconds:
asyncio reports each attempt to accept that fails, and tries again at once. Now the limit is raised, connections
have places below it, and lines of one kind are counted after the first few.
"""

import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from httpx_sse import connect_sse

from app.server import listening
from app.server.listening import ConnectionLimit
from app.settings import ServerSettings
from model.errors import InputError
from tests.e2e.test_process import serving

LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
sys.argv = ["app", *sys.argv[1:]]
runpy.run_module("app", run_name="__main__")
"""
MAX_LOG_BYTES = 20_000


class Process:
    """`python -m app` with few descriptors; `said` is what it writes on standard error."""

    def __init__(self, folder: Path, soft: int, hard: int, *flags: str) -> None:
        command = [sys.executable, "-c", LIMITED.format(soft=soft, hard=hard), "--port=0", "--device=cpu"]
        command += [f"--checkpoint={folder}", *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self.said = ""
        self._up = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self._up.wait(120)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            if "running on" in line:
                self._up.set()
        self._up.set()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.said.partition("running on http://127.0.0.1:")[2].split()[0])

    def end(self) -> None:
        """Stop it, and read what it says to its end."""
        self.process.kill()
        self._reader.join()
        self.process.communicate()


@contextmanager
def limited(folder: Path, soft: int, hard: int, *flags: str) -> Iterator[Process]:
    process = Process(folder, soft, hard, *flags)
    try:
        yield process
    finally:
        process.end()


@pytest.mark.parametrize(
    ("soft", "hard", "sockets"),
    [(64, 64, 400), (64, 256, 600), (1024, 4096, 1200)],
)
def test_more_sockets_than_descriptors_keep_nobody_out_and_write_no_log(
    folder: Path, soft: int, hard: int, sockets: int
) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most != resource.RLIM_INFINITY and most < max(hard, sockets + 200):
        pytest.skip("this process may not open enough files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most if most != resource.RLIM_INFINITY else 8192, most))
    with limited(folder, soft, hard) as server, ExitStack() as stack:
        url = f"http://127.0.0.1:{server.port}"
        client = stack.enter_context(httpx.Client(timeout=60))
        fields = {"max_new_tokens": 3000}
        source = stack.enter_context(connect_sse(client, "POST", f"{url}/generate", json=fields))
        events = source.iter_sse()
        assert next(events).event == "start"
        for _ in range(sockets):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", server.port))
        for _ in range(3):
            assert httpx.get(f"{url}/health/live", timeout=60).status_code == 200
        answer = httpx.post(f"{url}/generate", json={"max_new_tokens": 3, "stream": False}, timeout=60)
        assert answer.status_code == 200
        assert [event.event for event in events][-1] == "done"
        for _ in range(100):
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as one:
                one.sendall(b"nonsense\r\n\r\n")
                one.recv(100)
    assert len(server.said) < MAX_LOG_BYTES, server.said
    assert "Traceback" not in server.said
    assert "Too many open files" not in server.said
    assert ("enough for" in server.said) == (hard == 64)


async def test_idle_connections_are_closed_for_new_ones_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "SAFE_SECONDS", 0.0)
    limit = ConnectionLimit(3)
    gone: list[str] = []

    class Client:
        def __init__(self, name: str) -> None:
            self.name = name

        def close_idle(self) -> None:
            gone.append(self.name)
            limit.closed(self)

    async def come(name: str) -> Client:
        await limit.acquire()
        client = Client(name)
        limit.opened(client)
        return client

    first, second, third = [await come(name) for name in ("first", "second", "third")]
    limit.mark_busy(first)
    limit.mark_busy(second)
    limit.mark_idle(second)  # has its answer, and waits for less long than the third
    assert not gone
    fourth = await come("fourth")
    assert gone == ["third"]
    await come("fifth")
    assert gone == ["third", "second"]
    limit.closed(third)
    limit.mark_busy(fourth)


async def test_while_all_are_busy_new_ones_wait_until_one_is_closed() -> None:
    limit = ConnectionLimit(1)

    class Client:
        def close_idle(self) -> None:
            raise AssertionError("it has a request")

    await limit.acquire()
    busy = Client()
    limit.opened(busy)
    limit.mark_busy(busy)
    coming = asyncio.ensure_future(limit.acquire())
    await asyncio.sleep(0)
    assert not coming.done()
    limit.closed(busy)
    await coming
    assert limit.is_full


@pytest.mark.parametrize("spare", [0, 3, 5])
def test_descriptors_for_nobody_are_one_sentence(monkeypatch: pytest.MonkeyPatch, spare: int) -> None:
    in_use = len(os.listdir("/dev/fd"))
    monkeypatch.setattr(listening, "_raise_limit", lambda wanted: in_use + spare)
    with pytest.raises(InputError, match=rf"^connections: this process may have {in_use + spare} files open"):
        listening.reserve_descriptors(ServerSettings())


def test_a_host_for_all_serves_ipv4_too(folder: Path) -> None:
    """asyncio's sockets are for IPv6 alone. A client's address is written as IPv4, or no proxy would be known."""
    try:
        socket.create_server(("::", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 on this machine")
    flags = ("--host=::", "--trusted_proxies=127.0.0.1", "--rate_limit=1/hour")
    with serving(folder, *flags) as (_, url):
        port = httpx.URL(url.replace("[::]", "localhost")).port
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{host}:{port}/health/live").status_code == 200
        statuses = []
        for client in ("198.51.100.1", "198.51.100.2", "198.51.100.1"):
            headers = {"x-forwarded-for": client}
            address = f"http://127.0.0.1:{port}/generate?max_new_tokens=1"
            statuses.append(httpx.get(address, headers=headers).status_code)
        assert statuses == [200, 200, 429]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_any_host_is_bound(host: str) -> None:
    listeners = listening.bind(host, 0)
    assert len({listener.getsockname()[1] for listener in listeners}) == 1
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_what_is_written_is_not_kept_back(host: str) -> None:
    """Every answer took 48 ms more: its head and its body are two writes, and the kernel kept the second back until
    the first was acknowledged. asyncio forbids that for connections of a socket that names TCP, which ours did not.
    """

    class Accepted(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            connection: socket.socket = transport.get_extra_info("socket")
            found.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            transport.close()

    async def look() -> int:
        [listener, *others] = listening.bind(host, 0)
        listener.listen()
        accepting = asyncio.create_task(listening.accept(listener, ConnectionLimit(), Accepted))
        _, writer = await asyncio.open_connection(*listener.getsockname()[:2])
        try:
            return await found
        finally:
            accepting.cancel()
            writer.close()
            listening.close([listener, *others])

    with asyncio.Runner() as runner:
        found: asyncio.Future[int] = runner.get_loop().create_future()
        assert runner.run(look()) != 0


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1", "not a host"])
def test_a_host_that_cannot_be_listened_on_is_named(host: str) -> None:
    with pytest.raises(InputError, match=r"^host: "):
        listening.bind(host, 0)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"port: {port} is taken on 127.0.0.1"):
            listening.bind("127.0.0.1", port)


def test_refusals_do_not_fill_the_log(folder: Path) -> None:
    """Nor do lines of a client's making: what it sends is not in them, or cut."""
    with limited(folder, 256, 256, "--log_format=json") as server, httpx.Client(timeout=60) as client:
        for number in range(700):
            client.get(f"http://127.0.0.1:{server.port}/{number}{'x' * 2000}")
    lines = [json.loads(line) for line in server.said.splitlines()]
    refused = [line for line in lines if line.get("status") == 404]
    assert len(refused) == 600
    assert max(len(line) for line in server.said.splitlines()) < 1000
