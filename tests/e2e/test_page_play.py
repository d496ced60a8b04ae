"""Play: guessing letters against the model, comparing texts, and seeing what is expected while one types."""

import json
import math
import re
from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import Browser, Page, Request, Route, expect

from tests.conftest import LiveServer
from tests.e2e.conftest import Opened, begin, opened, text_of, written
from tests.e2e.test_page_people import check

PROMPT = "ROMEO:\n"
SHOWN = {"␣": " ", "↵": "\n"}
NUMBER = re.compile(r"(\d+\.\d) bits\b")


def answer(server: LiveServer, **fields: object) -> str:
    """What the API writes."""
    body = {"prompt": PROMPT, "stream": False, "top_k": None} | fields
    text: str = httpx.post(f"{server.url}/generate", json=body).json()["samples"][0]["text"]
    return text


def requests_to(page: Page, path: str) -> list[Request]:
    """The requests of this path from now on."""
    found: list[Request] = []
    page.on("request", lambda request: found.append(request) if request.url.endswith(path) else None)
    return found


def bet_on(page: Page, bet: str) -> tuple[str, str, float, float]:
    """Play one round; what is shown before the letter, the letter, and the bits of the player and of the model."""
    page.fill("#bet", bet)
    page.press("#bet", "Enter")
    glyph = page.locator("mark.told").inner_text()
    shown = page.locator(".passage").inner_text().removeprefix("…\n")
    own, expected = (float(value) for value in NUMBER.findall(page.locator(".answer").inner_text()))
    return shown[: -len(glyph)], SHOWN.get(glyph, glyph), own, expected


def test_letters_are_guessed_against_the_model(bundled: Page) -> None:
    """Ten rounds: one request for all, both scores add up, and the result can be copied."""
    begin(bundled, PROMPT, seed="4", max_new_tokens="300")
    bundled.click("#write")
    written(bundled)
    text = text_of(bundled)
    scored = requests_to(bundled, "/score")
    bundled.click("#play-open")
    said = bundled.locator(".answer")
    expect(bundled.locator("#bet")).to_be_focused()
    check(bundled, "a letter is asked for")
    bundled.keyboard.press("Enter")
    expect(bundled.locator("#bet-error")).to_contain_text("at least one letter")
    player = 0.0
    model = 0.0
    place = 0
    for round_number in range(1, 11):
        expect(bundled.locator(".tally")).to_contain_text(f"Letter {round_number} of 10")
        shown, letter, own, expected = bet_on(bundled, "ee ")
        next_place = text.index(shown + letter) + len(shown)  # a real one
        assert next_place > place
        place = next_place
        share = {"e": 2 / 3, " ": 1 / 3}.get(letter.lower(), 0)
        assert own == pytest.approx(-math.log2(0.9 * share + 0.1 / 39), abs=0.06)  # of 39 letters
        player += own
        model += expected
        expect(said.locator(".letters li.came")).to_have_count(1)
        assert said.locator(".letters li").count() in (5, 6)
        totals = [float(value) for value in NUMBER.findall(bundled.locator(".tally").inner_text())]
        assert totals == pytest.approx([player, model], abs=0.1 * round_number)
        expect(said.get_by_role("button")).to_be_focused()
        bundled.keyboard.press("Enter")
    expect(said.locator(".verdict")).not_to_be_empty()
    assert len(scored) == 1
    check(bundled, "the result")
    said.get_by_role("button", name="Copy the result").click()
    expect(said).to_contain_text("Copied.")
    score, marks, address = bundled.evaluate("navigator.clipboard.readText()").split("\n")
    assert [float(value) for value in re.findall(r"\d+\.\d", score)] == pytest.approx([player, model], abs=1)
    assert re.fullmatch("[🟩🟨⬛]{10}", marks)
    assert address == bundled.url
    said.get_by_role("button", name="Play again").click()
    expect(bundled.locator("#bet")).to_be_focused()
    bundled.keyboard.press("Escape")
    expect(bundled.locator("#play")).to_be_hidden()


def test_a_hidden_question_mark_is_shown_when_it_came(bundled: Page) -> None:
    """It looked like a letter that is still hidden, for the box of those shows a question mark, too."""
    begin(bundled, "Who? " * 20)
    bundled.evaluate("Math.random = () => 0")
    bundled.click("#play-open")
    letters = []
    for _ in range(3):
        expect(bundled.locator("#bet")).to_be_focused()
        letters.append(bet_on(bundled, "o")[1])
        bundled.keyboard.press("Enter")
    assert letters == ["o", "W", "?"]


