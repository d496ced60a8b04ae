"""The page moves as its reader wants: a recording at first sight, the speed of writing, and nothing that jumps."""

import json
import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from app.main import create_app
from app.settings import ServerSettings
from tests.conftest import LiveServer
from tests.e2e.conftest import BUNDLED, begin, opened, setting, text_of, written

PROMPT = "ROMEO:\n"
# What moved, and how many pieces of text were drawn again.
WATCH = """() => {
    window.shifts = [];
    window.redrawn = 0;
    const seen = (list) => shifts.push(...list.getEntries().filter((one) => !one.hadRecentInput));
    new PerformanceObserver(seen).observe({ type: "layout-shift" });
    const changed = (records) => {
        const texts = records.flatMap(({ removedNodes }) => [...removedNodes]).filter((one) => one.textContent);
        redrawn += texts.length;
    };
    new MutationObserver(changed).observe(document.querySelector("#pages"), { subtree: true, childList: true });
}"""


def answer(url: str, **fields: object) -> str:
    """What the API writes."""
    body = {"prompt": PROMPT, "stream": False, "top_k": None} | fields
    text: str = httpx.post(f"{url}/generate", json=body).json()["samples"][0]["text"]
    return text


@pytest.fixture(scope="module")
def recording_server() -> Iterator[LiveServer]:
    """A server of the bundled model that has recorded a text, as a program of its own does."""
    app = create_app(ServerSettings(checkpoint=BUNDLED, device="cpu"))
    live = LiveServer(app)
    app.state.recorder.enabled = True  # which a server in tests is not, so that nothing but their requests runs
    with live:
        while httpx.get(f"{live.url}/recording").status_code == 204:  # which waits for nothing itself
            assert live.engine.ready
        yield live


