"""The page for people of all kinds: keyboard, screen reader, phone, language, light and dark."""

import json
import re
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from model.analysis.summary import ENGLISH
from tests.conftest import LiveServer
from tests.e2e.conftest import FULL_SPEED, begin, colour, setting, text_of, written

ROOT = Path(__file__).parent.parent.parent


def check(page: Page, view: str) -> None:
    """No violation of any of axe-core's rules."""
    is_loaded = page.evaluate("'axe' in window")
    found = (Axe(axe_script="null") if is_loaded else Axe()).run(page)
    problems = [
        (one["id"], [node["html"][:200] + node["failureSummary"] for node in one["nodes"][:3]])
        for one in found.response["violations"]
    ]
    assert problems == [], view


def check_light_and_dark(page: Page, view: str) -> None:
    """The same in both colour schemes."""
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)
        check(page, f"{view}, {scheme}")


def test_no_view_violates_a_rule_of_accessibility(bundled: Page) -> None:
    bundled.emulate_media(reduced_motion="reduce")
    check_light_and_dark(bundled, "first view")
    begin(bundled, "ROMEO:\nÑ", seed="2", max_new_tokens="400", num_samples="2")
    check_light_and_dark(bundled, "unknown characters")
    bundled.click("#write")
    expect(bundled.locator("#error")).not_to_be_empty()
    bundled.click("#replace")
    bundled.fill("#seed", "-1")
    bundled.click("#write")
    expect(bundled.locator("#seed-error")).not_to_be_empty()
    check_light_and_dark(bundled, "errors")
    bundled.fill("#seed", "2")
    bundled.click("#write")
    written(bundled)
    check_light_and_dark(bundled, "side by side")
    bundled.click("#side-by-side")
    for mode in ("rank", "surprise", "probability"):
        colour(bundled, mode)
        check_light_and_dark(bundled, mode)
    bundled.click("#look")
    expect(bundled.locator(".candidate").first).to_be_visible()
    check_light_and_dark(bundled, "glass")
    bundled.locator(".candidate:not(.chosen)").first.click()
    written(bundled)
    check_light_and_dark(bundled, "fork")
    bundled.click("#tab-model")
    check_light_and_dark(bundled, "card")
    bundled.click("#tab-report")
    bundled.click("#report-button")
    expect(bundled.locator("#report-panel li")).to_have_count(4)
    bundled.click("#report-panel summary")
    check_light_and_dark(bundled, "report")
    bundled.click("#tab-growth")
    expect(bundled.locator("#growth-slider")).to_be_enabled()
    check_light_and_dark(bundled, "growing up")
    bundled.click("#tab-letter")
    bundled.click("#more")
    for mode in ("copied", "invented"):
        colour(bundled, mode)
        check_light_and_dark(bundled, mode)
    bundled.click("#help-open")
    check_light_and_dark(bundled, "help")
    bundled.keyboard.press("Escape")
    bundled.click("#share-open")
    check_light_and_dark(bundled, "share")
    bundled.keyboard.press("Escape")
    bundled.click("#more")
    bundled.set_viewport_size({"width": 360, "height": 700})
    check_light_and_dark(bundled, "phone")
    bundled.click("#tab-letter")
    check_light_and_dark(bundled, "phone with the sheet")
    bundled.click("#lens-close")


def test_everything_can_be_done_by_keyboard_alone(bundled: Page) -> None:  # noqa: PLR0915 - one long walk
    """Points 1 to 5 of what the page is for: write, stop, look, reshape, fork, walk, close, share."""
    keys = bundled.keyboard

    def tab_to(selector: str) -> None:
        bundled.evaluate("document.activeElement.blur()")
        for _ in range(80):
            keys.press("Tab")
            if bundled.evaluate("(s) => document.activeElement.matches(s)", selector):
                return
        pytest.fail(f"{selector} cannot be reached")

    tab_to("#max_new_tokens")
    keys.press("Control+a")
    keys.insert_text("100000")
    tab_to(".document")
    keys.press("Control+End")
    keys.insert_text("O my ")
    keys.press("Control+Enter")
    expect(bundled.locator("#counters")).to_have_text(re.compile(r"^\d+,\d\d\d "))
    keys.press("Escape")
    expect(bundled.locator("#state")).to_have_attribute("data-state", "stopped")
    before = text_of(bundled)
    tab_to("#max_new_tokens")
    keys.press("Control+a")
    keys.insert_text("30")
    tab_to(".document")
    keys.press("Control+End")
    keys.press("Alt+l")
    for key in ("ArrowLeft", "ArrowUp", "Home", "ArrowRight"):
        keys.press(key)
    expect(bundled.locator(".cursor")).to_be_focused()
    expect(bundled.locator(".candidate").first).to_be_visible()
    tab_to("#temperature")
    keys.press("ArrowRight")
    expect(bundled.locator("#temperature-value")).to_have_text("0.85")
    tab_to(".cursor")
    keys.press("Enter")
    keys.press("ArrowDown")
    keys.press("Enter")
    written(bundled)
    expect(bundled.locator("#tabs [aria-current]").first).to_have_text("1.1")
    keys.press("Alt+ArrowUp")
    assert text_of(bundled) == before
    tab_to("#tabs [aria-current]")
    keys.press("ArrowRight")
    expect(bundled.locator("#tabs [aria-current]")).to_be_focused()
    keys.press("Delete")
    expect(bundled.locator("#tabs")).to_be_hidden()
    tab_to("#undo")
    keys.press("Enter")
    tab_to("#redo")
    keys.press("Enter")
    assert text_of(bundled) == before
    tab_to("#share-open")
    keys.press("Enter")
    expect(bundled.locator("[name=link]")).to_be_focused()
    keys.press("Escape")
    bundled.evaluate("document.activeElement.blur()")
    keys.press("?")
    expect(bundled.locator("#help")).to_be_visible()
    expect(bundled.locator("#help")).to_contain_text("Ctrl+Enter")
    expect(bundled.locator("#help-title")).to_be_focused()  # it opened at its end, where the button is
    assert bundled.evaluate("document.getElementById('help').scrollTop") == 0


