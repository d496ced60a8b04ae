"""The page as it is loaded: its weight, slow networks, strict browsers."""

from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, Request, expect

from tests.conftest import LiveServer
from tests.e2e.conftest import opened, text_of, written

ROOT = Path(__file__).parent.parent.parent
MAX_BYTES = 130_000  # before the reader does anything; the rest comes then


@pytest.mark.parametrize("locale", ["en", "es"])
def test_the_page_weighs_little_and_loads_nothing_from_elsewhere(
    browser: Browser, bundled_server: LiveServer, locale: str
) -> None:
    context = browser.new_context(locale=locale)
    page = context.new_page()
    requested: list[Request] = []

    def note(request: Request) -> None:
        requested.append(request)

    page.on("request", note)
    page.goto(bundled_server.url)
    page.wait_for_load_state("networkidle")
    answers = [request.response() for request in requested]
    weights = {one.url: len(one.body()) for one in answers if one is not None and one.status == 200}
    assert len(weights) > 20
    assert sum(weights.values()) <= MAX_BYTES, weights
    for tab in page.locator("[role=tab]").all():
        tab.click()
    expect(page.locator("#card-panel dl")).to_be_visible()
    page.click("#tab-letter")
    page.click("#look")
    expect(page.locator(".candidate").first).to_be_visible()
    page.click("#share-open")
    expect(page.locator("#share")).to_be_visible()
    page.keyboard.press("Escape")
    page.click("#help-open")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    page.click("#play-open")
    expect(page.locator("#play")).to_be_visible()
    page.keyboard.press("Escape")
    page.click(".document")
    page.keyboard.press("Alt+m")
    expect(page.get_by_role("menu")).to_be_visible()
    expect(page.locator("#growth-slider")).to_be_enabled()
    page.wait_for_load_state("networkidle")
    static = ROOT / "static"
    assert all(request.url.startswith(bundled_server.url) for request in requested)
    loaded = {request.url.split("/static/")[1] for request in requested if "/static/" in request.url}
    loaded.add("favicon.svg")  # a browser without windows does not ask for it
    loaded.add("preview.png")  # for those who show links
    loaded.add("panels/shared_link.js")  # for those who open one
    files = {path.relative_to(static).as_posix() for path in static.rglob("*.*") if not path.name.endswith(".d.ts")}
    unused = files - loaded
    elsewhere = ("engine/", "analysis/", "verify/", "api/held_files")  # without a server, or on another page
    assert {name for name in unused if not name.startswith(elsewhere)} == set()
    assert loaded <= files
    context.close()


def test_a_slow_network_is_enough(browser: Browser, bundled_server: LiveServer) -> None:
    """50 kB/s and 100 ms: the page comes, and so does the text."""
    with opened(browser, "about:blank") as page:
        network = page.context.new_cdp_session(page)
        network.send("Network.enable")
        limits = {"offline": False, "latency": 100, "downloadThroughput": 50_000, "uploadThroughput": 50_000}
        network.send("Network.emulateNetworkConditions", limits)
        page.goto(bundled_server.url)
        page.fill("#max_new_tokens", "400")
        page.click("#write")
        written(page)
        assert len(text_of(page)) == len("ROMEO:\n") + 400


def test_a_strict_policy_holds(bundled: Page, bundled_server: LiveServer) -> None:
    policy = httpx.get(bundled_server.url).headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    with_violations = (
        "document.addEventListener('securitypolicyviolation', (e) => console.error(e.violatedDirective))"
    )
    bundled.evaluate(with_violations)  # the fixture refuses whatever the console says
    bundled.fill("#max_new_tokens", "50")
    bundled.click("#write")
    written(bundled)
    bundled.click("#look")
    expect(bundled.locator(".candidate").first).to_be_visible()
    bundled.click("#tab-model")
    bundled.click("#share-open")
