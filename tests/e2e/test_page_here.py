"""The page writes on the reader's own device: the server's text, with the server away."""

from pathlib import Path

import httpx
from playwright.sync_api import Browser, Page, expect

from model.browser_weights import browser_weights
from model.checkpoint import read_checkpoint
from model.generation.sequence import make_sequences
from model.sampling.sampler import Sampling
from tests.conftest import LiveServer
from tests.e2e.conftest import begin, colour, opened, text_of, written
from tests.e2e.test_process import serving
from tests.tiny import tiny_folder, tiny_generator, tiny_index

LENGTHS = "(all) => all.map((one) => one.textContent.length)"
REQUEST = {"seed": "7", "max_new_tokens": "120", "num_samples": "2", "top_k-exact": "9"}


def write_here(page: Page) -> None:
    """Switch to this device, and wait until the page has all that it needs."""
    if not page.locator("#write-here").is_visible():
        page.click("#more")
    with page.expect_response("**/weights/*") as answered:
        page.check("#write-here")
    assert answered.value.ok
    page.wait_for_function(
        """async () => {
            const { load } = await import("/static/engine/client.js");
            return load(JSON.parse(document.getElementById("card").textContent));
        }"""
    )


def test_the_text_is_the_servers_without_the_server(page: Page) -> None:
    begin(page, "What light", **REQUEST)
    page.click("#write")
    written(page)
    by_server = [page.locator(f'[aria-label="Text {name}"].document').inner_html() for name in ("1", "2")]
    seen = text_of(page)
    write_here(page)
    page.context.set_offline(True)
    page.click("#new")
    begin(page, "What light", **REQUEST)
    page.click("#write")
    written(page)
    names = ("3", "4")
    here = [page.locator(f'[aria-label="Text {name}"].document').inner_html() for name in names]
    assert text_of(page, "3") == seen
    assert here == by_server  # the colours too

    begin(page, "What light", num_samples="1", max_new_tokens="100000")
    page.click("#write")
    expect(page.locator("#state")).to_have_attribute("data-state", "writing")
    page.click("#stop")
    expect(page.locator("#state")).to_have_attribute("data-state", "stopped")
    begin(page, "What light", max_new_tokens="30", seed="7")
    page.click("#write")
    written(page)
    assert text_of(page, "3") == seen[: len("What light") + 30]

    page.click("#new")
    begin(page, "", num_samples="1", max_new_tokens="20")
    page.click("#write")  # an empty text begins with the model's own beginning
    written(page)
    begin(page, "What light", **REQUEST)
    page.click("#write")
    written(page)
    documents = page.locator(".document:visible")
    before = documents.evaluate_all(LENGTHS)
    page.click("#continue-all")  # a request each, for one network
    written(page)
    after = documents.evaluate_all(LENGTHS)
    assert len(before) >= 2
    assert all(now >= then + 100 for then, now in zip(before, after, strict=True))  # 120 less the line breaks


def test_a_text_goes_on_here_when_its_server_is_killed(browser: Browser, tmp_path: Path) -> None:
    """What is written here is looked up nowhere; it was coloured as if nothing in it were copied or invented."""
    length = 8_000
    folder = tmp_path / "tiny"
    tiny_folder(folder)
    tiny_index().save(folder / "copies.safetensors")
    with serving(folder) as (process, url), opened(browser, url) as page:
        write_here(page)
        page.uncheck("#write-here")
        begin(page, "What light", seed="7", max_new_tokens=str(length))
        page.click("#write")
        expect(page.locator(".written").first).to_be_visible()
        process.kill()
        page.click("#go-on-here")
        written(page)
        found = text_of(page)
        for mode in ("copied", "invented"):
            colour(page, mode)
            here = "".join(page.locator(".document .not-looked-up").all_text_contents())
            assert here
            assert found.replace("\n", "").endswith(here)
            assert page.locator(".written:not(.not-looked-up)").count()
            expect(page.locator("#edited")).to_contain_text("has not been looked up")
        colour(page, "probability")
        expect(page.locator("#edited")).to_be_empty()
    checkpoint = read_checkpoint(folder)
    [sequence] = make_sequences(
        checkpoint.vocabulary,
        Sampling(0.8, None),
        prompt="What light",
        seed=7,
        num_samples=1,
        max_new_tokens=length,
        stop=(),
    )
    chunks = tiny_generator(checkpoint=checkpoint, slots=1).write(sequence)
    assert found == "What light" + "".join(chunk.text for chunk in chunks)


def test_weights_that_are_not_right_are_refused_and_the_server_goes_on_writing(page: Page) -> None:
    page.route("**/weights/*", lambda route: route.fulfill(body=b"<!doctype html>"))
    page.click("#more")
    page.click("#write-here")
    expect(page.locator("#error")).to_have_text("This is not a file of Soliloquy's weights.")
    expect(page.locator("#write-here")).not_to_be_checked()
    begin(page, "What light", max_new_tokens="20")
    page.click("#write")
    written(page)


def test_the_weights_are_those_of_the_checkpoint_that_is_served(server: LiveServer) -> None:
    settings = server.app.state.service.settings
    checkpoint = read_checkpoint(settings.checkpoint)
    answer = httpx.get(f"{server.url}/weights/{checkpoint.identity}")
    assert answer.content == browser_weights(checkpoint)
    assert answer.headers["x-weights-bytes"] == str(len(answer.content))
    assert "immutable" in answer.headers["cache-control"]
    assert httpx.get(f"{server.url}/weights/{'0' * 64}").status_code == 404
