"""Numbers that are typed: each is used as it stands, or refused in words that say what is wrong with it."""

import json

import httpx
import pytest
from playwright.sync_api import Browser, Page, Request, expect

from app.api.schemas import GenerateRequest
from tests.conftest import LiveServer
from tests.e2e.conftest import opened, written

USED = {"3": 3, " 3 ": 3, "+3": 3, "003": 3, "3\n": 3, "\u00a03": 3, "": 1}
NOT_WHOLE = [
    "1.5",
    "1,5",
    "1e1",
    "1 0",
    "1,000",
    "0x3",
    "three",
    "3-",
    "--3",
    "\u0663",
    "\uff13",
    "Infinity",
    "NaN",
    "1\u200b2",
]
TOO_SMALL = ["0", "-5", "\u22125", "-0"]
TOO_LARGE = ["17", "1000000000000000000000", "9" * 400]


def sent(page: Page) -> dict[str, object]:
    """The body of the request that Write sends."""
    with page.expect_request("**/generate") as sending:
        page.click("#write")
    request: Request = sending.value
    body: dict[str, object] = json.loads(request.post_data or "")
    written(page)
    return body


@pytest.mark.parametrize("language", ["en", "es"])
def test_a_number_is_used_as_typed_or_refused_in_words(browser: Browser, server: LiveServer, language: str) -> None:
    """1.5 samples were answered by "From 1 to 16", 1e1 were ten, and 1,000 what the browser made of it.

    The fields were number fields, which hide from the page what was typed. They are fields of text now, which the
    page reads itself, before anything is sent.
    """
    words = {
        "en": ("is not a whole number", "Too small: a whole number from 1 to 16.", "Too large"),
        "es": ("no es un número entero", "Demasiado pequeño: un número entero de 1 a 16.", "Demasiado grande"),
    }[language]
    with opened(browser, f"{server.url}/?lang={language}") as page:
        page.fill("#max_new_tokens", "5")
        page.click("#more")
        error = page.locator("#num_samples-error")
        requested: list[str] = []
        page.on("request", lambda request: requested.append(request.url) if "/static/" not in request.url else None)
        for message, wrong in zip(words, (NOT_WHOLE, TOO_SMALL, TOO_LARGE), strict=True):
            for typed in wrong:
                page.fill("#num_samples", typed)
                page.click("#write")
                expect(error).to_contain_text(message)
                expect(page.locator("#num_samples")).to_be_focused()
                expect(page.locator("#num_samples")).to_have_value(typed)
                expect(page.locator("#num_samples")).to_have_attribute("aria-invalid", "true")
        page.fill("#num_samples", "1\u200b2")
        page.keyboard.press("Tab")
        expect(error).to_contain_text("ZERO WIDTH SPACE (U+200B)")
        assert requested == []
        for typed, value in USED.items():
            page.fill("#num_samples", typed)
            assert sent(page)["num_samples"] == value
            expect(error).to_be_empty()


def test_every_seed_of_the_api_can_be_typed_and_seen(page: Page) -> None:
    """4087029807 was cut to 408702980 by a field too narrow for it; what was sent had all its digits."""
    page.fill("#max_new_tokens", "5")
    for seed in (0, 4087029807, 2**53 - 1):
        page.fill("#seed", str(seed))
        assert page.evaluate("(f => f.scrollWidth <= f.clientWidth)(document.getElementById('seed'))")
        assert sent(page)["seed"] == seed
        expect(page.locator("#figures")).to_contain_text(f"Seed {seed}.")
    page.fill("#seed", "")
    assert "seed" not in sent(page)
    page.fill("#seed", str(2**53))
    page.click("#write")
    expect(page.locator("#seed-error")).to_have_text(
        "Luck: Too large: a whole number from 0 to 9,007,199,254,740,991."
    )
    page.fill("#seed", "7")
    page.keyboard.press("ArrowUp")
    expect(page.locator("#seed")).to_have_value("8")


def test_the_limits_are_the_apis(server: LiveServer) -> None:
    """They were written down a second time in the template."""
    schema = GenerateRequest.model_json_schema()["properties"]
    html = httpx.get(server.url).text
    for name in ("max_new_tokens", "num_samples"):
        low = schema[name]["minimum"]
        high = schema[name]["maximum"]
        field = html[html.index(f'id="{name}"') :].split(">")[0]
        assert f'data-low="{low}" data-high="{high}"' in field
        assert f'value="{schema[name]["default"]}"' in field
