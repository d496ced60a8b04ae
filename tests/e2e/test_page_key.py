"""The page of a server that wants keys: it asks for one, and keeps it while the tab is open."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from app.main import create_app
from app.settings import ServerSettings
from tests.conftest import LiveServer
from tests.e2e.conftest import begin, text_of, written


@pytest.fixture
def locked(browser: Browser, folder: Path) -> Iterator[Page]:
    """The page of a server with a key; the browser may log its refusals and no other errors."""
    settings = ServerSettings.model_validate({"checkpoint": folder, "device": "cpu", "api_keys": "open-sesame"})
    with LiveServer(create_app(settings)) as live:
        context = browser.new_context(locale="en-GB")
        page = context.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(live.url)
        yield page
        context.close()
        assert [one for one in complaints if "status of 401" not in one] == []


def test_the_page_asks_for_a_key_and_keeps_it(locked: Page) -> None:
    dialog = locked.locator("#key")
    field = locked.locator("#key-field")
    error = locked.locator("#key-error")
    begin(locked, "ROMEO:", max_new_tokens="20")
    expect(dialog).to_be_hidden()
    locked.click("#write")
    expect(dialog).to_be_visible()
    expect(field).to_be_focused()
    expect(error).to_be_empty()
    assert Axe().run(locked).response["violations"] == []
    locked.keyboard.press("Escape")
    expect(locked.locator("#error")).to_contain_text("API key")
    assert text_of(locked) == "ROMEO:"

    locked.click("#write")
    expect(field).to_be_focused()
    locked.keyboard.insert_text("sésame 日")
    locked.keyboard.press("Enter")
    expect(error).not_to_be_empty()
    expect(dialog).to_be_visible()
    expect(field).to_have_value("")
    field.fill(" open-sesame\n")
    dialog.locator("button").first.click()
    written(locked)
    assert len(text_of(locked)) == len("ROMEO:") + 20
    expect(dialog).to_be_hidden()

    locked.reload()
    locked.click("#write")
    written(locked)
    assert len(text_of(locked)) == len("ROMEO:") + 40
    expect(dialog).to_be_hidden()
    assert "sesame" not in locked.content()
