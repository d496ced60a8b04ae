"""Take the pictures of the page in docs/images, and the one that previews of its link show, again:
`python -m docs.screenshots`.

It needs Chromium and the extra `soliloquy[dev]`.
"""

import json
import sys
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from tests.e2e.conftest import BUNDLED, FLAGS, begin, chromium, colour, setting, written
from tests.e2e.test_process import serving

IMAGES = Path(__file__).parent / "images"
PREVIEW = Path(__file__).parent.parent / "static" / "preview.png"
COLOURS = 192  # in each picture: enough for text, and a third of the size


def take(page: Page, name: str) -> None:
    """Save what the window shows."""
    page.wait_for_timeout(300)  # for fonts and transitions to settle
    save(page.screenshot(), IMAGES / f"{name}.png")


def save(content: bytes, path: Path) -> None:
    """Write a picture with fewer colours."""
    picture = Image.open(BytesIO(content))
    picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size // 1024} kB")


def play(page: Page) -> None:
    """Share, without a code of this machine's address; guess a letter, and compare two temperatures."""
    page.route("**/qr", lambda route: route.abort())
    with page.expect_event("requestfailed"):
        page.click("#share-open")
    address = page.evaluate("document.querySelector('canvas').toDataURL()")
    save(b64decode(address.split(",")[1]), PREVIEW)
    page.unroute("**/qr")
    page.keyboard.press("Escape")
    page.click("#play-open")
    page.fill("#bet", "the")
    page.keyboard.press("Enter")
    expect(page.locator(".answer .letters")).to_be_visible()
    take(page, "play")
    page.emulate_media(reduced_motion="reduce")
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("button", name="Write both").click()
    expect(page.get_by_role("button", name="Keep both")).to_be_enabled()
    take(page, "compare")
    page.keyboard.press("Escape")


def desktop(page: Page) -> None:
    """Write, look at a letter, fork, open the panels and be refused, in a wide window."""
    page.select_option("#speed", "full")
    begin(page, "ROMEO:\n", seed="1337", max_new_tokens="300")
    page.click("#write")
    written(page)
    page.evaluate("scrollTo(0, 0)")
    page.locator(".written").nth(40).click()
    expect(page.locator(".candidate").first).to_be_visible()
    take(page, "light")
    play(page)
    page.fill("#max_new_tokens", "400")
    page.click("#write")
    written(page)
    page.click("#look")
    for _ in range(150):
        page.keyboard.press("ArrowLeft")
    page.locator("#temperature").fill("1.3")
    expect(page.locator(".candidate").first).to_be_visible()
    take(page, "glass")
    page.locator(".candidate:not(.chosen)").first.click()
    written(page)
    page.click("#side-by-side")
    page.locator(".document .line").nth(20).scroll_into_view_if_needed()
    take(page, "forks")
    page.click("#side-by-side")
    page.emulate_media(color_scheme="dark")
    page.click("#tab-model")
    expect(page.locator("#card-panel dl")).to_be_visible()
    page.evaluate("scrollTo(0, 0)")
    take(page, "dark")
    page.emulate_media(color_scheme="light")
    page.click("#tab-report")
    colour(page, "invented")
    expect(page.locator("#report-panel li")).to_have_count(4)
    take(page, "report")
    page.click("#tab-growth")
    expect(page.locator("#growth-slider")).to_be_enabled()
    page.locator("#growth-slider").fill("2")
    take(page, "growth")
    page.click("#tab-letter")
    colour(page, "probability")
    page.evaluate("scrollTo(0, 0)")
    begin(page, "Señor 😀, how", seed="-1")
    page.click("#write")
    expect(page.locator("#seed-error")).not_to_be_empty()
    take(page, "error")


def verify(page: Page, url: str) -> None:
    """Write a receipt of the server again on this device."""
    request = {"prompt": "JULIET:", "seed": 7, "max_new_tokens": 260, "stream": False}
    receipt = httpx.post(f"{url}/generate", json=request, timeout=60).json()["receipt"]
    page.goto(f"{url}/verify")
    page.fill("#verify-input", json.dumps(receipt))
    page.click("[name=verify]")
    expect(page.locator(".outcome")).to_have_class("outcome same")
    take(page, "verify")


def main() -> None:
    """Start one server, and open one window after another."""
    IMAGES.mkdir(exist_ok=True)
    with serving(BUNDLED) as (_, url), sync_playwright() as playwright:
        warm_up = {"prompt": "ROMEO:", "details": True, "report": True, "stream": False}
        httpx.post(f"{url}/generate", json=warm_up, timeout=60)  # the pictures show speeds
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        wide = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme="light", locale="en-GB")
        wide.goto(url)
        desktop(wide)
        verify(browser.new_page(viewport={"width": 1000, "height": 660}, locale="en-GB"), url)
        phone = browser.new_context(
            viewport={"width": 390, "height": 800},
            device_scale_factor=2,
            is_mobile=True,
            has_touch=True,
            locale="es-ES",
        ).new_page()
        phone.goto(url)
        setting(phone, "seed", "7")
        phone.select_option("#speed", "full")
        phone.click("#more")
        phone.click("#write")
        written(phone)
        phone.click("#look")
        phone.locator(".line .written").nth(-12).tap()
        expect(phone.locator(".candidate").first).to_be_visible()
        take(phone, "phone")
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
