"""The page's text: one document that people and the model write in, streamed without a loss."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from app.serving import engine
from benchmarks.cut_streams import CuttingProxy
from tests.conftest import LiveServer
from tests.e2e.conftest import BUNDLED, Opened, begin, opened, text_of, written
from tests.e2e.test_process import serving


def answer(url: str, prompt: str, **fields: object) -> list[str]:
    """What the API writes."""
    body = {"prompt": prompt, "stream": False, "top_k": None} | fields
    samples = httpx.post(f"{url}/generate", json=body, timeout=60).json()["samples"]
    return [sample["text"] for sample in samples]


def test_the_model_goes_on_where_someone_stopped(bundled: Page, bundled_server: LiveServer) -> None:
    begin(bundled, "ROMEO:\nO my ", seed="3", max_new_tokens="300")
    bundled.keyboard.press("Control+Enter")
    written(bundled)
    [expected] = answer(bundled_server.url, "ROMEO:\nO my ", seed=3, max_new_tokens=300)
    assert text_of(bundled) == "ROMEO:\nO my " + expected
    expect(bundled.locator(".speaker").first).to_have_text("ROMEO:")
    expect(bundled.locator("#figures")).to_contain_text("300 characters")
    expect(bundled.locator("#counters")).to_have_text("312 characters")
    expect(bundled.locator("#counters")).to_have_attribute("title", re.compile("sees the last 256 of them"))

    bundled.keyboard.press("Control+End")
    bundled.keyboard.type("\n\nNURSE:\nNo!")
    bundled.click("#write")
    expect(bundled.locator("#figures")).to_contain_text("300 characters")
    written(bundled)
    assert text_of(bundled).startswith("ROMEO:\nO my " + expected + "\n\nNURSE:\nNo!")
    assert len(text_of(bundled)) == len("ROMEO:\nO my " + expected + "\n\nNURSE:\nNo!") + 300


def test_everything_can_be_edited_undone_and_redone(bundled: Page) -> None:
    begin(bundled, "JULIET:\n", seed="1", max_new_tokens="200")
    bundled.click("#write")
    written(bundled)
    whole = text_of(bundled)
    bundled.keyboard.press("Control+z")  # what the model wrote is one edit
    assert text_of(bundled) == "JULIET:\n"
    bundled.keyboard.press("Control+Shift+z")
    assert text_of(bundled) == whole
    expect(bundled.locator(".written[class*=tint]").first).to_be_visible()  # and so is what is known of it

    states = [whole]
    bundled.click(".active .document")
    bundled.keyboard.press("Control+Home")
    for key in (
        "Delete",
        "G",
        "End",
        "Enter",
        "Backspace",
        "Backspace",
        "Control+Backspace",
        "ArrowDown",
        "End",
        "!",
    ):
        bundled.keyboard.press(key)
        if text_of(bundled) != states[-1]:
            states.append(text_of(bundled))
    assert states[1][:6] == "ULIET:"
    assert len(states) == 8
    for state in reversed(states[:-1]):
        bundled.click("#undo")
        assert text_of(bundled) == state
    for state in states[1:]:
        bundled.click("#redo")
        assert text_of(bundled) == state


def test_copying_and_pasting_keep_the_text(page: Page) -> None:
    begin(page, "one\n\ntwo\nthree")
    page.keyboard.press("Control+a")
    page.keyboard.press("Control+x")
    assert text_of(page) == ""
    page.keyboard.press("Control+v")
    page.keyboard.press("Control+v")
    assert text_of(page) == "one\n\ntwo\nthreeone\n\ntwo\nthree"


def test_from_the_caret_the_old_text_stays(bundled: Page) -> None:
    begin(bundled, "ROMEO:\nIs the day so young? But what then", seed="8", max_new_tokens="50")
    for _ in range(len(" But what then")):
        bundled.keyboard.press("ArrowLeft")
    bundled.keyboard.press("Control+Shift+Enter")
    written(bundled)
    assert text_of(bundled, "1.1").startswith("ROMEO:\nIs the day so young?")
    assert len(text_of(bundled, "1.1")) == len("ROMEO:\nIs the day so young?") + 50
    bundled.keyboard.press("Alt+ArrowUp")
    assert text_of(bundled) == "ROMEO:\nIs the day so young? But what then"


def test_samples_stand_side_by_side(bundled: Page, bundled_server: LiveServer) -> None:
    begin(bundled, "ROMEO:\n", seed="5", max_new_tokens="120", num_samples="3")
    bundled.click("#write")
    written(bundled)
    expected = answer(bundled_server.url, "ROMEO:\n", seed=5, max_new_tokens=120, num_samples=3)
    assert [text_of(bundled, str(i + 1)) for i in range(3)] == ["ROMEO:\n" + text for text in expected]
    lefts = [bundled.locator("article").nth(i).bounding_box()["x"] for i in range(3)]  # type: ignore[index]
    assert lefts == sorted(set(lefts))
    bundled.set_viewport_size({"width": 380, "height": 800})
    expect(bundled.locator("#pages hr").first).to_be_visible()  # nanoGPT's line between samples
    bundled.click("#side-by-side")
    expect(bundled.locator("article")).to_have_count(1)
    bundled.locator("#tabs").get_by_role("button", name="Text 3", exact=True).click()
    assert text_of(bundled, "3") == "ROMEO:\n" + expected[2]


def test_texts_go_on_all_at_once_or_one_by_one(bundled: Page, bundled_server: LiveServer) -> None:
    """Four panes stand two by two, each with its name and what continues it; another one says where it forked."""
    begin(bundled, "ROMEO:\n", seed="5", max_new_tokens="40", num_samples="4")
    bundled.click("#write")
    written(bundled)
    boxes = [bundled.locator("article").nth(i).bounding_box() for i in range(4)]
    assert len({box["x"] for box in boxes if box}) == 2
    assert len({box["y"] for box in boxes if box}) == 2
    before = [text_of(bundled, str(i + 1)) for i in range(4)]
    bundled.click("#continue-all")
    written(bundled)
    after = [text_of(bundled, str(i + 1)) for i in range(4)]
    for old, new in zip(before, after, strict=True):
        [expected] = answer(bundled_server.url, old, seed=5, max_new_tokens=40)
        assert new == old + expected
    bundled.get_by_role("button", name="Continue text 3").click()
    written(bundled)
    assert len(text_of(bundled, "3")) == len(after[2]) + 40
    assert [text_of(bundled, name) for name in ("1", "2", "4")] == [after[0], after[1], after[3]]
    bundled.locator('[aria-label="Text 2"] .line').first.click()
    bundled.keyboard.press("Control+Home")
    for _ in range(20):
        bundled.keyboard.press("ArrowRight")
    bundled.keyboard.press("Control+Shift+Enter")
    written(bundled)
    expect(bundled.locator("article .pane").nth(2)).to_contain_text("left text 2 at character 21")
    marked = bundled.evaluate("[...CSS.highlights.get('fork')].map((range) => range.toString())")
    assert marked == [text_of(bundled, "2.1")[20]]


def test_a_busy_server_is_asked_again_when_it_says_so(
    browser: Browser, serve: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader had to press Write again. Now the page counts down and tries, until it is stopped.

    Who waits in the queue is told the place there.
    """
    monkeypatch.setattr(engine, "FULL_RETRY_SECONDS", 1)  # a test waits for all of it
    with serve(slots=1, queue_size=1) as live, opened(browser, live.url, refusal=503) as page:
        page.click("#tab-model")  # where nothing is asked for while one types
        begin(page, "ROMEO:", max_new_tokens="20")
        live.gate.close()
        live.gate.waiting.clear()
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(answer, live.url, "A", max_new_tokens=20)
            assert live.gate.waiting.wait(60)
            page.click("#write")  # which waits in the queue, that has no room for more
            expect(page.locator("#state")).to_have_attribute("data-state", "queued")
            expect(page.locator("#state")).to_have_text("Place 1 in the queue")
            with opened(browser, live.url, refusal=503) as late:
                late.click("#tab-model")
                begin(late, "JULIET:", max_new_tokens="20")
                late.click("#write")
                expect(late.locator("#state")).to_have_attribute("data-state", "busy")
                expect(late.locator("#state")).to_contain_text(re.compile(r"busy; trying again in \d s"))
                live.gate.open()
                assert other.result()
                written(late)
                assert len(text_of(late)) == len("JULIET:") + 20
        written(page)
        assert len(text_of(page)) == len("ROMEO:") + 20