def test_a_first_visitor_finds_a_text_being_written(browser: Browser, recording_server: LiveServer) -> None:
    """A first sight was an empty box: nothing moved without a click."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.goto(recording_server.url)
    expect(page.locator("#state")).to_have_attribute("data-state", "playing")
    expect(page.locator(".written").nth(20)).to_be_visible()
    page.locator("h1").click()
    expect(page.locator("#state")).to_have_attribute("data-state", "idle")
    shown = text_of(page)
    whole = answer(recording_server.url, seed=1337, max_new_tokens=320)
    assert (PROMPT + whole).startswith(shown)
    assert len(shown) < len(PROMPT + whole)
    page.select_option("#speed", "full")
    setting(page, "max_new_tokens", "20")
    page.click("#write")  # it is a text like any other
    written(page)
    assert text_of(page).startswith(shown)
    assert len(text_of(page)) == len(shown) + 20
    page.reload()
    assert len(text_of(page)) == len(shown) + 20  # what the reader has comes before a recording
    context.close()


def test_without_motion_the_recording_stands_there_whole(browser: Browser, recording_server: LiveServer) -> None:
    before = httpx.get(f"{recording_server.url}/metrics").text
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.goto(recording_server.url)
    expect(page.locator("#counters")).to_have_text(re.compile("^327 "))
    expect(page.locator("#speed")).to_have_value("full")
    assert page.locator("#announcer p").count() == 0  # nobody asked to hear it
    page.click("#tab-report")
    expect(page.locator("#report-panel li")).to_have_count(4)
    counted = 'soliloquy_requests_total{method="POST"'
    after = httpx.get(f"{recording_server.url}/metrics").text
    assert after.count(counted) == before.count(counted)  # nothing is generated for a visitor
    context.close()


def test_no_recording_is_no_error(server: LiveServer) -> None:
    assert httpx.get(f"{server.url}/recording").status_code == 204


def test_step_by_step_shows_what_is_considered_before_each_letter(
    bundled: Page, bundled_server: LiveServer
) -> None:
    expected = answer(bundled_server.url, seed=4, max_new_tokens=50)
    begin(bundled, PROMPT, seed="4", max_new_tokens="50")
    bundled.select_option("#speed", "step")
    bundled.click("#write")
    considered = bundled.locator(".next span")
    for count in range(1, 4):
        expect(considered).to_have_count(5)
        assert text_of(bundled) == PROMPT + expected[: count - 1]
        expect(bundled.locator("#write")).to_have_text("Next letter")
        bundled.click("#write")
        assert text_of(bundled) == PROMPT + expected[:count]
    bundled.keyboard.press("Control+Enter")
    assert text_of(bundled) == PROMPT + expected[:4]
    bundled.click("#stop")
    expect(bundled.locator(".next")).to_be_hidden()
    expect(bundled.locator("#write")).to_have_text("Write")
    assert text_of(bundled) == PROMPT + expected[:4]


@pytest.mark.parametrize("speed", ["slow", "reading"])
def test_stopping_ends_the_text_where_its_reader_was(bundled: Page, bundled_server: LiveServer, speed: str) -> None:
    expected = answer(bundled_server.url, seed=4, max_new_tokens=400)
    begin(bundled, PROMPT, seed="4", max_new_tokens="400")
    bundled.select_option("#speed", speed)
    bundled.click("#write")
    expect(bundled.locator(".written").nth(3)).to_be_visible()
    bundled.click("#stop")
    shown = text_of(bundled)
    assert (PROMPT + expected).startswith(shown)
    assert len(shown) < len(PROMPT) + 200
    bundled.click("#share-open")
    expect(bundled.locator("[name=link]")).to_have_value(re.compile("#s="))
    expect(bundled.locator("#share [role=status]")).to_be_empty()  # the link holds just what is shown


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_jumps_or_is_drawn_again_while_the_model_writes(bundled: Page, width: int) -> None:
    bundled.set_viewport_size({"width": width, "height": 800})
    begin(bundled, PROMPT, seed="1337", max_new_tokens="900")
    setting(bundled, "speed", "reading")
    if bundled.locator("#drawer").is_visible():
        bundled.click("#more")
    bundled.evaluate(WATCH)
    bundled.click("#write")
    expect(bundled.locator(".written").nth(30)).to_be_visible()
    bundled.evaluate("speed.value = 'full'; speed.dispatchEvent(new Event('change'))")  # nobody touches anything
    written(bundled)
    moved = bundled.evaluate(
        "shifts.map(({ value, sources }) => [value, sources.map(({ node }) => node?.textContent)])"
    )
    assert sum(value for value, _ in moved) < 0.001, moved
    assert bundled.evaluate("window.redrawn") == 0


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [("temperature", "0.83", 0.83), ("temperature", "1,07", 1.07), ("top_p", "0.333", 0.333), ("top_k", "7", 7)],
)
def test_exact_values_are_typed_beside_the_sliders(bundled: Page, name: str, typed: str, value: float) -> None:
    setting(bundled, f"{name}-exact", typed)
    bundled.keyboard.press("Tab")
    assert float(bundled.input_value(f"#{name}")) == value
    with bundled.expect_request("**/generate") as sent:
        bundled.click("#write")
    assert json.loads(sent.value.post_data or "")[name] == value
    bundled.click("#stop")
    setting(bundled, f"{name}-exact", "99")
    bundled.keyboard.press("Tab")
    expect(bundled.locator(f"#{name}-exact-error")).to_contain_text("A number from")
    expect(bundled.locator(f"#{name}-exact")).to_have_attribute("aria-invalid", "true")
    assert float(bundled.input_value(f"#{name}")) == value
    bundled.on("request", lambda request: pytest.fail(request.url) if "/generate" in request.url else None)
    bundled.click("#write")  # which wrote with the value of before, and took the message away
    expect(bundled.locator(f"#{name}-exact-error")).to_contain_text("A number from")
    expect(bundled.locator(f"#{name}-exact")).to_be_focused()


def test_terms_are_explained_to_mouse_and_keyboard(bundled: Page) -> None:
    begin(bundled, "ROMEO:\n", seed="4", max_new_tokens="60")
    bundled.click("#write")
    written(bundled)
    bundled.locator(".written").nth(3).click()
    # Hidden explanations widened a panel, which could be scrolled sideways.
    for tab in ("letter", "report", "model"):
        bundled.click(f"#tab-{tab}")
        expect(bundled.locator(f"#{tab} .term, #{tab} h3, #{tab} dl").first).to_be_visible()
        beyond = bundled.locator(f"#{tab}").evaluate("(panel) => panel.scrollWidth - panel.clientWidth")
        assert beyond == 0
    for term in bundled.locator(".lead .term, #card-panel .term").all():
        expect(term.locator(".tip")).to_be_hidden()
        term.focus()
        expect(term.locator(".tip")).to_be_visible()
        term.hover()
        expect(term.locator(".tip")).to_be_visible()
        bundled.mouse.move(5, 5)


def test_the_tabs_of_the_lens_are_walked_by_keyboard(browser: Browser, bundled_server: LiveServer) -> None:
    with opened(browser, bundled_server.url) as page:
        page.focus("#tab-letter")
        for name in ("report", "growth", "model", "letter"):
            page.keyboard.press("ArrowRight")
            expect(page.locator(f"#tab-{name}")).to_be_focused()
            expect(page.locator(f"#{name}")).to_be_visible()
            expect(page.locator("[role=tabpanel]:visible")).to_have_count(1)
        page.set_viewport_size({"width": 390, "height": 800})
        expect(page.locator("[role=tabpanel]:visible")).to_have_count(0)
        page.focus("#tab-letter")
        page.keyboard.press("Enter")
        expect(page.locator("#letter")).to_be_visible()
        page.click("#lens-close")
        expect(page.locator("[role=tabpanel]:visible")).to_have_count(0)
        expect(page.locator("#tab-letter")).to_be_focused()


def test_a_projector_gets_text_and_lens_alone(browser: Browser, bundled_server: LiveServer) -> None:
    with opened(browser, f"{bundled_server.url}/?show") as page:
        page.set_viewport_size({"width": 1600, "height": 900})
        expect(page.locator("header")).to_be_hidden()
        assert page.evaluate("getComputedStyle(document.querySelector('.document')).fontSize") == "32px"
        page.click("#write")
        expect(page.locator(".written").nth(5)).to_be_visible()
        page.click("#tab-model")
        expect(page.locator("#card-panel dl")).to_be_visible()
