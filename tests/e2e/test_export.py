"""A site without a server, from a plain static host and then from none: it writes the server's text."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from app.export import ExportSettings, export
from model.errors import InputError
from model.generation.sequence import make_sequences
from model.sampling.sampler import Sampling
from tests.e2e.conftest import begin, opened, text_of, written
from tests.tiny import VOCABULARY, tiny_folder, tiny_generator

PROMPT = "What light"


class Files(SimpleHTTPRequestHandler):
    """A folder's files."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".js": "text/javascript", "": "application/wasm"}

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def static_host(folder: Path) -> Iterator[tuple[ThreadingHTTPServer, str]]:
    """A static host, until it is shut down, and its address."""
    host = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(folder)))
    thread = threading.Thread(target=host.serve_forever)
    thread.start()
    try:
        yield host, f"http://127.0.0.1:{host.server_port}"
    finally:
        host.shutdown()
        host.server_close()
        thread.join()


def test_the_site_writes_the_servers_text_with_a_host_and_without(browser: Browser, tmp_path: Path) -> None:
    checkpoint = tiny_folder(tmp_path / "checkpoint")
    export(ExportSettings(checkpoint=tmp_path / "checkpoint", out=tmp_path / "site"))
    assert 'VERSION = "none"' not in (tmp_path / "site" / "offline.js").read_text()  # else no copy is ever renewed
    [sequence] = make_sequences(
        VOCABULARY,
        Sampling(0.8, None),
        prompt=PROMPT,
        seed=7,
        num_samples=1,
        max_new_tokens=90,
        stop=(),
    )
    chunks = tiny_generator(checkpoint=checkpoint, slots=1).write(sequence)
    expected = PROMPT + "".join(chunk.text for chunk in chunks)
    with static_host(tmp_path / "site") as (host, address), opened(browser, address) as page:
        begin(page, PROMPT, seed="7", max_new_tokens="90")
        page.click("#write")
        written(page)
        assert text_of(page) == expected
        page.click("#look")
        expect(page.locator(".candidate").first).to_be_visible()
        page.evaluate("() => navigator.serviceWorker.ready.then(() => true)")

        host.shutdown()
        host.server_close()
        page.reload()
        begin(page, PROMPT, seed="7", max_new_tokens="90")
        page.click("#write")
        written(page)
        assert text_of(page) == expected
        page.click("#share-open")
        link = page.locator("[name=link]").input_value()
        page.keyboard.press("Escape")
        page.goto(link)  # whoever opens it has the text written again, and compared
        expect(page.locator("#verdict")).to_have_attribute("data-same", "true")


def test_a_folder_with_something_in_it_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(InputError, match="already exists"):
        export(ExportSettings(checkpoint=tmp_path, out=tmp_path))
