"""A site without a server, from a static host and then from none, and as one file: it writes the server's text."""

import base64
import gzip
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.api.report import bits_of
from app.export import ExportSettings, export
from app.web.linked_modules import link_module, link_modules
from model.browser_weights import browser_weights
from model.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from model.errors import InputError
from model.generation.sequence import make_scored_sequence, make_sequences
from model.sampling.sampler import Sampling
from model.vocabulary import Vocabulary
from tests.e2e.conftest import FULL_SPEED, begin, colour, opened, text_of, written
from tests.tiny import LEARNED, tiny_checkpoint, tiny_folder, tiny_generator, tiny_index
from training.dataset import from_text
from training.index import make_index

PROMPT = "What light"
GREEK = "Μῆνιν ἄειδε, θεά, Πηληϊάδεω Ἀχιλῆος\nοὐλομένην, ἣ μυρί’ Ἀχαιοῖς ἄλγε’ ἔθηκε.\n\n" * 30


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


def index_of(text: str, folder: Path) -> Checkpoint:
    """A tiny checkpoint of a text's characters in a folder, with an index of the text; learned positions."""
    dataset = from_text(text, {"sha256": "0" * 64})
    characters = "".join(dataset.vocabulary.characters)
    config = replace(LEARNED, vocab_size=len(characters))
    checkpoint = replace(
        tiny_checkpoint(config), vocabulary=Vocabulary(characters), index=make_index(dataset, None)
    )
    folder.mkdir()
    write_checkpoint(folder, checkpoint)
    return read_checkpoint(folder)


def written_by_server(checkpoint: Checkpoint, prompt: str, seed: int, count: int) -> str:
    """What the server's generator goes on with."""
    [sequence] = make_sequences(
        checkpoint.vocabulary,
        Sampling(0.8, None),
        prompt=prompt,
        seed=seed,
        num_samples=1,
        max_new_tokens=count,
        stop=(),
    )
    chunks = tiny_generator(checkpoint=checkpoint, slots=1).write(sequence)
    return "".join(chunk.text for chunk in chunks)


def bits_by_server(checkpoint: Checkpoint, text: str) -> float:
    """How surprising a text is to the server's generator, in bits per character."""
    prompt = checkpoint.vocabulary.default_prompt
    sequence = make_scored_sequence(
        checkpoint.vocabulary, Sampling(), prompt=prompt, text=text, first=0, alternatives=0
    )
    chunks = tiny_generator(checkpoint=checkpoint, slots=1).write(sequence)
    return sum(bits_of(chunk.logprobs) for chunk in chunks) / len(text)


