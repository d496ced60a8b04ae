"""What the page shows of the model's choices, and what can be done with it: the inspector, forks, sharing."""

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import LiveServer
from tests.e2e.conftest import BUNDLED, begin, colour, opened, setting, text_of, written

PROMPT = "ROMEO:\n"


@pytest.fixture
def wrote(bundled: Page) -> Page:
    """300 characters of the bundled model, whatever its seed chooses."""
    begin(bundled, PROMPT, seed="4", max_new_tokens="300")
    bundled.click("#write")
    written(bundled)
    return bundled


def inspect(page: Page, back: int) -> None:
    """Inspect the character `back` places before the end, by keyboard."""
    page.click("#look")
    for _ in range(back):
        page.keyboard.press("ArrowLeft")
    expect(page.locator(".candidate").first).to_be_visible()


def details(server: LiveServer, **fields: object) -> list[dict[str, object]]:
    """What the API says of each of the characters that `wrote` has written."""
    body = {
        "prompt": PROMPT,
        "seed": 4,
        "max_new_tokens": 300,
        "details": True,
        "stream": False,
        "top_k": None,
    } | fields
    chars: list[dict[str, object]] = httpx.post(f"{server.url}/generate", json=body).json()["samples"][0]["chars"]
    return chars


def set_slider(page: Page, name: str, value: str) -> None:
    setting(page, name, value)


@pytest.mark.parametrize(
    ("mode", "bounds", "of"),
    [
        ("probability", [0.9, 0.5, 0.2, 0.05, 0.01], lambda one: one["prob"]),
        ("rank", [1, 2, 3, 5, 10], lambda one: -one["rank"]),
    ],
)
def test_every_character_has_its_tint(
    wrote: Page, bundled_server: LiveServer, mode: str, bounds: list[float], of: object
) -> None:
    colour(wrote, mode)
    chars = details(bundled_server)
    shown = wrote.evaluate(
        """() => [...document.querySelectorAll(".line")].flatMap((line) => [
            ...[...line.querySelectorAll("span.written")].flatMap((span) =>
                [...span.textContent].map((c) => [c, Number(/tint(\\d)/.exec(span.className)[1])])),
            ...(line.dataset.break ? [["\\n", Number(/tint(\\d)/.exec(line.dataset.break)[1])]] : []),
        ])"""
    )
    sign = 1 if mode == "probability" else -1
    expected = [
        [one["char"], next((i for i, bound in enumerate(bounds) if of(one) >= sign * bound), 5)]  # type: ignore[operator]
        for one in chars
    ]
    assert shown == expected
    expect(wrote.locator("#legend li")).to_have_count(6)
    wrote.click("#more")
    wrote.check("#underlines")
    line = "getComputedStyle(document.querySelector('.written.tint{}')).textDecorationStyle"
    assert len({wrote.evaluate(line.format(step)) for step in (2, 3, 4)}) == 3  # a channel that is not colour
    colour(wrote, "off")
    expect(wrote.locator(".document [class*=tint]")).to_have_count(0)


def test_a_line_in_the_margin_says_from_where_the_model_sees_and_no_mark_fades(wrote: Page) -> None:
    """Colours of text that had left the model's window faded: just the marks that a reader of it wanted to see."""
    text = text_of(wrote)
    seen = wrote.locator(".line[data-seen]")
    expect(seen).to_have_count(1)
    expect(seen).to_have_attribute("data-seen", "the model sees from here")
    number = wrote.evaluate("[...document.querySelectorAll('.line')].findIndex((line) => 'seen' in line.dataset)")
    assert number == text[: len(text) - 256].count("\n")
    borders = wrote.evaluate(
        "[...document.querySelectorAll('.line')].map((line) => getComputedStyle(line).borderLeftColor)"
    )
    assert set(borders[:number]) == {"rgba(0, 0, 0, 0)"}
    assert "rgba(0, 0, 0, 0)" not in borders[number:]
    grounds = (
        "[...document.querySelectorAll('.written.tint5')].map((span) => getComputedStyle(span).backgroundColor)"
    )
    assert len(set(wrote.evaluate(grounds))) == 1
    begin(wrote, "A short text")
    expect(seen).to_have_count(0)


