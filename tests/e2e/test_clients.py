"""The streams as all sorts of clients read them: each gets the text that the model alone writes."""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import aiohttp
import httpx
import httpx_sse
import pytest
import sseclient
from playwright.sync_api import Browser, Page

from app.main import create_app
from app.settings import ServerSettings
from tests.conftest import LiveServer
from tests.e2e.test_openai import alone

NODE = Path(__file__).parent / "node"
ASKED = {
    "prompt": "what light,\nis it: who?",
    "seed": 7,
    "num_samples": 2,
    "max_new_tokens": 1000,
    "temperature": 1,
}
Events = list[tuple[str, Any]]


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LiveServer]:
    """One for all."""
    with LiveServer(create_app(ServerSettings(checkpoint=folder, device="cpu"))) as live:
        yield live


@pytest.fixture(scope="module")
def address(server: LiveServer) -> str:
    """Where texts are written; a query asks for the one of all these tests."""
    return f"{server.url}/generate"


@pytest.fixture(scope="module")
def node() -> Callable[..., Any]:
    """Runs one of the programs for Node, with the packages that it needs, and returns what it prints."""
    npm = shutil.which("npm")
    program = shutil.which("node")
    if "CI" not in os.environ and not (npm and program):
        pytest.skip("no Node on this machine")
    assert npm
    assert program
    subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=NODE, check=True, capture_output=True)

    def run(name: str, *arguments: str) -> Any:
        command = [program, str(NODE / name), *arguments]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=60).stdout)

    return run


@pytest.fixture(scope="module")
def tab(browser: Browser, server: LiveServer) -> Iterator[Page]:
    """A page of the same origin, which can load the module that reads streams."""
    page = browser.new_page()
    page.route(
        "**/streams.mjs", lambda route: route.fulfill(path=NODE / "streams.mjs", content_type="text/javascript")
    )
    page.goto(server.url)
    yield page
    page.close()


class Packages(SimpleHTTPRequestHandler):
    """The packages for Node, as files."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

    def __init__(self, *connection: Any) -> None:
        super().__init__(*connection, directory=str(NODE / "node_modules"))

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def development_server() -> Iterator[str]:
    """The origin of pages that can import the packages."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Packages) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://localhost:{listening.server_port}"
        finally:
            listening.shutdown()
            thread.join()


def check(events: Iterable[tuple[str, Any]]) -> None:
    """All of the text came, bit by bit, and what came is what the server says it sent."""
    texts = ["", ""]
    names = []
    for name, data in events:
        names.append(name)
        if name == "text":
            assert data["index"] == len(texts[data["sample"]])
            texts[data["sample"]] += data["text"]
    assert texts == [alone(str(ASKED["prompt"]), 7, 1000, sample) for sample in (0, 1)]
    assert [names[0], names[-1], names.count("end")] == ["start", "done", 2]
    assert names.count("text") > 2
    assert [one["sha256"] for one in data["samples"]] == [
        hashlib.sha256(text.encode()).hexdigest() for text in texts
    ]


def parsed(lines: Iterable[str]) -> Events:
    """The events in lines as they came."""
    events = []
    name = ""
    for line in lines:
        field, _, value = line.rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            events.append((name, json.loads(value)))
    return events


def by_httpx_sse(address: str) -> Events:
    with httpx.Client() as client, httpx_sse.connect_sse(client, "POST", address, json=ASKED) as source:
        return [(event.event, event.json()) for event in source.iter_sse()]


def by_sseclient(address: str) -> Events:
    with urllib.request.urlopen(f"{address}?{urlencode(ASKED)}") as response:
        return [(event.event, json.loads(event.data)) for event in sseclient.SSEClient(response).events()]


def by_aiohttp(address: str) -> Events:
    async def read() -> Events:
        async with aiohttp.ClientSession() as session, session.post(address, json=ASKED) as response:
            return parsed([line.decode() async for line in response.content])

    with ThreadPoolExecutor(1) as thread:  # this one may have the browser's event loop
        return thread.submit(asyncio.run, read()).result()


def by_curl(address: str) -> Events:
    command = ["curl", "-sN", f"{address}?{urlencode(ASKED)}"]
    return parsed(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines())


@pytest.mark.parametrize("read", [by_httpx_sse, by_sseclient, by_aiohttp, by_curl])
def test_a_client_gets_the_text(address: str, read: Callable[[str], Events]) -> None:
    check(read(address))


def test_node_gets_the_text_by_fetch(address: str, node: Callable[..., Any]) -> None:
    check(node("fetch.mjs", address, json.dumps(ASKED)))


