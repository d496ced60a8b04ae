"""The page in a real headless Chromium."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.conftest import LiveServer

FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]


def chromium() -> str | None:
    """The browser to use: CHROMIUM if set, else the first on the path."""
    named = os.environ.get("CHROMIUM")
    return named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium()
    if path is None and "CI" not in os.environ:
        pytest.skip("no Chromium on this machine; name one with CHROMIUM=/path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, server: LiveServer) -> Iterator[Page]:
    """The playground, with every complaint of the browser's console collected."""
    context = browser.new_context(viewport={"width": 1000, "height": 900})
    page = context.new_page()
    page.set_default_timeout(20_000)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(server.url)
    yield page
    context.close()
    refused = "Failed to load resource: the server responded with a status of 422"
    assert [one for one in complaints if refused not in one] == []


def test_text_grows_until_it_is_stopped(page: Page, server: LiveServer) -> None:
    page.fill("#prompt", "JULIET:")
    page.fill("#max_new_tokens", "100000")
    server.gate.close()
    page.click("#write")
    article = page.locator("article")
    expect(article).to_contain_text("JULIET:")
    lengths = []
    for _ in range(3):  # one character per step of the model
        server.gate.step()
        before = len(article.inner_text())
        server.gate.step()
        page.wait_for_function("n => document.querySelector('article').innerText.length > n", arg=before)
        lengths.append(len(article.inner_text()))
    assert lengths == sorted(set(lengths))
    page.click("#stop")
    expect(page.locator("#status")).to_contain_text("Stopped after")
    expect(page.locator("#stop")).to_be_disabled()
    server.gate.open()
    page.fill("#max_new_tokens", "40")
    page.click("#write")
    expect(page.locator("#status")).to_contain_text("40 characters")


def test_the_same_seed_writes_the_same_text_in_paragraphs(page: Page) -> None:
    page.fill("#prompt", "ROMEO:\nhi\n\nNURSE:\n")
    page.fill("#seed", "5")
    page.fill("#num_samples", "3")
    page.fill("#max_new_tokens", "200")
    texts = []
    for _ in range(2):
        page.keyboard.press("Control+Enter")
        expect(page.locator("article[data-end=length]")).to_have_count(3)
        expect(page.locator("#status")).to_contain_text("Seed 5.")
        texts.append(page.locator("article").all_inner_texts())
        page.fill("#seed", "6")
        page.fill("#seed", "5")
        page.evaluate("document.getElementById('samples').replaceChildren()")
    assert texts[0] == texts[1]
    assert len(set(texts[0])) == 3
    page.keyboard.press("Control+Enter")
    expect(page.locator("article").first.locator("p").first.locator(".speaker")).to_have_text("ROMEO:")
    expect(page.locator("article").first.locator("p").nth(1).locator(".speaker .prompt")).to_have_text("NURSE:")


def test_an_unknown_character_is_shown_at_the_prompt_and_can_be_replaced(page: Page) -> None:
    page.fill("#prompt", "ma\u00f1ana 日")
    page.click("#write")
    expect(page.locator("#prompt-error")).to_contain_text("ñ → n")
    expect(page.locator("#prompt-error")).to_contain_text("日 → ?")
    expect(page.locator("#prompt")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#stop")).to_be_disabled()
    page.click("#replace")
    expect(page.locator("#prompt")).to_have_value("manana ?")
    expect(page.locator("#prompt-error")).to_be_empty()
    page.click("#write")
    expect(page.locator("article")).to_contain_text("manana ?")


def test_a_bad_number_is_shown_at_its_field(page: Page) -> None:
    page.fill("#temperature", "-1")
    page.fill("#seed", "-5")
    page.click("#write")
    expect(page.locator("#temperature-error")).to_contain_text("not -1")
    expect(page.locator("#seed-error")).to_contain_text("not -5")
    page.fill("#temperature", "0")
    page.fill("#seed", "")
    page.click("#write")
    expect(page.locator("#temperature-error")).to_be_empty()
    expect(page.locator("article")).to_have_count(1)


def test_markup_in_a_prompt_is_text(page: Page) -> None:
    page.fill("#prompt", "a b: c")
    page.click("#write")
    expect(page.locator("article")).to_contain_text("a b: c")
    page.evaluate(
        """async () => {
            const { SampleView } = await import("/static/sample.js");
            const view = new SampleView(document.getElementById("samples"), "<b>", "test");
            view.append("<img src=x onerror=alert(1)>\\n\\n<script>alert(1)</script>:");
        }"""
    )
    expect(page.locator("article").last).to_contain_text("<img src=x onerror=alert(1)>")
    assert page.locator("article img, article script, article b").count() == 0


def test_events_are_parsed_however_the_network_cuts_them(page: Page) -> None:
    """Chunks are cut at every place; the events must come out the same (a chunk is not an event)."""
    same = page.evaluate(
        """async () => {
            const { EventParser } = await import("/static/sse.js");
            const raw = ": hello\\r\\n\\r\\nevent: text\\ndata: {\\"a\\": 1}\\nid: 7\\n\\n" +
                "data: x\\ndata:y\\n\\nid: 8\\n\\n";
            const parse = (parts) => {
                const parser = new EventParser();
                return JSON.stringify(parts.flatMap((part) => [...parser.push(part)]));
            };
            const whole = parse([raw]);
            const cuts = [...raw].map((_, i) => parse([raw.slice(0, i), raw.slice(i)]));
            cuts.push(parse([...raw]));
            return { whole, same: cuts.every((one) => one === whole) };
        }"""
    )
    assert same["whole"] == (
        '[{"event":"text","data":"{\\"a\\": 1}","id":"7"},{"event":"message","data":"x\\ny","id":"7"}]'
    )
    assert same["same"]


def test_a_lost_connection_keeps_the_text_and_says_so(page: Page, server: LiveServer) -> None:
    page.fill("#max_new_tokens", "100000")
    server.gate.close()
    page.click("#write")
    expect(page.locator("article")).to_contain_text("ROMEO:")
    server.engine.drain(0)
    server.gate.open()
    expect(page.locator("#form-error")).to_contain_text("stopped before the text was finished")
    expect(page.locator("article")).to_contain_text("ROMEO:")
    expect(page.locator("#stop")).to_be_disabled()


def test_it_can_be_used_on_a_phone(page: Page, tmp_path: Path) -> None:
    page.set_viewport_size({"width": 360, "height": 700})
    page.click("#write")
    expect(page.locator("article")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.locator("#write").bounding_box()["height"] >= 44  # type: ignore[index]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_schemes(page: Page, scheme: str) -> None:
    """Contrast of 4.5 to 1 or more (WCAG 2.2, 1.4.3)."""
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    ratios = page.evaluate(
        """() => {
            const style = getComputedStyle(document.documentElement);
            const light = (name) => {
                const probe = document.body.appendChild(document.createElement("i"));
                probe.style.color = style.getPropertyValue(name);
                const rgb = getComputedStyle(probe).color.match(/[\\d.]+/g).map(Number);
                probe.remove();
                const [r, g, b] = rgb.map((v) => v / 255).map((v) =>
                    v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const ratio = (a, b) => {
                const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
                return (high + 0.05) / (low + 0.05);
            };
            const names = ["--ink", "--soft", "--accent", "--prompt", "--error"];
            const pairs = names.flatMap((name) => [[name, "--paper"], [name, "--panel"]]);
            return [...pairs, ["--accent", "--on-accent"]].map(([a, b]) => ratio(a, b));
        }"""
    )
    assert min(ratios) >= 4.5, ratios