def test_text_grows_until_it_is_stopped_on_the_server_too(page: Page, server: LiveServer) -> None:
    begin(page, "JULIET:", max_new_tokens="100000")
    server.gate.close()
    page.click("#write")
    lengths = []
    for _ in range(3):  # the model steps one by one
        before = len(text_of(page))
        server.gate.step()
        server.gate.step()
        expect(page.locator("#counters")).not_to_have_text(re.compile(f"^{before} "))
        lengths.append(len(text_of(page)))
    assert lengths == sorted(set(lengths))
    expect(page.locator("#state")).to_have_attribute("data-state", "writing")
    page.keyboard.press("Escape")
    expect(page.locator("#state")).to_have_attribute("data-state", "stopped")
    expect(page.locator("#stop")).to_be_disabled()
    server.gate.open()
    written_before = text_of(page)
    page.fill("#max_new_tokens", "40")
    page.click("#write")  # the only slots that are free are those that were given up
    written(page)
    assert len(text_of(page)) == len(written_before) + 40


def test_typing_stops_the_model(page: Page, server: LiveServer) -> None:
    begin(page, "A", max_new_tokens="100000")
    server.gate.close()  # the model could be done before
    page.click("#write")
    server.gate.step()
    server.gate.step()
    expect(page.locator("#state")).to_have_attribute("data-state", "writing")
    page.click(".active .document")
    page.keyboard.press("Control+Home")
    page.keyboard.type("x")
    expect(page.locator("#state")).to_have_attribute("data-state", "stopped")
    assert text_of(page).startswith("xA")
    server.gate.open()


