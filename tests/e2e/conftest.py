"""A real headless Chromium, on pages of the tiny and the bundled model; servers with other settings."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from app.main import create_app
from app.settings import ServerSettings
from tests.conftest import THREADS, LiveServer

BUNDLED = Path(__file__).parent.parent.parent / "checkpoints" / "shakespeare-char"
# The headless shell is Chromium without windows, which tests do not need.
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
# errors that tests cause: numbers that are refused, and a server that goes away
EXPECTED = re.compile("status of 422|net::ERR_(CONNECTION|INCOMPLETE|EMPTY)")

# text appears as it comes, as if the reader had chosen that
FULL_SPEED = """try { sessionStorage["soliloquy-view"] ??= JSON.stringify({ speed: "full", time: 1 }) } catch {}"""

Opened = AbstractContextManager[LiveServer]

expect.set_options(timeout=60_000)  # a machine may be busy


@pytest.fixture
def serve(folder: Path) -> Callable[..., Opened]:
    """Opens a server with other settings."""

    @contextmanager
    def opened(**settings: Any) -> Iterator[LiveServer]:
        app = create_app(ServerSettings(checkpoint=folder, device="cpu", threads=THREADS, **settings))
        with LiveServer(app) as live:
            yield live

    return opened


def chromium() -> str | None:
    """The browser to use: CHROMIUM if set, else the first on the path."""
    if "CHROMIUM" in os.environ:
        return os.environ["CHROMIUM"]
    for command in BROWSERS:
        path = shutil.which(command)
        if path is not None:
            return path
    return None


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For one module: while Playwright is there, no other event loop can run in this thread."""
    path = chromium()
    if path is None and "CI" not in os.environ:
        pytest.skip("no Chromium on this machine; name one with CHROMIUM=/path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, url: str, refusal: int | None = None) -> Iterator[Page]:
    """A page in a profile of its own; the browser must have logged no errors in the end, but for one `refusal`."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, locale="en-GB")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.add_init_script(FULL_SPEED)
    page = context.new_page()
    page.set_default_timeout(60_000)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(url)
    yield page
    context.close()
    unexpected = [one for one in complaints if not EXPECTED.search(one)]
    assert [one for one in unexpected if refusal is None or f"status of {refusal}" not in one] == []


@pytest.fixture
def page(browser: Browser, server: LiveServer) -> Iterator[Page]:
    """The page of the tiny model, whose steps can be held one by one."""
    with opened(browser, server.url) as page:
        yield page


@pytest.fixture(scope="session")
def bundled_server() -> Iterator[LiveServer]:
    """A server of the bundled model."""
    with LiveServer(create_app(ServerSettings(checkpoint=BUNDLED, device="cpu", threads=THREADS))) as live:
        yield live


@pytest.fixture
def bundled(browser: Browser, bundled_server: LiveServer) -> Iterator[Page]:
    """The page of the bundled model."""
    with opened(browser, bundled_server.url) as page:
        yield page
    bundled_server.gate.open()


def text_of(page: Page, name: str = "1") -> str:
    """One text of the page, as its lines show it."""
    lines: list[str] = page.locator(f'[aria-label="Text {name}"].document .line').all_text_contents()
    return "\n".join(lines)


def written(page: Page) -> None:
    """Wait until the model has written all that was requested."""
    expect(page.locator("#state")).to_have_attribute("data-state", "done")


def setting(page: Page, name: str, value: str) -> None:
    """Fill one setting, wherever the page has it."""
    field = page.locator(f"#{name}")
    if not field.is_visible():
        page.click("#more")
    if name == "speed":
        page.select_option("#speed", value)
    else:
        field.fill(value)


def colour(page: Page, mode: str) -> None:
    """Colour the text by a scale: one of how sure the model was, or another switch."""
    sure = mode in ("probability", "rank", "surprise")
    page.check(f"#colours [value={'sure' if sure else mode}]", force=True)  # its label is what is seen
    if sure:
        page.select_option("#measure", mode)


def begin(page: Page, text: str, **settings: str) -> None:
    """Put a text in the place of all that is there, and fill settings."""
    for name, value in settings.items():
        setting(page, name, value)
    page.click(".active .document")
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    page.keyboard.insert_text(text)
