"""Two replicas that share nothing, behind nginx: no text is lost between them.

How often texts are cut: CUTS=200 python -m pytest -s tests/e2e/test_replicas.py
"""

import hashlib
import json
import os
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path

import httpx
import pytest

from tests.e2e.proxy import Program, Proxy, free_ports
from tests.e2e.test_generate import expected

CUTS = int(os.environ.get("CUTS", "10"))
PROMPT = "ROMEO:"
LONG = 4_000  # characters, which take a replica a second or so
# What nginx logs of a request that met a replica told to stop, and of one that met a replica that was gone. If one
# restart has both is chance, since a replica drains for half a second.
PASSED_OVER = {"503, 200", "502, 200"}
MAX_ROLLING_RESTARTS = 5
SHORT = {"prompt": PROMPT, "seed": 3, "max_new_tokens": 50, "stream": False}
known = cache(expected)


class Replica:
    """`python -m app`, on a port that it keeps when it is started again."""

    def __init__(self, folder: Path) -> None:
        [self.port] = free_ports(1)
        flags = [f"--port={self.port}", f"--checkpoint={folder}", "--device=cpu", "--drain_seconds=0.5"]
        self._command = [sys.executable, "-m", "app", *flags]
        self.start()

    def start(self) -> None:
        """Start, or start again."""
        self.program = Program(self._command, "running on http")


class Reader:
    """A client that knows what of a text it has, and after a break asks for the rest."""

    def __init__(self, client: httpx.Client, seed: int, length: int) -> None:
        self._client = client
        self._asked = {"prompt": PROMPT, "seed": seed, "max_new_tokens": length}
        self._headers: dict[str, str] = {}
        self.text = ""
        self.answers = 0
        self.done = False
        self.began = threading.Event()

    def read(self, most: int = sys.maxsize) -> None:
        """Read one answer until it ends or breaks; leave after so many bytes of it, wherever that is."""
        self.answers += 1
        rest = b""
        with self._client.stream("POST", "/generate", json=self._asked, headers=self._headers) as answer:
            assert answer.status_code == 200
            try:
                for chunk in answer.iter_raw():
                    *frames, rest = (rest + chunk[:most]).split(b"\n\n")
                    for frame in frames:
                        self._take(dict(line.split(": ", 1) for line in frame.decode().splitlines()))
                    most -= len(chunk)
                    if most <= 0:
                        return
            except httpx.TransportError:
                pass  # whoever wrote it is gone

    def _take(self, frame: dict[str, str]) -> None:
        if "data" not in frame:
            return  # it only says that somebody is there
        data = json.loads(frame["data"])
        if frame["event"] == "text":
            assert data["index"] == len(self.text)
            self.text += data["text"]
            self._headers = {"Last-Event-ID": frame["id"]}
            self.began.set()
        elif frame["event"] == "done":
            assert data["samples"][0]["sha256"] == hashlib.sha256(self.text.encode()).hexdigest()
            self.done = True

    def finish(self) -> None:
        """Read until all of it has come."""
        while not self.done:
            assert self.answers < 20
            self.read()


@contextmanager
def reading(client: httpx.Client, seeds: Sequence[int]) -> Iterator[list[Reader]]:
    """Long texts being read side by side, all of them begun; in the end, all of them whole."""
    readers = [Reader(client, seed, LONG) for seed in seeds]
    with ThreadPoolExecutor() as pool:
        finished = [pool.submit(reader.finish) for reader in readers]
        for reader in readers:
            assert reader.began.wait(30)
        yield readers
        for one in finished:
            one.result()
    for seed, reader in zip(seeds, readers, strict=True):
        assert reader.text == known(PROMPT, seed, LONG)


@pytest.fixture(scope="module")
def started(folder: Path) -> Iterator[list[Replica]]:
    """Two replicas, for all tests of this module."""
    replicas = [Replica(folder), Replica(folder)]
    yield replicas
    for replica in replicas:
        replica.program.end(signal.SIGKILL)


def bring_up(replicas: Sequence[Replica]) -> None:
    """Start those that have ended, and wait until all listen."""
    for replica in replicas:
        if not replica.program.running:
            replica.start()
    for replica in replicas:
        replica.program.wait()


@pytest.fixture
def replicas(started: list[Replica]) -> list[Replica]:
    """Both of them up, whatever happened to them before."""
    bring_up(started)
    return started


@pytest.fixture
def proxy(replicas: list[Replica], tmp_path: Path) -> Proxy:
    """nginx before both."""
    return Proxy(tmp_path, [replica.port for replica in replicas])


def test_both_replicas_write_the_same_text(proxy: Proxy) -> None:
    with proxy, proxy.client() as client:
        answers = [client.post("/generate", json=SHORT) for _ in range(4)]
    assert {one.json()["samples"][0]["text"] for one in answers} == {known(PROMPT, 3, 50)}
    assert sorted(Counter(line["upstream"] for line in proxy.log()).values()) == [2, 2]


def test_a_text_cut_anywhere_goes_on_by_the_other_replica(proxy: Proxy) -> None:
    chance = random.Random(0)
    cuts = 0
    answers = 0
    with proxy, proxy.client() as client:
        for seed in count():
            reader = Reader(client, seed, 600)
            while not reader.done:
                reader.read(chance.randrange(1, 2000))
            assert reader.text == known(PROMPT, seed, 600)
            answers += reader.answers
            cuts += reader.answers - 1
            if cuts >= CUTS:
                break
    by_replica = Counter(line["upstream"] for line in proxy.log())
    assert sum(by_replica.values()) == answers
    assert min(by_replica.values()) > answers // 3
    print(f"{seed + 1} texts, {cuts} cuts, none lost; answers by replica: {sorted(by_replica.values())}")


def test_a_replica_killed_in_mid_stream_loses_nothing(proxy: Proxy, replicas: list[Replica]) -> None:
    with proxy, proxy.client() as client:
        with reading(client, (1, 2)) as readers:
            replicas[0].program.end(signal.SIGKILL)
            for _ in range(4):
                answer = client.post("/generate", json=SHORT)
                assert answer.json()["samples"][0]["text"] == known(PROMPT, 3, 50)
        assert sorted(reader.answers for reader in readers) == [1, 2]


def test_a_rolling_restart_loses_nothing(proxy: Proxy, replicas: list[Replica]) -> None:
    over = threading.Event()

    def ask_again_and_again(client: httpx.Client) -> int:
        answered = 0
        while not over.wait(0.02):
            answer = client.post("/generate", json=SHORT)
            assert answer.status_code == 200
            assert answer.json()["samples"][0]["text"] == known(PROMPT, 3, 50)
            answered += 1
        return answered

    with proxy, proxy.client() as client, ThreadPoolExecutor() as pool:
        asking = pool.submit(ask_again_and_again, client)
        try:
            for _ in range(MAX_ROLLING_RESTARTS):
                for replica in replicas:
                    bring_up(replicas)
                    with reading(client, (1, 2)):
                        replica.program.end(signal.SIGTERM)
                if {line["upstream_status"] for line in proxy.log()} >= PASSED_OVER:
                    break
        finally:
            over.set()
        assert asking.result() > 10
    assert {line["upstream_status"] for line in proxy.log()} >= PASSED_OVER
