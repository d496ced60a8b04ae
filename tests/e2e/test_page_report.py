"""What the page says of copies and inventions, and the slider from gibberish to verse."""

import re

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.conftest import LiveServer
from tests.e2e.conftest import begin, colour, text_of, written


@pytest.fixture
def wrote(bundled: Page) -> Page:
    """600 characters of the bundled model."""
    begin(bundled, "ROMEO:\n", seed="4", max_new_tokens="600")
    bundled.click("#write")
    written(bundled)
    return bundled


def generation(server: LiveServer) -> dict[str, list[dict[str, object]]]:
    """The API's answer to the request of `wrote`."""
    body = {"prompt": "ROMEO:\n", "seed": 4, "max_new_tokens": 600, "top_k": None, "stream": False, "report": True}
    answer: dict[str, list[dict[str, object]]] = httpx.post(f"{server.url}/generate", json=body).json()
    return answer


def test_invented_words_are_marked_while_the_text_comes(wrote: Page, bundled_server: LiveServer) -> None:
    colour(wrote, "invented")
    [report] = generation(bundled_server)["reports"]
    invented = report["words"]["invented"]  # type: ignore[index]
    assert invented
    shown = "".join(wrote.locator(".document .tint5").all_inner_texts())
    assert shown == "".join(word["word"] for word in invented)
    expect(wrote.locator("#legend li:visible")).to_have_count(2)
    expect(wrote.locator("#sentence")).to_contain_text("made them up")
    back = 600 - 1 - invented[-1]["start"]
    wrote.click("#look")
    for _ in range(back):
        wrote.keyboard.press("ArrowLeft")
    expect(wrote.locator("#inspector")).to_contain_text(f"“{invented[-1]['word']}” is invented")


def test_copies_are_marked_from_their_beginning(bundled: Page, bundled_server: LiveServer) -> None:
    """At temperature 0 the model soon says what it has read."""
    bundled.locator("#temperature").fill("0")
    begin(bundled, "ROMEO:\n", seed="4", max_new_tokens="600")
    colour(bundled, "copied")
    bundled.click("#write")
    written(bundled)
    body = {"prompt": "ROMEO:\n", "temperature": 0, "max_new_tokens": 600, "stream": False, "report": True}
    [report] = httpx.post(f"{bundled_server.url}/generate", json=body).json()["reports"]
    covered = [0] * 600
    for at, length in enumerate(report["copies"]["lengths"]):
        for place in range(at - length + 1, at + 1):
            covered[place] = max(covered[place], length)
    shown = bundled.evaluate(
        """() => [...document.querySelectorAll(".line")].flatMap((line) => [
            ...[...line.querySelectorAll("span.written")].flatMap((span) =>
                [...span.textContent].map(() => Number(/tint(\\d)/.exec(span.className)[1]))),
            ...(line.dataset.break ? [Number(/tint(\\d)/.exec(line.dataset.break)[1])] : []),
        ])"""
    )
    assert shown == [sum(length > bound for bound in (9, 19, 29, 49, 99)) for length in covered]
    assert max(shown) >= 1


def test_the_panel_says_what_was_found_in_both_languages(wrote: Page, bundled_server: LiveServer) -> None:
    wrote.click("#tab-report")
    panel = wrote.locator("#report-panel")
    expect(panel.locator("li")).to_have_count(4)
    expect(panel.locator(".facts > div")).to_have_count(3)
    expect(panel.locator(".facts")).to_contain_text("real text:")
    [report] = generation(bundled_server)["reports"]
    longest = max(report["copies"]["runs"], key=lambda run: run["end"] - run["start"])  # type: ignore[index]
    copied = text_of(wrote)[len("ROMEO:\n") :][longest["start"] : longest["end"]].strip()
    expect(panel.locator(".found").last).to_contain_text("“" + re.sub("\n+", " / ", copied) + "”")
    panel.locator("summary").click()
    expect(panel.locator("tbody tr").first).to_contain_text("inside copies of 20")
    expect(panel).not_to_contain_text("{")
    before = panel.inner_text()
    wrote.click("#report-button")  # now of all the text, the prompt too
    expect(panel).to_contain_text(f"Of these {len(text_of(wrote))} characters")
    assert panel.inner_text() != before
    wrote.get_by_role("link", name="Español").click()
    expect(wrote.locator("html[lang=es]")).to_be_attached()
    wrote.click("#report-button")  # its tab is open, as it was
    expect(wrote.locator("#report-panel")).to_contain_text("palabras inventadas")


def test_any_text_can_be_looked_at(bundled: Page) -> None:
    begin(bundled, "¡Señor 😀! <b>" + "zzzz " * 50)
    bundled.click("#tab-report")
    bundled.click("#report-button")
    expect(bundled.locator("#report-panel li")).to_have_count(4)
    expect(bundled.locator("#report-panel")).to_contain_text("loop")


def test_the_slider_leads_from_gibberish_to_verse(wrote: Page, bundled_server: LiveServer) -> None:
    wrote.click("#tab-growth")
    expect(wrote.locator("#growth-slider")).to_be_enabled()
    query: dict[str, str | float] = {"prompt": "ROMEO:\n", "seed": 4, "temperature": 0.8}
    answer = httpx.get(f"{bundled_server.url}/snapshots", params=query).json()
    snapshots = answer["snapshots"]
    expect(wrote.locator(".stage")).to_have_count(len(snapshots))
    grown = wrote.locator(".stage[aria-current] .grown")
    expect(grown).to_have_text("ROMEO:\n" + snapshots[-1]["text"])
    expect(wrote.locator("#desk")).to_be_hidden()  # the stage is all of the page
    wrote.locator("#growth-slider").focus()
    wrote.keyboard.press("Home")
    expect(grown).to_have_text(re.compile(re.escape(snapshots[0]["text"].split("\n")[0])))
    expect(wrote.locator("#growth output")).to_have_text("after 0 steps")
    expect(wrote.locator("#growth .mark")).to_have_count(1)
    wrote.keyboard.press("ArrowRight")
    expect(wrote.locator("#growth-slider")).to_have_attribute(
        "aria-valuetext", f"after {snapshots[1]['step']} steps"
    )
    wrote.get_by_role("button", name="▶ Play").click()
    expect(wrote.locator("#growth output")).to_have_text("after 0 steps")
    expect(wrote.locator("#growth output")).to_have_text(f"after {snapshots[-1]['step']} steps")
    expect(wrote.locator(".stage").last).to_be_in_viewport(ratio=0.9)  # what plays is seen, on a small screen, too
    wrote.click("#write")  # which is seen in the text
    expect(wrote.locator("#desk")).to_be_visible()
