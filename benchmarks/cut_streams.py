"""Whether a stream that is cut anywhere, and goes on on the device, is the text of an undisturbed one.

python -m benchmarks.cut_streams [--checkpoint=DIR] [--cuts=100]

The page's own modules read a server's stream in Chromium, through a proxy that ends the connection after a random
number of bytes and answers no more; then the engine writes the rest, as after a click on "Go on on this device".
The undisturbed texts are the server's answers in one object.

Needs Chromium (its path in CHROMIUM, or on the path) with Playwright.
"""

import random
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Page, sync_playwright
from pydantic import Field
from pydantic_settings import BaseSettings
from tqdm import tqdm

from model.cli import run, settings_config
from tests.e2e.conftest import FLAGS, chromium
from tests.e2e.test_process import serving

BYTES_PER_CHARACTER = 150  # of a stream with details, about
BLOCK = 1 << 16
STREAMED = b"POST /generate "
# Reads a stream, and goes on here once it is lost. Returns the texts, and the characters that had come until then.
READ = """async (given) => {
    const { GenerationRequest, generate } = await import("/static/api/generation.js");
    const card = JSON.parse(document.getElementById("card").textContent);
    const { prompt, seed, ...parameters } = given;
    const request = new GenerationRequest(prompt, parameters, seed);
    const leaving = new AbortController();
    let fromServer = null;
    const onWait = () => {
        fromServer ??= request.characters;
        leaving.abort();
    };
    const { signal } = new AbortController();
    const options = { signal, leave: leaving.signal, retryBusy: true, onWait, here: false };
    for await (const event of generate(request, card, options));
    const texts = request.runs.map(({ cells }) => cells.map(({ c }) => c).join(""));
    return { texts, fromServer, characters: request.characters };
}"""
LOAD = """async () => {
    const card = JSON.parse(document.getElementById("card").textContent);
    await import("/static/api/generation.js");
    await (await import("/static/engine/client.js")).load(card);
}"""


class CutSettings(BaseSettings):
    """Cut streams, let them go on in the browser, and compare."""

    model_config = settings_config("benchmarks.cut_streams", "SOLILOQUY_BENCHMARK_")

    checkpoint: Path = Path("checkpoints/shakespeare-char")
    """Checkpoint folder"""
    cuts: int = Field(100, ge=1)
    """Streams that are cut; those that end before are written again, with another request"""
    seed: int = Field(0, ge=0)
    """Of the random requests, and of the places where they are cut"""


class CuttingProxy:
    """A port before a server's that ends the connection of a stream after some bytes, and then takes no other."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._bytes_left: int | None = None
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut_after(self, size: int) -> None:
        """End the connection once so many bytes of streams have been handed on from now."""
        with self._lock:
            self._bytes_left = size

    @contextmanager
    def running(self) -> Iterator["CuttingProxy"]:
        """Itself, until its port is closed."""
        threading.Thread(target=self._accept, daemon=True).start()
        try:
            yield self
        finally:
            self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            server = socket.create_connection(("127.0.0.1", self._port))
            streams = threading.Event()
            threading.Thread(target=self._ask, args=(client, server, streams), daemon=True).start()
            threading.Thread(target=self._answer, args=(server, client, streams), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket, streams: threading.Event) -> None:
        """Hand on what a client sends; note when it asks for a stream."""
        try:
            while content := client.recv(BLOCK):
                if STREAMED in content:
                    streams.set()
                server.sendall(content)
        except OSError:  # the other direction has been closed
            pass
        finally:
            close(server)

    def _answer(self, server: socket.socket, client: socket.socket, streams: threading.Event) -> None:
        """Hand on what the server sends, but of a stream no more than what is left."""
        try:
            while content := server.recv(BLOCK):
                kept = self._left_of(content) if streams.is_set() else content
                client.sendall(kept)
                if len(kept) < len(content):
                    return
        except OSError:
            pass
        finally:
            close(client)
            close(server)

    def _left_of(self, content: bytes) -> bytes:
        with self._lock:
            if self._bytes_left is None:
                return content
            kept = content[: self._bytes_left]
            self._bytes_left -= len(kept)
            return kept


def close(connection: socket.socket) -> None:
    """Close a connection in both directions, also for a thread that waits for it."""
    with suppress(OSError):  # it is closed already
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def random_request(chance: random.Random, text: str) -> dict[str, Any]:
    """A request of the page."""
    start = chance.randrange(len(text) - 400)
    return {
        "prompt": text[start : start + chance.choice([1, 5, 40, 300])],
        "max_new_tokens": chance.choice([60, 200, 400]),
        "temperature": chance.choice([0, 0.5, 0.8, round(chance.uniform(0.1, 2), 3)]),
        "top_k": chance.choice([None, 200, 12]),
        "top_p": chance.choice([None, 0.9]),
        "min_p": chance.choice([None, 0.02]),
        "num_samples": chance.choice([1, 1, 2]),
        "seed": chance.randrange(1 << 53),
    }


def measure(settings: CutSettings) -> None:
    """Print how many texts are identical."""
    with (
        serving(settings.checkpoint) as (_, url),
        CuttingProxy(httpx.URL(url).port or 0).running() as proxy,
        httpx.Client(base_url=url, timeout=120) as client,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page()
        page.goto(proxy.url)
        page.evaluate(LOAD)
        compare(settings, proxy, page, client)
        browser.close()


def compare(settings: CutSettings, proxy: CuttingProxy, page: Page, client: httpx.Client) -> None:
    """Read streams in a page that has the engine, and the same texts undisturbed."""
    chance = random.Random(settings.seed)
    [passage] = texts_of(client, {"max_new_tokens": 3000, "seed": 1})
    identical = 0
    received = 0
    written = 0
    cut = 0
    progress = tqdm(total=settings.cuts, disable=None)
    while cut < settings.cuts:
        request = random_request(chance, passage)
        undisturbed = texts_of(client, request)
        proxy.cut_after(chance.randrange(sum(map(len, undisturbed)) * BYTES_PER_CHARACTER))
        found = page.evaluate(READ, request)
        if found["fromServer"] is None:
            continue
        cut += 1
        progress.update()
        identical += found["texts"] == undisturbed
        received += found["fromServer"]
        written += found["characters"]
    progress.close()
    print(f"{settings.cuts} streams that were cut: {identical} identical to the undisturbed ones")
    print(f"{received:,} of {written:,} characters had come from the server when they were cut")


def texts_of(client: httpx.Client, request: dict[str, Any]) -> list[str]:
    """The server's texts in one object."""
    answer = client.post("/generate", json=request | {"stream": False})
    return [sample["text"] for sample in answer.raise_for_status().json()["samples"]]


if __name__ == "__main__":
    sys.exit(run(CutSettings, measure, sys.argv[1:]))