def test_the_inspector_shows_what_the_model_considered(wrote: Page, bundled_server: LiveServer) -> None:
    inspect(wrote, 20)
    one = details(bundled_server, alternatives=65)[-21]
    cursor = wrote.locator(".cursor")
    expect(cursor).to_be_focused()
    expect(cursor).to_have_attribute(
        "aria-label", re.compile(r"\d+(\.\d)? percent, (first|second|third|\d+(st|nd|rd|th)) choice")
    )
    expect(wrote.locator("#inspector .reason")).to_contain_text("the model expected")
    expect(wrote.locator(".candidate .glyph")).to_have_count(5 + int(one["rank"] > 5))  # type: ignore[operator]
    wrote.get_by_role("button", name="More letters").click()
    names = wrote.locator(".candidate .glyph").all_inner_texts()
    shown = {" ": "␣", "\n": "↵"}
    likeliest = [shown.get(a["char"], a["char"]) for a in one["alternatives"][:10]]  # type: ignore[index]
    assert names[:10] == likeliest
    wins = wrote.locator(".candidate", has_text="⚄")
    expect(wins).to_have_count(1)  # the draw, replayed in the page, chooses what the model wrote
    expect(wins).to_have_class(re.compile("chosen"))


def test_the_replayed_draw_chooses_every_character(wrote: Page) -> None:
    """The winner, recomputed in the page from the seed, is each character that the model wrote."""
    wrote.click("#look")
    for _ in range(60):
        expect(wrote.locator(".candidate.chosen", has_text="⚄")).to_have_count(1)
        wrote.keyboard.press("ArrowLeft")


def test_sliders_reshape_the_bars_without_the_model(wrote: Page, bundled_server: LiveServer) -> None:
    inspect(wrote, 20)
    steps = bundled_server.engine.steps
    width = "parseFloat(document.querySelector('.candidate .final').style.width)"
    set_slider(wrote, "temperature", "0.3")
    cold = wrote.evaluate(width)
    set_slider(wrote, "temperature", "1.5")
    assert wrote.evaluate(width) < cold
    set_slider(wrote, "temperature", "1")
    set_slider(wrote, "top_k", "2")
    cut = wrote.locator(".candidate.cut").count()
    assert cut >= 3
    set_slider(wrote, "temperature", "0")
    expect(wrote.locator(".candidate.cut")).to_have_count(wrote.locator(".candidate").count() - 1)
    assert bundled_server.engine.steps == steps


def test_a_slider_shows_when_the_choice_would_flip_and_is_right(wrote: Page, bundled_server: LiveServer) -> None:
    """What the page shows for another temperature is what the server then writes, as long as the texts agree."""
    colder = details(bundled_server, temperature=0.2)
    place = next(
        i for i, (a, b) in enumerate(zip(details(bundled_server), colder, strict=True)) if a["char"] != b["char"]
    )
    inspect(wrote, 300 - 1 - place)
    expect(wrote.locator(".flip")).to_have_count(0)
    set_slider(wrote, "temperature", "0.2")
    shown = {" ": "␣", "\n": "↵"}
    predicted = str(colder[place]["char"])
    expect(wrote.locator(".flip")).to_contain_text(f"chooses {shown.get(predicted, predicted)}")


def test_hovering_and_tapping_show_the_same(wrote: Page) -> None:
    box = wrote.locator(".line .written").last.bounding_box()
    assert box is not None
    wrote.mouse.move(box["x"] + 3, box["y"] + box["height"] / 2)
    expect(wrote.locator("#inspector .title")).to_be_visible()
    expect(wrote.locator(".candidate").first).to_be_visible()
    hovered = wrote.text_content("#inspector .title") or ""
    wrote.mouse.move(5, 5)
    wrote.mouse.move(1000, 300)  # to the lens, where what it shows can be used
    expect(wrote.locator("#inspector .title")).to_have_text(hovered)
    wrote.keyboard.press("Escape")
    expect(wrote.locator("#inspector")).to_be_hidden()
    wrote.mouse.click(box["x"] + 3, box["y"] + box["height"] / 2)
    expect(wrote.locator("#inspector .title")).to_have_text(hovered)
    wrote.keyboard.press("Escape")
    wrote.click("#look")
    wrote.mouse.click(box["x"] + 3, box["y"] + box["height"] / 2)
    expect(wrote.locator("#inspector .title")).to_have_text(hovered)
    wrote.keyboard.press("Escape")
    expect(wrote.locator("#inspector")).to_be_hidden()
    expect(wrote.locator(".active .document")).to_have_attribute("contenteditable", "true")


def test_choosing_a_candidate_forks_and_nothing_is_lost(wrote: Page) -> None:
    before = text_of(wrote)
    inspect(wrote, 100)
    place = len(before) - 101
    other = wrote.locator(".candidate:not(.chosen)").first
    character = {"␣": " ", "↵": "\n"}.get(
        other.locator(".glyph").inner_text(), other.locator(".glyph").inner_text()
    )
    wrote.keyboard.press("Enter")  # from the text to the candidates
    expect(wrote.locator("#inspector button:focus")).to_have_count(1)
    other.focus()
    wrote.keyboard.press("Enter")
    written(wrote)
    fork = text_of(wrote, "1.1")
    assert fork[: place + 1] == before[:place] + character
    assert len(fork) == place + 1 + 300
    wrote.get_by_role("button", name="Text 1", exact=True).click()
    assert text_of(wrote) == before
    wrote.click("#side-by-side")
    assert (text_of(wrote), text_of(wrote, "1.1")) == (before, fork)
    wrote.get_by_role("button", name="Close text 1.1").click()
    expect(wrote.locator("article")).to_have_count(1)
    wrote.click("#reopen")
    assert text_of(wrote, "1.1") == fork


