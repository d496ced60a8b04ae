"""What the page costs: first content, frames with 20,000 coloured characters, what jumps, and 30 readers at once.

python -m benchmarks.page [--characters=20000] [--clients=30] [--against=FOLDER]

It needs Chromium (CHROMIUM, or on the path) and the development extra. With another checkout in FOLDER, both pages
are measured in turn, and the ratios are printed: this one's divided by the other's.

A frame's cost is the time that the page's thread was busy, divided by the frames: where that is less than 16 ms,
the browser waits for the screen, and the frames a second say nothing.
"""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from threading import Thread

from playwright.sync_api import Browser, CDPSession, Page, ViewportSize, expect, sync_playwright
from pydantic_settings import BaseSettings

from benchmarks.clients import Reader, run_readers, serving
from model.cli import SettingsPath, run, settings_config
from tests.e2e.conftest import BUNDLED, FLAGS, FULL_SPEED, chromium

ROOT = Path(__file__).parent.parent
LOADS = 5  # of the page, for its first content
ROUNDS = 3  # of all clients at once
JUMP_CHARACTERS = 1500  # that are written while the layout is watched: several windows full
WIDE: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
PARTS = ("ScriptDuration", "RecalcStyleDuration", "LayoutDuration", "TaskDuration")

START_COUNTING = """() => {
    window.frames_ = [];
    const tick = (now) => { window.frames_.push(now); window.ticking = requestAnimationFrame(tick); };
    window.ticking = requestAnimationFrame(tick);
}"""
STOP_COUNTING = "() => { cancelAnimationFrame(window.ticking); return window.frames_; }"
WATCH_LAYOUT = """() => {
    window.shifted = 0;
    const add = (one) => { window.shifted += one.hadRecentInput ? 0 : one.value; };
    new PerformanceObserver((list) => list.getEntries().forEach(add)).observe({ type: "layout-shift" });
}"""
FIRST_CONTENT = """() => performance.getEntriesByName("first-contentful-paint")[0].startTime
    - performance.getEntriesByType("navigation")[0].responseEnd"""


class PageSettings(BaseSettings):
    """Measure the page in a headless Chromium beside a server of its own."""

    model_config = settings_config("benchmarks.page", "SOLILOQUY_PAGE_")

    characters: int = 20_000
    """Length of the text; 0 measures no frames"""
    clients: int = 30
    """Readers at once, with the settings that the page begins with"""
    against: SettingsPath | None = None
    """Another checkout, whose page is measured in turn with this one's"""


@dataclass(frozen=True)
class Frames:
    """What one activity cost, in frames and in milliseconds of the page's thread for each frame."""

    count: int
    rate: float
    longest: float
    slow: int  # that came more than 33 ms after the one before
    costs: dict[str, float]

    def __str__(self) -> str:
        parts = ", ".join(f"{name.removesuffix('Duration')} {cost:.1f}" for name, cost in self.costs.items())
        return (
            f"{self.rate:.1f} frames a second (longest gap {self.longest:.0f} ms, {self.slow} of {self.count} "
            f"above 33 ms); ms of a frame: {parts}"
        )


class Measurement:
    """The figures of one page by their names, printed as they come."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.figures: dict[str, float] = {}

    def add(self, figure: str, value: float, text: str) -> None:
        """Keep a figure and print it."""
        self.figures[figure] = value
        print(f"{self._name}: {figure}: {text}", flush=True)

    @contextmanager
    def frames(self, page: Page, activity: str) -> Iterator[None]:
        """Measure the frames of an activity, which happens inside the context."""
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")
        before = durations(session)
        page.evaluate(START_COUNTING)
        yield
        times = page.evaluate(STOP_COUNTING)
        after = durations(session)
        session.detach()
        gaps = [later - sooner for sooner, later in pairwise(times)]
        costs = {part: 1000 * (after[part] - before[part]) / len(gaps) for part in PARTS}
        rate = 1000 * len(gaps) / (times[-1] - times[0])
        found = Frames(len(gaps), rate, max(gaps), sum(gap > 1000 / 30 for gap in gaps), costs)
        self.add(activity, costs["TaskDuration"], str(found))


def durations(session: CDPSession) -> dict[str, float]:
    """Seconds that the page's thread has been busy since it began, by kind of work."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return {metric["name"]: metric["value"] for metric in metrics}


@contextmanager
def opened(browser: Browser, url: str, viewport: ViewportSize = WIDE) -> Iterator[Page]:
    """The page in a profile of its own, whose text appears as fast as it comes."""
    context = browser.new_context(viewport=viewport, locale="en-GB")
    context.add_init_script(FULL_SPEED)
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.goto(url)
    page.wait_for_load_state("networkidle")
    yield page
    context.close()


