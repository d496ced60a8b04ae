"""Sharing: the short link, the picture with its QR code, and what previews of the page's link show."""

import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
import segno
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.conftest import LiveServer
from tests.e2e.conftest import Opened, begin, opened, text_of, written
from tests.e2e.test_page_people import check

ROOT = Path(__file__).parents[2]


def test_a_picture_and_a_short_link_hold_the_text(bundled: Page, browser: Browser, tmp_path: Path) -> None:
    """The link is written again from a fingerprint, and the picture has the code that leads there."""
    begin(bundled, "ROMEO:\n", seed="1337", max_new_tokens="300")
    bundled.click("#write")
    written(bundled)
    bundled.click("#share-open")
    short = bundled.locator("[name=short-link]")
    expect(short).to_have_value(re.compile("#s="))
    link = short.input_value()
    assert len(link) < 200 < len(bundled.input_value("[name=link]"))
    expect(bundled.locator("canvas")).to_have_attribute("data-code", "drawn")
    check(bundled, "share")
    with bundled.expect_download() as saved:
        bundled.get_by_role("button", name="Save picture").click()
    saved.value.save_as(tmp_path / "picture.png")
    picture = Image.open(tmp_path / "picture.png").convert("RGB")
    assert picture.size == (1200, 630)
    assert code_in(picture) == [
        "".join(map(str, row)) for row in segno.make_qr(link, error="l", boost_error=False).matrix
    ]
    with opened(browser, link) as other:
        expect(other.locator("#verdict")).to_have_text("Replayed from the link: every character matches.")
        assert text_of(other) == text_of(bundled)
        assert other.url == link


def test_a_picture_says_nothing_of_words_that_nobody_has_looked_up(page: Page) -> None:
    """The tiny model has no index of what it read; all words of its texts were called real."""
    page.evaluate(
        """() => {
            window.drawn = [];
            const draw = CanvasRenderingContext2D.prototype.fillText;
            CanvasRenderingContext2D.prototype.fillText = function (text, ...place) {
                window.drawn.push(text);
                draw.call(this, text, ...place);
            };
        }"""
    )
    begin(page, "ROMEO:", max_new_tokens="20")
    page.click("#write")
    written(page)
    page.click("#share-open")
    expect(page.locator("canvas")).to_have_attribute("data-code", "drawn")
    drawn = page.evaluate("window.drawn")
    assert "Soliloquy" in drawn
    assert "All of its words are real." not in drawn


def code_in(picture: Image.Image) -> list[str]:
    """The modules of the QR code in a picture, dark on a light square at its right edge."""
    dark = np.asarray(picture.crop((836, 137, 1136, 437)).convert("L")) < 128
    top, bottom = np.flatnonzero(dark.any(axis=1))[[0, -1]]
    left, right = np.flatnonzero(dark.any(axis=0))[[0, -1]]
    module = int(np.flatnonzero(~dark[top, left:])[0]) // 7  # a finder pattern, seven wide, stands in the corner
    modules = dark[top + module // 2 : bottom + 1 : module, left + module // 2 : right + 1 : module]
    return ["".join(str(int(one)) for one in row) for row in modules]


@pytest.mark.parametrize("text", ["", "x" * 601])
def test_a_code_of_nothing_or_too_much_is_refused(server: LiveServer, text: str) -> None:
    assert httpx.post(f"{server.url}/qr", json={"text": text}).status_code == 422


def test_previews_of_the_link_have_a_title_and_a_picture(serve: Callable[..., Opened]) -> None:
    """Their addresses are whole: of the host that was asked, and below the path of a proxy."""
    with serve(root_path="/gpt") as live:
        for language in ("en", "es"):
            page = httpx.get(f"{live.url}/gpt/?lang={language}", headers={"host": "example.org"}).text
            tags = dict(re.findall(r'<meta property="og:(\S+)" content="([^"]*)">', page))
            assert tags["url"] == "http://example.org/gpt/"
            assert tags["image"] == "http://example.org/gpt/static/preview.png"
            assert tags["title"]
            assert tags["description"]
        preview = httpx.get(f"{live.url}/gpt/static/preview.png")
    assert preview.headers["content-type"] == "image/png"
    assert Image.open(BytesIO(preview.content)).size == (1200, 630)