def test_the_page_follows_the_text_until_the_reader_scrolls_up(bundled: Page) -> None:
    begin(bundled, "ROMEO:\n", max_new_tokens="60000")
    bundled.click("#write")
    expect(bundled.locator("#counters")).to_have_text(re.compile(r"^([2-9]|\d\d),\d\d\d "))
    expect(bundled.locator(".active .line").last).to_be_in_viewport()
    bundled.mouse.move(400, 500)
    bundled.mouse.wheel(0, -1500)
    expect(bundled.locator("#pill")).to_be_visible()
    before = bundled.evaluate("scrollY")
    expect(bundled.locator("#counters")).not_to_have_text(bundled.inner_text("#counters"))
    assert bundled.evaluate("scrollY") <= before + 1
    # The way back could be covered by what was said of a character, which could not be clicked then.
    on_top = """() => {
        const { left, top, width, height } = document.querySelector("#pill").getBoundingClientRect();
        return document.elementFromPoint(left + width / 2, top + height / 2).id;
    }"""
    assert bundled.evaluate(on_top) == "pill"
    bundled.set_viewport_size({"width": 400, "height": 800})
    bundled.click("#tab-report")
    expect(bundled.locator("#report")).to_be_visible()
    assert bundled.evaluate(on_top) == "pill"
    bundled.click("#pill")
    expect(bundled.locator("#pill")).to_be_hidden()
    bundled.keyboard.press("Escape")


@pytest.mark.parametrize("size", [90, 145, 300])
def test_an_answer_that_is_cut_in_its_headers_is_asked_for_again(
    browser: Browser, bundled_server: LiveServer, size: int
) -> None:
    """Chromium takes the headers that have come for all: "the server answered 200 OK" ended the text."""
    port = int(bundled_server.url.rsplit(":", 1)[1])
    with CuttingProxy(port).running() as proxy, opened(browser, proxy.url) as page:
        begin(page, "ROMEO:\n", seed="3", max_new_tokens="60")
        proxy.cut_after(size)
        page.click("#write")
        expect(page.locator("#state")).to_have_attribute("data-state", "lost")
        proxy.cut_after(1 << 20)
        written(page)
        assert text_of(page) == "ROMEO:\n" + answer(bundled_server.url, "ROMEO:\n", seed=3, max_new_tokens=60)[0]


def test_a_killed_server_that_comes_back_goes_on_with_the_text(browser: Browser, tmp_path: object) -> None:
    """Kill -9 in the middle of a stream: the text ends as if nothing had been."""
    with serving(BUNDLED) as (process, url):
        port = url.rsplit(":", 1)[1].split()[0]
        with opened(browser, url) as page:
            begin(page, "ROMEO:\n", seed="21", max_new_tokens="4000")
            page.click("#write")
            expect(page.locator("#counters")).to_have_text(re.compile(r"^\d+,\d\d\d "))
            process.kill()
            expect(page.locator("#state")).to_have_attribute("data-state", "lost")
            expect(page.locator("#state")).to_contain_text("Connection lost")
            with serving(BUNDLED, f"--port={port}") as (_, again):
                expect(page.locator("#state")).to_have_attribute("data-state", "done", timeout=60_000)
                [expected] = answer(again, "ROMEO:\n", seed=21, max_new_tokens=4000)
                assert text_of(page) == "ROMEO:\n" + expected