def test_the_same_luck_at_two_temperatures_is_compared(bundled: Page, bundled_server: LiveServer) -> None:
    """The place where both part is that of the API's texts, is marked in both, and the sentence names it."""
    texts = [answer(bundled_server, seed=4, max_new_tokens=240, temperature=value) for value in (0.4, 1.2)]
    at = next(i for i, (a, b) in enumerate(zip(*texts, strict=True)) if a != b)
    begin(bundled, PROMPT, seed="4", max_new_tokens="20")
    bundled.click("#write")
    written(bundled)
    bundled.emulate_media(reduced_motion="reduce", color_scheme="dark")
    bundled.click("#play-open")
    bundled.get_by_role("button", name="Compare").click()
    seed = bundled.locator("#compare-seed")
    seed.fill("-1")
    bundled.get_by_role("button", name="Write both").click()
    expect(seed).to_have_attribute("aria-invalid", "true")
    seed.fill("4")
    bundled.get_by_role("button", name="Write both").click()
    expect(seed).not_to_have_attribute("aria-invalid", "true")
    expect(bundled.locator(".parting")).to_contain_text(f"They part at letter {at + 1}.")
    keep = bundled.get_by_role("button", name="Keep both")
    expect(keep).to_be_enabled()
    marks = [SHOWN.get(mark, mark) for mark in bundled.locator(".side .cursor").all_inner_texts()]
    assert marks == [text[at].strip("\n") for text in texts]
    check(bundled, "compared")
    juliet = answer(bundled_server, prompt="JULIET:\n", seed=4, max_new_tokens=240, temperature=1.2)
    at = next(i for i, (a, b) in enumerate(zip(texts[0], juliet, strict=True)) if a != b)
    bundled.locator(".side textarea").nth(1).fill("JULIET:\n")
    bundled_server.gate.close()
    bundled.get_by_role("button", name="Write both").click()
    bundled.locator(".side textarea").nth(1).fill("Not what is being written: " * 9)
    bundled_server.gate.open()
    expect(bundled.locator(".parting")).to_contain_text(f"They part at letter {at + 1}:")
    expect(bundled.locator(".parting")).to_contain_text("the dice are the same, but not what the model expects")
    expect(keep).to_be_enabled()
    keep.click()
    expect(bundled.locator("article")).to_have_count(3)
    assert text_of(bundled, "2") == PROMPT + texts[0]
    assert text_of(bundled, "3").startswith("JULIET:\n")


def test_what_the_model_expects_follows_the_caret_while_one_types(
    bundled: Page, bundled_server: LiveServer
) -> None:
    asked = requests_to(bundled, "/score")
    begin(bundled, PROMPT + "Wha")
    rows = bundled.locator(".ahead li")
    expect(rows).to_have_count(6)
    held: list[Route] = []
    bundled.route("**/score", lambda route: route.continue_() if held else held.append(route))
    with bundled.expect_request("**/score"):
        bundled.keyboard.type("t")
    with bundled.expect_event("requestfailed"):  # a newer one takes its place
        bundled.keyboard.type(" ar")
    expect(bundled.locator(".ahead p")).to_contain_text("What ar")
    bundled.unroute("**/score")
    body = {"prompt": PROMPT + "What ar", "text": "e", "alternatives": 6}
    [score] = httpx.post(f"{bundled_server.url}/score", json=body).json()["chars"]
    expected = [one["char"] for one in score["alternatives"]]
    glyphs = rows.locator(".glyph > :first-child").all_inner_texts()
    assert [SHOWN.get(glyph, glyph) for glyph in glyphs] == expected
    check(bundled, "type and see")
    rows.first.get_by_role("button").click()
    assert text_of(bundled) == PROMPT + "What ar" + expected[0]
    expect(bundled.locator(".ahead p")).to_contain_text("What ar" + expected[0])
    last = json.loads(asked[-1].post_data or "")
    assert last["prompt"] == PROMPT + "What ar" + expected[0]
    bundled.click("#write")
    expect(bundled.locator(".ahead")).to_be_hidden()


def test_typing_asks_for_no_key(browser: Browser, serve: Callable[..., Opened]) -> None:
    """The first pause opened a dialog in the middle of a word, and each one after a refusal asked again."""
    with serve(api_keys="open-sesame") as live, opened(browser, live.url, refusal=401) as page:
        asked = requests_to(page, "/score")
        with page.expect_response("**/score") as refused:
            begin(page, "ROMEO:")
        assert refused.value.status == 401
        page.wait_for_timeout(400)  # a pause, in which the dialog came
        expect(page.locator("#key")).to_be_hidden()
        count = len(asked)
        for letter in "ab":
            page.keyboard.type(letter)
            page.wait_for_timeout(400)
        assert len(asked) == count
        expect(page.locator(".ahead")).to_be_hidden()
        assert text_of(page) == "ROMEO:ab"


def test_the_caret_has_a_menu(bundled: Page) -> None:
    """Write from here, and look closer; with Shift the browser's own menu comes."""
    begin(bundled, PROMPT, seed="4", max_new_tokens="60")
    bundled.click("#write")
    written(bundled)
    before = text_of(bundled)
    menu = bundled.get_by_role("menu")
    line = bundled.locator(".line", has_text=re.compile("..........")).first
    prevented = "addEventListener('contextmenu', (event) => { window.prevented = event.defaultPrevented; })"
    bundled.evaluate(prevented)
    line.click(button="right", modifiers=["Shift"], position={"x": 60, "y": 10})
    assert bundled.evaluate("window.prevented") is False
    expect(menu).to_have_count(0)  # and the click has selected what is before it, as in any text
    line.click(position={"x": 60, "y": 10})
    line.click(button="right", position={"x": 60, "y": 10})
    assert bundled.evaluate("window.prevented") is True
    expect(menu.get_by_role("menuitem").first).to_be_focused()
    check(bundled, "menu")
    bundled.keyboard.press("ArrowDown")
    bundled.keyboard.press("Enter")
    expect(menu).to_be_hidden()
    expect(bundled.locator(".cursor")).to_be_focused()  # looks closer
    bundled.keyboard.press("Escape")
    bundled.keyboard.press("Control+Home")
    for _ in range(10):
        bundled.keyboard.press("ArrowRight")
    bundled.keyboard.press("Alt+m")
    expect(menu.get_by_role("menuitem").first).to_be_focused()
    bundled.keyboard.press("Escape")
    expect(menu).to_be_hidden()
    bundled.keyboard.press("Alt+m")
    bundled.keyboard.press("Enter")
    written(bundled)
    assert text_of(bundled, "1.1")[:10] == before[:10]
    assert len(text_of(bundled, "1.1")) == 70
