"""The browser's engine where it runs: in Node, in Chromium and in Firefox, all of them with the same requests.

Knows nothing of what its answers are compared with.
"""

import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from tests.e2e.conftest import FLAGS, chromium

ROOT = Path(__file__).parent.parent
ENGINE_SCRIPT = ROOT / "tests" / "e2e" / "node" / "engine.mjs"
MEDIA_TYPES = {".js": "text/javascript", ".wasm": "application/wasm"}
PATIENCE = 900.0  # seconds, for all answers of a browser

# What a page runs: the answers of an engine, "wasm" or "reference", to requests.
WRITE = """async ({ requests, engine, drafts }) => {
    const load = (path) => import(`/static/engine/${path}.js`);
    const { readWeights } = await load("weights");
    const { readDraft } = await load("draft");
    const { TextGenerator } = await load("generator");
    const { WebAssemblyNetwork } = await load("webassembly");
    const { ReferenceNetwork } = await load("reference");
    globalThis.weights ??= readWeights(await (await fetch("/weights")).arrayBuffer());
    globalThis.code ??= await WebAssembly.compileStreaming(fetch("/static/engine/network.wasm"));
    const network = engine === "wasm" ? new WebAssemblyNetwork(weights, code) : new ReferenceNetwork(weights);
    const generator = new TextGenerator(network, weights.vocabulary, drafts ? readDraft(weights) : null);
    return requests.map(({ seed, parameters }) => {
        const start = performance.now();
        const samples = [];
        for (let sample = 0; sample < parameters.num_samples; sample++) {
            const characters = Array.from(generator.write(parameters, seed, sample)).flat();
            samples.push([characters.map(({ char }) => char).join(""), ""]);
        }
        return { samples, milliseconds: performance.now() - start };
    });
}"""
# A page that runs it by itself, for browsers that nobody drives.
PAGE = f"""<!doctype html><script type="module">
const write = {WRITE};
const given = await (await fetch("/requests")).json();
let body;
try {{ body = JSON.stringify(await write(given)); }} catch (error) {{ body = JSON.stringify(String(error)); }}
await fetch("/answers", {{ method: "POST", body }});
</script>"""


class EngineServer(ThreadingHTTPServer):
    """An origin on loopback with the engine's files, weights, and requests for a page that runs by itself."""

    def __init__(self, weights: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.weights = weights
        self.given: dict[str, Any] = {}
        self.answers: queue.Queue[Any] = queue.Queue()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: EngineServer

    def do_GET(self) -> None:
        if self.path == "/weights":
            self._send(self.server.weights.read_bytes(), "application/octet-stream")
        elif self.path == "/requests":
            self._send(json.dumps(self.server.given).encode(), "application/json")
        elif self.path.startswith("/static/engine/"):
            file = ROOT / self.path.removeprefix("/")
            self._send(file.read_bytes(), MEDIA_TYPES[file.suffix])
        else:
            page = PAGE if self.path == "/run" else "<!doctype html>"
            self._send(page.encode(), "text/html")

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.server.answers.put(json.loads(self.rfile.read(length)))
        self._send(b"", "text/plain")

    def _send(self, content: bytes, media_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: figures are printed beside it."""


@contextmanager
def engine_server(weights: Path) -> Iterator[EngineServer]:
    """An `EngineServer` while it runs."""
    with EngineServer(weights) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def write_in_node(node: str, engine: str, weights: Path, requests: list[dict[str, Any]], *options: str) -> Any:
    """The answers of an engine in Node, by the words of a command."""
    command = [*node.split(), str(ENGINE_SCRIPT), engine, str(weights), *options]
    done = subprocess.run(command, input=json.dumps(requests), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@contextmanager
def chromium_page(weights: Path) -> Iterator[Page]:
    """A page in Chromium that can run the engine."""
    with engine_server(weights) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page()
        page.goto(server.url)
        yield page
        browser.close()


def write_in_chromium(page: Page, requests: list[dict[str, Any]], drafts: bool = True, engine: str = "wasm") -> Any:
    """The answers of an engine in Chromium."""
    return page.evaluate(WRITE, {"requests": requests, "drafts": drafts, "engine": engine})


def firefox() -> str | None:
    """The path of a Firefox."""
    return os.environ.get("FIREFOX") or shutil.which("firefox-esr") or shutil.which("firefox")


def write_in_firefox(path: str, weights: Path, requests: list[dict[str, Any]]) -> Any:
    """The answers of WebAssembly in a headless Firefox, which posts them: Playwright drives only its own."""
    with engine_server(weights) as server, tempfile.TemporaryDirectory() as profile:
        server.given = {"requests": requests, "drafts": True, "engine": "wasm"}
        command = [path, "--headless", "--no-remote", "--profile", profile, f"{server.url}/run"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            answers = server.answers.get(timeout=PATIENCE)
        finally:
            process.terminate()
            process.wait()
    if isinstance(answers, str):
        raise RuntimeError(answers)
    return answers