def fill(page: Page, **settings: int) -> None:
    """Fill settings, some of which may be under More."""
    page.click("#more")
    for name, value in settings.items():
        page.fill(f"#{name}", str(value))
    page.click("#more")


def write(page: Page) -> None:
    """Have the model write, and wait for its end."""
    page.click("#write")
    expect(page.locator("#state")).to_have_attribute("data-state", "done", timeout=120_000)


def measure_clients(browser: Browser, port: int, clients: int, measurement: Measurement) -> None:
    """Send the page's first request from many clients at once."""
    with opened(browser, f"http://127.0.0.1:{port}") as page:
        with page.expect_request("**/generate") as sent:
            page.click("#write")
        fields = json.loads(sent.value.post_data or "")
        page.click("#stop")
    length = fields["max_new_tokens"]
    firsts: list[float] = []
    ends: list[float] = []
    for turn in range(ROUNDS + 1):  # the first of which warms up
        readers = [Reader(seed, length, fields=fields | {"seed": seed}) for seed in range(clients)]
        thread = Thread(target=read_all, args=(port, readers))  # Playwright's event loop runs in this one
        thread.start()
        thread.join()
        assert all(reader.sha256 == reader.digest for reader in readers)
        if turn:
            firsts += [reader.arrivals[0] - reader.opened for reader in readers]
            ends += [reader.arrivals[-1] - reader.opened for reader in readers]
    for name, times in {"first character": firsts, "end": ends}.items():
        text = f"after {median(times):.2f} s (median), {max(times):.2f} s (slowest)"
        measurement.add(f"{name}, {clients} readers of {length} characters", median(times), text)


def read_all(port: int, readers: list[Reader]) -> None:
    """Run the readers, all of them from the same moment on."""
    asyncio.run(run_readers(port, readers, 0))


def measure(browser: Browser, port: int, settings: PageSettings, measurement: Measurement) -> None:
    """Measure one page."""
    url = f"http://127.0.0.1:{port}"
    characters = settings.characters
    first_contents: list[float] = []
    for _ in range(LOADS):
        with opened(browser, url) as page:
            first_contents.append(page.evaluate(FIRST_CONTENT))
    first = median(first_contents)
    measurement.add("first content", first, f"{first:.0f} ms after the response (up to {max(first_contents):.0f})")
    measure_clients(browser, port, settings.clients, measurement)
    if not characters:
        return
    for name, viewport in {"wide": WIDE, "phone": PHONE}.items():
        with opened(browser, url, viewport) as page:
            fill(page, max_new_tokens=JUMP_CHARACTERS, seed=1)
            page.evaluate(WATCH_LAYOUT)
            write(page)
            shifted = page.evaluate("window.shifted")
            measurement.add(f"layout shift, {name}", shifted, f"{shifted:.4f} over {JUMP_CHARACTERS} characters")
    with opened(browser, url) as page:
        measure_long_text(page, characters, measurement)
    with opened(browser, url) as page:
        fill(page, num_samples=16, max_new_tokens=500, seed=1)
        with measurement.frames(page, "16 texts side by side"):
            write(page)


def measure_long_text(page: Page, characters: int, measurement: Measurement) -> None:
    """Stream a long text, type at both of its ends, and scroll through it."""
    fill(page, max_new_tokens=characters, seed=1)
    with measurement.frames(page, "streaming"):
        write(page)
    print(f"  {page.locator('.line span').count()} spans; {page.inner_text('#counters')}")
    page.click(".active .document")
    for place, key in {"first": "Control+Home", "last": "Control+End"}.items():
        page.keyboard.press(key)
        with measurement.frames(page, f"typing in the {place} line"):
            page.keyboard.type("what is aught but as tis valued " * 4, delay=20)
    page.mouse.move(500, 400)
    with measurement.frames(page, "scrolling"):
        for step in range(120):
            page.mouse.wheel(0, -250 if step < 60 else 250)
            page.wait_for_timeout(16)


def main(settings: PageSettings) -> None:
    """Measure this page, and the other in turn if there is one."""
    checkouts = {"this": ROOT}
    if settings.against is not None:
        checkouts["other"] = settings.against
    measurements: dict[str, Measurement] = {}
    with sync_playwright() as playwright:
        for name, folder in checkouts.items():
            with serving(f"--checkpoint={BUNDLED}", folder=folder.resolve()) as (_, port):
                browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
                measurements[name] = Measurement(name)
                measure(browser, port, settings, measurements[name])
                browser.close()
    if settings.against is None:
        return
    print("\nthis page's figures by the other's (of activities: the cost of a frame)")
    for figure, value in measurements["this"].figures.items():
        other = measurements["other"].figures[figure]
        ratio = f"{value / other:.2f} x" if other else "both are 0" if value == other else "the other's is 0"
        print(f"  {figure}: {ratio}")


if __name__ == "__main__":
    sys.exit(run(PageSettings, main, sys.argv[1:]))