def test_writing_on_from_a_character_has_another_seed(wrote: Page) -> None:
    before = text_of(wrote)
    wrote.fill("#seed", "5")
    inspect(wrote, 100)
    wrote.get_by_role("button", name="Roll again from here").click()
    written(wrote)
    assert text_of(wrote, "1.1")[: len(before) - 101] == before[:-101]
    assert text_of(wrote, "1.1")[: len(before)] != before


def share_link(page: Page) -> str:
    page.click("#share-open")
    expect(page.locator("[name=link]")).not_to_have_value("")
    link = page.input_value("[name=link]")
    page.get_by_role("button", name="Close", exact=True).click()
    return link


def test_a_link_writes_the_same_text_again_and_says_so(wrote: Page, browser: Browser) -> None:
    link = share_link(wrote)
    assert len(link) < 1500
    with opened(browser, link) as other:
        expect(other.locator("#verdict")).to_have_text("Replayed from the link: every character matches.")
        assert text_of(other) == text_of(wrote)
        assert other.url == link  # the address can be forwarded
        other.reload()
        assert text_of(other) == text_of(wrote)
        expect(other.locator("article")).to_have_count(1)  # nothing is written a second time
    wrong = link[:-6] + ("AAAAAA" if link[-6:] != "AAAAAA" else "BBBBBB")
    with opened(browser, wrong) as other:
        expect(other.locator("#error, #verdict[data-same=false]").filter(visible=True).first).not_to_be_empty()


def test_a_link_to_another_text_says_where_it_differs(wrote: Page, browser: Browser) -> None:
    """The same link with a seed that is not the one that wrote the text."""
    changed = wrote.evaluate(
        """async (link) => {
            const { fromFragment, toFragment } = await import("/static/editor/share_format.js");
            const { samples, ...rest } = await fromFragment(link.split("#")[1]);
            const runs = samples.map(() => ({ cells: [..."some other text"].map((c) => ({ c })) }));
            return toFragment({ ...rest, runs });
        }""",
        share_link(wrote),
    )
    with opened(browser, f"{wrote.url}#{changed}") as other:
        expect(other.locator("#verdict")).to_contain_text("differs from about character 1 on")


def test_a_stopped_text_is_shared_as_far_as_it_came(bundled: Page, browser: Browser) -> None:
    begin(bundled, PROMPT, seed="9", max_new_tokens="100000", num_samples="2")
    bundled.click("#write")
    expect(bundled.locator("#counters")).to_have_text(re.compile(r"^\d+,\d\d\d "))
    bundled.click("#stop")
    bundled.click("#side-by-side")
    with opened(browser, share_link(bundled)) as other:
        expect(other.locator("#verdict")).to_contain_text("every character matches")


def test_text_and_json_are_saved_and_the_receipt_verifies(wrote: Page, tmp_path: Path) -> None:
    wrote.click("#share-open")
    with wrote.expect_download() as text:
        wrote.get_by_role("button", name="Save .txt").click()
    assert text.value.path().read_text(encoding="utf-8") == text_of(wrote) + "\n"
    with wrote.expect_download() as answer:
        wrote.get_by_role("button", name="Save .json").click()
    answer.value.save_as(tmp_path / "answer.json")
    content = json.loads((tmp_path / "answer.json").read_text(encoding="utf-8"))
    assert content["document"] == text_of(wrote)
    command = [sys.executable, "-m", "model.verify", str(tmp_path / "answer.json"), f"--checkpoint={BUNDLED}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "identical\n"
    wrote.get_by_role("button", name="Copy text").click()
    expect(wrote.locator("#share [role=status]")).to_have_text("Copied.")
    assert wrote.evaluate("navigator.clipboard.readText()") == text_of(wrote)


def test_the_card_explains_the_model(bundled: Page, bundled_server: LiveServer) -> None:
    bundled.click("#tab-model")
    panel = bundled.locator("#card-panel")
    card = httpx.get(f"{bundled_server.url}/info").json()
    for fact in (card["checkpoint"], f"{card['parameters']:,}", "Tiny Shakespeare", card["numerics"]):
        expect(panel).to_contain_text(fact)
    expect(panel.locator(".baselines li")).to_have_count(len(card["baselines"]) + 1)
    expect(panel.locator("svg polyline.val")).to_be_visible()
