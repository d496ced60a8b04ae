"""The page while its server is away, and when it is back: nothing stays dead, and nothing fails silently."""

import re
import signal

from playwright.sync_api import Browser, expect

from tests.e2e.conftest import BUNDLED, begin, colour, opened, text_of, written
from tests.e2e.test_process import serving

AWAY = re.compile("The server cannot be reached. It is asked again")


def test_what_is_opened_while_the_server_is_away_works_then_or_when_it_is_back(browser: Browser) -> None:
    """Panels loaded their code when first opened, once: with the server away then they stayed dead for good, and
    Share, just when Save is wanted, did nothing and said nothing.

    All code now comes as soon as the reader does anything, and a panel's requests are repeated until the server
    answers.
    """
    with serving(BUNDLED) as (process, url):
        port = url.rsplit(":", 1)[1].split()[0]
        with opened(browser, url) as page:
            begin(page, "ROMEO:\n", seed="4", max_new_tokens="60")
            page.click("#write")
            written(page)
            process.send_signal(signal.SIGKILL)
            process.wait()

            colour(page, "copied")
            colour(page, "invented")
            page.click("#tab-model")
            expect(page.locator("#card-panel")).to_contain_text("10,641,792")
            page.click("#share-open")
            expect(page.locator("[name=link]")).to_have_value(re.compile("#s="))
            with page.expect_download() as saved:
                page.get_by_role("button", name="Save .txt").click()
            assert saved.value.path().read_text(encoding="utf-8") == text_of(page) + "\n"
            page.keyboard.press("Escape")

            growth = page.locator("#growth [role=status]")
            page.click("#tab-growth")
            expect(growth).to_contain_text(AWAY)
            page.click("#tab-report")
            page.click("#report-button")
            expect(page.locator("#report-panel")).to_contain_text(AWAY)
            page.click("#look")
            expect(page.locator("#inspector")).to_contain_text(AWAY)
            page.click("#tab-growth")
            page.locator("#growth").get_by_role("button", name="Try now").click()
            expect(growth).to_contain_text(AWAY)

            with serving(BUNDLED, f"--port={port}"):
                expect(page.locator("#growth-slider")).to_be_enabled()
                expect(page.locator("#report-panel li")).to_have_count(4)
                page.click("#tab-letter")
                expect(page.locator(".candidate").first).to_be_visible()


def test_a_link_that_is_being_written_again_is_compared_after_a_kill(browser: Browser) -> None:
    """What was lost with the server is requested again, and the text is compared with the link at the end."""
    with serving(BUNDLED) as (process, url):
        port = url.rsplit(":", 1)[1].split()[0]
        with opened(browser, url) as page:
            begin(page, "ROMEO:\n", seed="4", max_new_tokens="4000")
            page.click("#write")
            written(page)
            page.click("#share-open")
            expect(page.locator("[name=link]")).not_to_have_value("")
            link = page.input_value("[name=link]")
        with opened(browser, link) as page:
            expect(page.locator("#counters")).to_have_text(re.compile(r"^\d,\d\d\d "))
            process.kill()
            expect(page.locator("#state")).to_have_attribute("data-state", "lost")
            with serving(BUNDLED, f"--port={port}"):
                expect(page.locator("#verdict")).to_have_text("Replayed from the link: every character matches.")