def test_a_screen_reader_hears_sentences_and_is_not_flooded(bundled: Page) -> None:
    begin(bundled, "ROMEO:\n", seed="4", max_new_tokens="4000")
    bundled.click("#write")
    written(bundled)
    *sentences, last = bundled.locator("#announcer p").all_text_contents()
    assert 1 <= len(sentences) <= 19
    text = text_of(bundled)
    for sentence in sentences:
        assert sentence in text
        assert len(sentence) <= 200
    assert last == "4,000 characters were written."
    expect(bundled.locator("#announcer")).to_have_attribute("aria-live", "polite")


@pytest.mark.parametrize(("locale", "words"), [("es-MX", "Escribir"), ("en-US", "Write"), ("fi-FI", "Write")])
def test_the_page_speaks_the_readers_language(
    browser: Browser, server: LiveServer, locale: str, words: str
) -> None:
    context = browser.new_context(locale=locale)
    page = context.new_page()
    page.goto(server.url)
    expect(page.locator("#write")).to_have_text(words)
    expect(page.locator("html")).to_have_attribute("lang", "es" if words == "Escribir" else "en")
    page.locator("nav a").click()
    expect(page.locator("#write")).not_to_have_text(words)
    context.close()


def test_both_languages_have_all_texts() -> None:
    texts = json.loads((ROOT / "templates" / "texts.json").read_text(encoding="utf-8"))
    flat = {language: one | one["script"] | one["panels"] | one["verify"] for language, one in texts.items()}
    keys = {language: {key: type(value) for key, value in one.items()} for language, one in flat.items()}
    assert keys["es"] == keys["en"]
    holes = re.compile(r"\{\w+\}")
    for key, value in flat["en"].items():
        if isinstance(value, str):
            assert set(holes.findall(value)) == set(holes.findall(flat["es"][key])), key
    used = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "static").rglob("*.js"))
    for key in re.findall(r'\bt\("(\w+)"', used):
        assert key in texts["en"]["script"] | texts["en"]["panels"] | texts["en"]["verify"], key
    reported = {f"report_{key.replace('.', '_')}" for key in ENGLISH}
    assert reported <= texts["en"]["panels"].keys()


def test_it_fits_a_phone(browser: Browser, bundled_server: LiveServer) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 700}, has_touch=True, is_mobile=True)
    context.add_init_script(FULL_SPEED)
    page = context.new_page()
    page.goto(bundled_server.url)
    for name, value in {"max_new_tokens": "300", "seed": "7"}.items():
        setting(page, name, value)
    page.locator("#more").tap()
    page.locator("#write").tap()
    written(page)
    fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert page.evaluate(fits)
    page.locator("#look").tap()
    place = page.locator(".line", has_text=re.compile("...")).last.bounding_box()
    assert place is not None
    page.touchscreen.tap(place["x"] + 20, place["y"] + 10)
    expect(page.locator(".candidate").first).to_be_visible()
    box = page.locator("#lens").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360
    assert box["y"] >= 0
    assert box["y"] + box["height"] <= 700
    page.wait_for_function(  # the sheet does not cover what is being read
        """() => {
            const [letter, sheet] = [".cursor", "#lens"].map((one) => document.querySelector(one));
            return letter.getBoundingClientRect().bottom <= sheet.getBoundingClientRect().top;
        }"""
    )
    for selector in ("#write", "#look", ".candidate"):
        size = page.locator(selector).first.bounding_box()
        assert size is not None
        assert size["height"] >= 40, selector
    sizes = """[...document.querySelectorAll('input, select, .document')].map(
        (e) => parseFloat(getComputedStyle(e).fontSize))"""
    assert min(page.evaluate(sizes)) >= 16  # below, phones zoom in
    context.close()


def test_reduced_motion_shows_text_as_it_comes(page: Page, server: LiveServer) -> None:
    page.emulate_media(reduced_motion="reduce")
    begin(page, "A", max_new_tokens="200")
    page.click("#write")
    written(page)
    assert len(text_of(page)) == 201


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_tinted_text_is_readable(bundled: Page, scheme: str) -> None:
    """Contrast of 4.5 to 1 or more (WCAG 2.2, 1.4.3) of every kind of character on every tint."""
    bundled.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    ratios = bundled.evaluate(
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
            const tints = [1, 2, 3, 4, 5].map((i) => `--tint${i}`);
            const inks = ["--ink", "--soft", "--accent", "--error", "--good"];
            const grounds = ["--paper", "--panel"];
            const pairs = [...inks.flatMap((a) => grounds.map((b) => [a, b])), ["--accent", "--on-accent"]];
            for (const tint of tints) pairs.push(["--ink", tint]);
            return pairs.map(([a, b]) => [a, b, ratio(a, b)]);
        }"""
    )
    assert [pair for pair in ratios if pair[2] < 4.5] == []
    begin(bundled, "ROMEO:\n", seed="4", max_new_tokens="300")
    bundled.click("#write")
    written(bundled)
    colours = "[...document.querySelectorAll('.written')].map((span) => getComputedStyle(span).color)"
    ink = bundled.evaluate("getComputedStyle(document.body).color")
    assert set(bundled.evaluate(colours)) == {ink}  # no other ink stands on a tint