@contextmanager
def from_disk(browser: Browser, path: Path) -> Iterator[Page]:
    """A page that is a file, without a network; in the end its console must be empty."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, locale="en-GB", offline=True)
    context.add_init_script(FULL_SPEED)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(path.as_uri())
    yield page
    context.close()
    assert said == []


def shown_report(page: Page) -> str:
    """What the panel says, once it says something."""
    page.click("#tab-report")
    page.click("#report-button")
    expect(page.locator("#report-panel li")).to_have_count(4)
    return page.locator("#report-panel dd").nth(2).inner_text()


def shared_link(page: Page) -> str:
    """The link to the text, in the dialog that stays open."""
    page.click("#share-open")
    expect(page.locator("[name=link]")).to_have_value(re.compile("#s="))
    return page.locator("[name=link]").input_value()


def test_the_site_writes_the_servers_text_with_a_host_and_without(browser: Browser, tmp_path: Path) -> None:
    tiny_folder(tmp_path / "checkpoint")
    tiny_index().save(tmp_path / "checkpoint" / "copies.safetensors")
    checkpoint = read_checkpoint(tmp_path / "checkpoint")
    export(ExportSettings(checkpoint=tmp_path / "checkpoint", out=tmp_path / "site"))
    assert 'VERSION = "none"' not in (tmp_path / "site" / "offline.js").read_text()  # else no copy is ever renewed
    expected = PROMPT + written_by_server(checkpoint, PROMPT, 7, 90)
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
        colour(page, "invented")
        expect(page.locator(".document .tint5").first).to_be_visible()
        assert shown_report(page) == f"{bits_by_server(checkpoint, expected):.2f}"
        link = shared_link(page)
        page.get_by_role("link", name="Verify a receipt or a link").click()
        page.fill("#verify-input", link)
        page.click("[name=verify]")
        expect(page.locator(".outcome")).to_have_text("Identical: every character matches.")
        page.goto(link)  # whoever opens it has the text written again, and compared
        expect(page.locator("#verdict")).to_have_attribute("data-same", "true")


def test_one_file_does_it_all_from_a_disk(browser: Browser, tmp_path: Path) -> None:
    checkpoint = index_of(GREEK, tmp_path / "checkpoint")
    snapshots = []
    for step in (0, 7):
        snapshot = replace(tiny_checkpoint(checkpoint.config, seed=step + 1), vocabulary=checkpoint.vocabulary)
        folder = tmp_path / "checkpoint-snapshots" / f"{step:06d}"
        folder.mkdir(parents=True)
        write_checkpoint(folder, snapshot)
        snapshots.append(read_checkpoint(folder))
    path = tmp_path / "soliloquy.html"
    export(ExportSettings(checkpoint=tmp_path / "checkpoint", single_file=path, lang="es"))
    prompt = "Μῆνιν"
    written_there = written_by_server(checkpoint, prompt, 7, 90)
    expected = prompt + written_there
    with from_disk(browser, path) as page:
        begin(page, prompt, seed="7", max_new_tokens="90")
        page.click("#write")
        written(page)
        lines = page.locator(".document .line").all_text_contents()
        assert "\n".join(lines) == expected
        page.click("#look")
        expect(page.locator(".candidate").first).to_be_visible()
        page.keyboard.press("Escape")
        assert shown_report(page) == f"{bits_by_server(checkpoint, expected):.2f}".replace(".", ",")
        page.click("#tab-growth")
        expect(page.locator("#growth-slider")).to_be_enabled()
        grown = page.locator(".stage .grown").all_text_contents()
        assert grown == [prompt + written_by_server(snapshot, prompt, 7, 300) for snapshot in snapshots]
        page.click("#tab-model")
        expect(page.locator("#card-panel dl")).to_be_visible()
        link = shared_link(page)
        with page.expect_download() as saved:
            page.get_by_role("button", name="Guardar .json").click()
        page.get_by_role("link", name="Verificar un recibo o un enlace").last.click()
        page.locator("#verify [type=file]").set_input_files(saved.value.path())
        expect(page.locator(".outcome")).to_have_text("Idéntico: coinciden todos los caracteres.")
        page.locator("[name=close]").last.click()
        page.goto(link)
        expect(page.locator("#verdict")).to_have_attribute("data-same", "true")


def test_a_file_with_wrong_weights_says_so_and_writes_nothing(browser: Browser, tmp_path: Path) -> None:
    checkpoint = tiny_folder(tmp_path / "checkpoint")
    path = tmp_path / "soliloquy.html"
    export(ExportSettings(checkpoint=tmp_path / "checkpoint", single_file=path))
    page = path.read_text()
    weights = browser_weights(checkpoint)
    flipped = bytearray(weights)
    flipped[-9] ^= 1
    foreign = browser_weights(tiny_checkpoint(seed=1))
    cut = page[: page.index(packed(weights)) + len(packed(weights)) // 2]
    cases = {
        "The file of weights is damaged: its SHA-256 is another.": page.replace(packed(weights), packed(flipped)),
        "The weights are of another model": page.replace(packed(weights), packed(foreign)),
        "The file of weights is too large.": re.sub(r'(weights/\w+" data-bytes=")', r"\g<1>9999999", page),
        "The model in this file is damaged or not complete: copy the file again.": cut,
    }
    for sentence, content in cases.items():
        assert content != page
        path.write_text(content)
        with from_disk(browser, path) as opened_page:
            expect(opened_page.locator("#error")).to_contain_text(sentence)
            begin(opened_page, PROMPT, max_new_tokens="9")
            opened_page.click("#write")
            expect(opened_page.locator("#state")).to_have_attribute("data-state", "failed")
            expect(opened_page.locator("#error")).to_contain_text(sentence)
            assert text_of(opened_page) == PROMPT


def packed(content: bytes | bytearray) -> str:
    """A file as it stands in a page."""
    return base64.b64encode(gzip.compress(bytes(content), mtime=0)).decode()


def test_modules_become_one_script(tmp_path: Path) -> None:
    """Live names, cycles of names, dynamic imports: what the page's modules have, and no other form."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "main.js").write_text(
        'import { load as a } from "./sub/a.js";\nimport * as all from "./sub/a.js";\n'
        'console.log(a(), all.$x);\nimport("./sub/b.js").then(({ load }) => console.log(load()));\n'
    )
    (tmp_path / "sub" / "a.js").write_text("export function load() {\n\treturn 1;\n}\nexport const $x = 2;\n")
    (tmp_path / "sub" / "b.js").write_text('import { $x } from "./a.js";\nexport const load = () => $x + 1;\n')
    script = link_modules(tmp_path, "main.js")
    assert "import" not in script
    assert "export" not in script
    for form in (
        "export default 1;",
        "export let x = 1;",
        'import x from "./sub/a.js";',
        'export * from "./a.js";',
    ):
        with pytest.raises(ValueError, match="is not of a form that can be linked"):
            link_module("main.js", form)


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "soliloquy.html"
    path.write_text("mine")
    with pytest.raises(InputError, match="already exists"):
        export(ExportSettings(checkpoint=tmp_path, single_file=path))
    with pytest.raises(InputError, match="name a folder to write, --out=site, or a file"):
        export(ExportSettings(checkpoint=tmp_path))
    assert path.read_text() == "mine"


def test_a_folder_with_something_in_it_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(InputError, match="already exists"):
        export(ExportSettings(checkpoint=tmp_path, out=tmp_path))