def test_a_server_that_stops_for_good_keeps_the_text(browser: Browser, server: LiveServer) -> None:
    with opened(browser, server.url, refusal=503) as page:
        begin(page, "ROMEO:", max_new_tokens="100000")
        server.gate.close()
        page.click("#write")
        server.gate.step()
        server.gate.step()
        server.engine.drain(0)
        server.gate.open()
        expect(page.locator("#state")).to_have_attribute("data-state", "lost")
        page.click("#stop")
        expect(page.locator("#state")).to_have_attribute("data-state", "stopped")
        assert text_of(page).startswith("ROMEO:")


def test_unknown_characters_are_marked_while_typing_and_can_be_replaced(bundled: Page) -> None:
    begin(bundled, "Ma\u00f1ana, \u201cJos\u00e9\u201d 日 \U0001f600!")
    expect(bundled.locator("#unknown")).to_contain_text("ñ → n")
    expect(bundled.locator("#unknown")).to_contain_text("日 → ?")
    expect(bundled.locator("#unknown")).to_contain_text("\u201c → ")
    assert bundled.locator(".unknown").count() >= 4
    bundled.click("#write")
    expect(bundled.locator("#error")).to_contain_text("cannot read the characters that are marked")
    bundled.click("#replace")
    expect(bundled.locator("#unknown")).to_be_hidden()
    assert "Manana" in text_of(bundled)
    bundled.click("#write")
    written(bundled)


def test_examples_begin_a_text(bundled: Page) -> None:
    """They are offered where the text is empty."""
    expect(bundled.locator("#examples")).to_be_hidden()
    bundled.click("#new")
    expect(bundled.locator("article")).to_have_count(1)  # nothing was written: the text is emptied
    bundled.get_by_role("button", name="First Citizen:").click()
    assert text_of(bundled) == "First Citizen:\nBefore we proceed"
    bundled.fill("#max_new_tokens", "20")
    bundled.click("#write")
    written(bundled)
    bundled.click("#new")
    bundled.get_by_role("button", name="JULIET:").click()  # what the model wrote is not taken away
    assert text_of(bundled, "2") == "JULIET:\nO "
    expect(bundled.locator("#tabs button")).to_have_count(4)


def test_a_bad_number_is_shown_at_its_field(page: Page) -> None:
    page.fill("#seed", "-5")
    page.fill("#max_new_tokens", "0")
    page.click("#write")
    expect(page.locator("#seed-error")).to_contain_text("Luck: Too small: a whole number from 0 to")
    expect(page.locator("#max_new_tokens-error")).to_have_text(
        "Letters: Too small: a whole number from 1 to 100,000."
    )
    page.fill("#seed", "")
    page.fill("#max_new_tokens", "10")
    page.click("#write")
    expect(page.locator("#seed-error")).to_be_empty()
    written(page)


def test_a_reload_loses_nothing(bundled: Page) -> None:
    begin(bundled, "ROMEO:\n", seed="5", max_new_tokens="100", num_samples="2")
    bundled.click("#write")
    written(bundled)
    texts = [text_of(bundled, name) for name in ("1", "2")]
    colours = bundled.locator("[class*=tint]").count()
    bundled.reload()
    assert [text_of(bundled, name) for name in ("1", "2")] == texts
    assert bundled.locator("[class*=tint]").count() == colours
    assert bundled.input_value("#max_new_tokens") == "100"


MARKUP = "<script>alert(1)</script>\n<img src=x onerror=alert(1)>"
STRANGE = MARKUP + ' & "quotes" \u2028 \U0001f600 \u05e9\u05dc\u05d5\u05dd \ufeff'


@pytest.mark.parametrize("text", [STRANGE, "word " * 10_000, "x" * 50_000])
def test_any_text_is_only_text(page: Page, text: str) -> None:
    begin(page, text)
    page.keyboard.type("!")
    assert text_of(page) == text + "!"
    page.keyboard.press("Backspace")
    page.click("#undo")
    assert page.locator("article img, article script").count() == 0