def test_node_gets_the_text_by_its_eventsource(address: str, node: Callable[..., Any]) -> None:
    check(node("eventsource.mjs", f"{address}?{urlencode(ASKED)}"))


def test_a_browser_gets_the_text_by_fetch(address: str, tab: Page) -> None:
    script = "async ([url, asked]) => (await import('/streams.mjs')).byFetch(url, asked)"
    check(cast(Events, tab.evaluate(script, [address, ASKED])))


def test_a_browser_gets_the_text_by_its_eventsource(address: str, tab: Page) -> None:
    script = "async (url) => (await import('/streams.mjs')).bySource(EventSource, url)"
    check(cast(Events, tab.evaluate(script, f"{address}?{urlencode(ASKED)}")))


def test_openais_client_on_a_page_of_another_origin(
    folder: Path, browser: Browser, node: Callable[..., Any]
) -> None:
    """Its preflight was answered 400: see `test_origins`. Here it is the client itself, in a real browser, on the
    page of a development server on some port. A real one: a page that Playwright makes up comes from nowhere, and
    Chromium keeps it from what runs on this machine (Local Network Access).
    """
    settings = ServerSettings(checkpoint=folder, device="cpu", cors_origins="http://localhost:*", api_keys="a-key")
    with LiveServer(create_app(settings)) as friendly, development_server() as origin:
        page = browser.new_page()
        page.goto(origin)
        script = """async (url) => {
            const { OpenAI } = await import("/openai/index.mjs");
            const options = { baseURL: url, apiKey: "a-key", dangerouslyAllowBrowser: true, maxRetries: 0 };
            const client = new OpenAI(options);
            let text = "";
            const asked = { model: "tiny", prompt: "ROMEO:", seed: 7, max_tokens: 100, stream: true };
            for await (const chunk of await client.completions.create(asked)) text += chunk.choices[0].text;
            const { data } = await client.models.list();
            const refused = await client.completions.create({ ...asked, n: 99 }).catch((error) => error);
            return [text, data[0].id, refused.status, refused.param, refused.requestID.length > 0];
        }"""
        seen = page.evaluate(script, f"{friendly.url}/v1")
        page.close()
    assert seen == [alone("ROMEO:", 7, 100), "tiny", 422, "n", True]


def test_an_eventsource_that_is_left_open_stops_after_the_end(server: LiveServer, tab: Page) -> None:
    """It asked for the text again and again, for ever: at the end it comes back with the id of the last event.
    `done` has one too, and what comes back with it gets 204, at which an `EventSource` closes for good.
    """
    script = """(url) => new Promise((resolve) => {
        const source = new EventSource(url);
        const seen = [];
        for (const name of ["start", "text", "end", "done"]) source.addEventListener(name, () => seen.push(name));
        source.addEventListener("error", () => {
            const starts = seen.filter((name) => name === "start").length;
            if (source.readyState === EventSource.CLOSED) resolve([seen[0], seen.at(-1), starts]);
        });
    })"""
    seen = tab.evaluate(script, f"{server.url}/generate?prompt=ROMEO:&max_new_tokens=30&stop=zqzq")
    assert seen == ["start", "done", 1]
    figures = httpx.get(f"{server.url}/metrics").text
    assert 'soliloquy_http_requests_total{method="GET",route="/generate",status="204"} 1.0' in figures


def test_openais_client_for_node(server: LiveServer, node: Callable[..., Any]) -> None:
    fields = {"model": "tiny", "prompt": ["ROMEO:", "JULIET:"], "n": 2, "seed": 7, "max_tokens": 300}
    seen = node("openai.mjs", f"{server.url}/v1", json.dumps(fields))
    texts = [alone(prompt, 7, 300, sample) for prompt, sample in product(("ROMEO:", "JULIET:"), (0, 1))]
    assert seen["models"][0] == "tiny"
    assert [choice["text"] for choice in seen["whole"]["choices"]] == texts
    *chunks, usage = seen["chunks"]
    streamed = ["" for _ in texts]
    for chunk in chunks:
        [choice] = chunk["choices"]
        streamed[choice["index"]] += choice["text"]
    assert streamed == texts
    assert usage["choices"] == []
    assert (
        usage["usage"]
        == seen["whole"]["usage"]
        == {
            "prompt_tokens": 13,
            "completion_tokens": 1200,
            "total_tokens": 1213,
        }
    )
    assert seen["refusals"] == [
        [True, "NotFoundError", 404, "model_not_found", "model"],
        [True, "UnprocessableEntityError", 422, None, "n"],
    ]
