"""Frames a second of the page with 20,000 coloured characters: streaming, typing, scrolling; and its first paint.

`python -m benchmarks.page` needs Chromium (CHROMIUM, or on the path) and the development extra.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from statistics import median

from playwright.sync_api import Page, sync_playwright
from pydantic_settings import BaseSettings

from model.cli import run, settings_config
from tests.e2e.conftest import BUNDLED, FLAGS, chromium
from tests.e2e.test_process import serving

START_COUNTING = """() => {
    window.frames_ = [];
    const tick = (now) => { window.frames_.push(now); window.ticking = requestAnimationFrame(tick); };
    window.ticking = requestAnimationFrame(tick);
}"""
STOP_COUNTING = "() => { cancelAnimationFrame(window.ticking); return window.frames_; }"
FIRST_PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
RESPONSE_END = "() => performance.getEntriesByType('navigation')[0].responseEnd"
HEAP_MEBIBYTES = "() => performance.memory.usedJSHeapSize / 2 ** 20"


class PageSettings(BaseSettings):
    """Measure the page in a headless Chromium beside a server of its own."""

    model_config = settings_config("benchmarks.page", "SOLILOQUY_PAGE_")

    characters: int = 20_000
    """Length of the text"""


@contextmanager
def count_frames(page: Page, activity: str) -> Iterator[None]:
    """Print the frames a second of an activity, which happens inside the context."""
    page.evaluate(START_COUNTING)
    yield
    times = page.evaluate(STOP_COUNTING)
    gaps = [after - before for before, after in pairwise(times)]
    rate = 1000 * len(gaps) / (times[-1] - times[0])
    slow = sum(gap > 1000 / 30 for gap in gaps)
    print(
        f"{activity}: {rate:.1f} frames a second (median gap {median(gaps):.1f} ms, longest {max(gaps):.0f} ms, "
        f"{slow} of {len(gaps)} above 33 ms)"
    )


def measure(settings: PageSettings) -> None:
    """Measure one page in one browser."""
    with serving(BUNDLED) as (_, url), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(120_000)
        page.goto(url)
        paint = page.evaluate(FIRST_PAINT) - page.evaluate(RESPONSE_END)
        print(f"first content {paint:.0f} ms after the response")
        page.fill("#max_new_tokens", str(settings.characters))
        page.fill("#seed", "1")
        with count_frames(page, f"streaming {settings.characters:,} characters"):
            page.click("#write")
            page.wait_for_selector("#state[data-state=done]")
        print(page.inner_text("#figures"))
        spans = page.locator(".line span").count()
        print(f"{page.evaluate(HEAP_MEBIBYTES):.0f} MiB of JavaScript objects, {spans} spans")
        page.click(".active .document")
        page.keyboard.press("Control+Home")
        with count_frames(page, "typing in the first line"):
            page.keyboard.type("what is aught but as tis valued " * 4, delay=20)
        page.keyboard.press("Control+End")
        with count_frames(page, "typing in the last line"):
            page.keyboard.type("what is aught but as tis valued " * 4, delay=20)
        page.mouse.move(500, 500)
        with count_frames(page, "scrolling"):
            for step in range(120):
                page.mouse.wheel(0, -250 if step < 60 else 250)
                page.wait_for_timeout(16)
        measure_several_texts(page)
        browser.close()


def measure_several_texts(page: Page) -> None:
    """Measure sixteen texts side by side."""
    page.reload()
    page.click(".active .document")
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    page.fill("#num_samples", "16")
    page.fill("#max_new_tokens", "2000")
    with count_frames(page, "streaming 16 texts of 2,000 characters side by side"):
        page.click("#write")
        page.wait_for_selector("#state[data-state=done]")


if __name__ == "__main__":
    sys.exit(run(PageSettings, measure, sys.argv[1:]))
