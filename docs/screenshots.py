"""Take the pictures of the page in docs/images again: `python -m docs.screenshots`.

It needs Chromium and the extra `soliloquy[dev]`.
"""

import sys
from io import BytesIO
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from tests.e2e.conftest import BUNDLED, FLAGS, begin, chromium, written
from tests.e2e.test_process import serving

IMAGES = Path(__file__).parent / "images"
COLOURS = 192  # in each picture: enough for text, and a third of the size


def take(page: Page, name: str) -> None:
    """Save what the window shows."""
    page.wait_for_timeout(300)  # for fonts and transitions to settle
    picture = Image.open(BytesIO(page.screenshot()))
    path = IMAGES / f"{name}.png"
    picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size // 1024} kB")


def desktop(page: Page) -> None:
    """Write, inspect, fork, open the panels and be refused, in a wide window."""
    begin(page, "ROMEO:\n", seed="1337", max_new_tokens="300")
    page.click("#write")
    written(page)
    page.evaluate("scrollTo(0, 0)")
    take(page, "light")
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
    page.click("#card-details summary")
    page.emulate_media(color_scheme="dark")
    page.evaluate("document.querySelector('aside').scrollTo(0, 1e6); scrollTo(0, 1e6)")
    take(page, "dark")
    page.emulate_media(color_scheme="light")
    page.click("#card-details summary")
    page.click("#report summary")
    page.select_option("#tint", "invented")
    expect(page.locator("#report-panel li")).to_have_count(4)
    page.evaluate("document.querySelector('aside').scrollTo(0, 1e6)")
    take(page, "report")
    page.click("#report summary")
    page.click("#growth summary")
    expect(page.locator("#growth-slider")).to_be_enabled()
    page.locator("#growth-slider").fill("2")
    page.evaluate("document.querySelector('aside').scrollTo(0, 1e6)")
    take(page, "growth")
    page.click("#growth summary")
    page.select_option("#tint", "probability")
    begin(page, "Señor 😀, how", seed="-1")
    page.evaluate("scrollTo(0, 0); document.querySelector('aside').scrollTo(0, 0)")
    page.click("#write")
    expect(page.locator("#seed-error")).not_to_be_empty()
    take(page, "error")


def main() -> None:
    """Start one server, and open one window after another."""
    IMAGES.mkdir(exist_ok=True)
    with serving(BUNDLED) as (_, url), sync_playwright() as playwright:
        warm_up = {"prompt": "ROMEO:", "details": True, "report": True, "stream": False}
        httpx.post(f"{url}/generate", json=warm_up, timeout=60)  # the pictures show speeds
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        wide = browser.new_page(viewport={"width": 1180, "height": 860}, color_scheme="light", locale="en-GB")
        wide.goto(url)
        desktop(wide)
        phone = browser.new_context(
            viewport={"width": 390, "height": 800},
            device_scale_factor=2,
            is_mobile=True,
            has_touch=True,
            locale="es-ES",
        ).new_page()
        phone.goto(url)
        phone.fill("#seed", "7")
        phone.click("#write")
        written(phone)
        phone.click("#look")
        phone.locator(".line .written").nth(-12).tap()
        expect(phone.locator(".candidate").first).to_be_visible()
        take(phone, "phone")
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
