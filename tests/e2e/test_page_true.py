"""What the page says is true when it is read: stale figures are called so, results are in view, winners show."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import LiveServer
from tests.e2e.conftest import begin, colour, opened, written

TEXTS = json.loads((Path(__file__).parents[2] / "templates" / "texts.json").read_text(encoding="utf-8"))


@pytest.fixture
def wrote(bundled: Page) -> Page:
    """300 characters of the bundled model."""
    begin(bundled, "ROMEO:\n", seed="4", max_new_tokens="300")
    bundled.click("#write")
    written(bundled)
    return bundled


def edit_beginning(page: Page) -> None:
    """Types a character before all others."""
    page.click(".active .document")
    page.keyboard.press("Control+Home")
    page.keyboard.type("O")


def test_what_was_found_in_a_text_is_called_stale_once_the_text_is_another(wrote: Page) -> None:
    """A report, the card of a training run, colours and a link's verdict went on as if they were of the text
    that was there then. Each now knows what it is about and says so when that is gone, not when it is back."""
    wrote.click("#tab-growth")
    expect(wrote.locator("#growth-slider")).to_be_enabled()
    wrote.click("#tab-report")
    stale = wrote.locator("#report-panel .stale")
    growth = wrote.locator("#growth [role=status]")
    edited = wrote.locator("#edited")
    expect(wrote.locator("#report-panel li")).to_have_count(4)
    expect(stale).to_be_hidden()
    expect(edited).to_be_empty()
    edit_beginning(wrote)
    wrote.click("#tab-report")  # the click into the text showed the letter there
    expect(stale).to_be_visible()
    expect(stale).to_contain_text("earlier text")
    expect(edited).to_contain_text("edited since the model wrote it")
    wrote.keyboard.press("Control+z")
    expect(stale).to_be_hidden()
    expect(edited).to_be_empty()
    wrote.locator("#temperature").fill("1.2")
    expect(growth).to_contain_text("have changed since")
    wrote.locator("#temperature").fill("0.8")
    expect(growth).to_contain_text("not the one that writes your text")
    wrote.click(".active .document")
    wrote.keyboard.press("Control+z")  # what the model wrote
    wrote.click("#redo")
    edit_beginning(wrote)
    wrote.click("#tab-report")
    wrote.click("#report-button")
    expect(wrote.locator("#report-panel li")).to_have_count(4)
    expect(stale).to_be_hidden()
    wrote.click("#look")
    for _ in range(3):
        wrote.keyboard.press("ArrowRight")
    wrote.keyboard.press("End")
    wrote.keyboard.press("ArrowDown")
    expect(wrote.locator("#inspector")).to_contain_text("has been changed since")


LINK = """async (parameters) => {
    const { identity } = JSON.parse(document.getElementById("card").textContent);
    const { toShortFragment } = await import("/static/editor/share_format.js");
    const runs = [{ cells: [{ c: "a" }] }];
    const request = { prefix: "ROMEO:", seed: 4, checkpoint: identity, numerics: "cpu-int8", runs, parameters };
    return toShortFragment(request);
}"""


def test_settings_beyond_the_sliders_come_with_a_link(page: Page, browser: Browser) -> None:
    """The text was written with them, and the sliders and what is said of a letter went by their ends."""
    values = {"temperature": 2.5, "top_k": None, "top_p": 0.01, "min_p": 0.8}
    fragment = page.evaluate(LINK, values | {"num_samples": 1})
    with opened(browser, f"{page.url}#{fragment}") as other:
        expect(other.locator("#verdict")).not_to_be_empty()
        for name in ("temperature", "top_p", "min_p"):
            assert float(other.input_value(f"#{name}")) == values[name]
            assert float(other.input_value(f"#{name}-exact")) == values[name]


def test_the_verdict_on_a_link_is_in_view_and_goes_with_the_first_edit(wrote: Page, browser: Browser) -> None:
    """It stood above the text, which the page had followed to its end. Now it is in the bar that stays in view."""
    wrote.click("#share-open")
    expect(wrote.locator("[name=link]")).not_to_have_value("")
    link = wrote.input_value("[name=link]")
    with opened(browser, "about:blank") as page:
        page.set_viewport_size({"width": 1000, "height": 400})
        page.goto(link)
        verdict = page.locator("#verdict")
        expect(verdict).to_have_text("Replayed from the link: every character matches.")
        page.mouse.wheel(0, 5000)
        expect(verdict).to_be_in_viewport(ratio=1)
        expect(verdict).to_have_attribute("role", "status")
        edit_beginning(page)
        expect(verdict).to_be_empty()


def test_sharing_while_the_model_writes_speaks_of_no_edits(page: Page, server: LiveServer) -> None:
    """What had come but was not shown yet counted as an edit. Now all that has come is shown first."""
    begin(page, "ROMEO:", max_new_tokens="1000")
    server.gate.close()
    page.click("#write")
    said = page.locator("#share [role=status]")
    for _ in range(3):
        server.gate.step()
        server.gate.step()
        expect(page.locator("#state")).to_have_attribute("data-state", "writing")
        page.click("#share-open")
        expect(said).to_have_text("The model is still writing: the link holds what it has written so far.")
        page.keyboard.press("Escape")
        expect(page.locator("#share")).to_be_hidden()
    page.click("#stop")
    page.click("#share-open")
    expect(said).to_be_empty()
    page.keyboard.press("Escape")
    edit_beginning(page)
    page.click("#share-open")
    expect(said).to_contain_text("not what was changed after it")
    server.gate.open()


@pytest.mark.parametrize(
    ("noise", "sums", "tie"),
    [
        ([0.52, 0.54], ["0.52", "0.54"], False),
        ([0.5004, 0.5001], ["0.5004", "0.5001"], False),
        ([-0.5, -0.5], ["−0.5", "−0.5"], True),
        ([1.0, 0.2], ["1.0", "0.2"], False),
    ],
)
def test_scores_show_who_won(page: Page, noise: list[float], sums: list[str], tie: bool) -> None:
    """Two candidates stood there with -0.5 each, and one had won. There are now as many digits as it takes."""
    shown = page.evaluate(
        """async (noise) => {
            const { roundScores } = await import("/static/inspector/candidates.js");
            const best = noise.indexOf(Math.max(...noise));
            const scores = roundScores([0, 0], noise, [0, 1], best);
            const { number } = await import("/static/ui/i18n.js");
            const sums = [0, 1].map((id) => scores.of(id)).map(({ sum, digits }) => number(sum, digits, digits));
            return { sums, tie: scores.tie };
        }""",
        noise,
    )
    assert shown == {"sums": sums, "tie": tie}


@pytest.mark.parametrize(
    ("character", "name"),
    [
        ("\t", "TAB (U+0009)"),
        ("\u200d", "ZERO WIDTH JOINER (U+200D)"),
        ("\u00a0", "NO-BREAK SPACE (U+00A0)"),
        ("\ufeff", "ZERO WIDTH NO-BREAK SPACE (U+FEFF)"),
        ("\u00ad", "SOFT HYPHEN (U+00AD)"),
        ("\u0301", "A\u0301 (U+0041 U+0301)"),  # what stands on another character is one with it
        ("\x01", "U+0001"),
        ("\x1b", "ESCAPE (U+001B)"),
        ("\u200f", "RIGHT-TO-LEFT MARK (U+200F)"),
        ("\u202e", "RIGHT-TO-LEFT OVERRIDE (U+202E)"),
        ("\u2028", "LINE SEPARATOR (U+2028)"),
        ("\ue000", "U+E000"),
        ("\U000e0041", "U+E0041"),
        ("\ufffd", "REPLACEMENT CHARACTER (U+FFFD)"),
        ("é", "é"),
        ("א", "א"),
    ],
)
def test_a_character_that_cannot_be_seen_is_named(page: Page, character: str, name: str) -> None:
    """A tab or a zero-width joiner in "never seen" was a gap between two arrows."""
    begin(page, f"A{character}B")
    expect(page.locator("#unknown-list bdi").first).to_have_text(re.compile(f"^{re.escape(name)} → "))


@pytest.mark.parametrize("end", ["and then the", "no end. at all", "Whole."])
def test_a_screen_reader_hears_the_end_whole_or_not(page: Page, end: str) -> None:
    """What followed the last full stop was never said."""
    said = page.evaluate(
        """async (end) => {
            const { Announcer } = await import("/static/ui/live_region.js");
            const announcer = new Announcer(document.createElement("div"));
            announcer.add("One. ");
            announcer.add(end);
            announcer.finish("Done.");
            return [...announcer.region.children].map((p) => p.textContent);
        }""",
        end,
    )
    assert "".join(said).replace("Done.", "") == f"One. {end}"


def test_colours_panels_and_settings_survive_a_reload(browser: Browser, bundled_server: LiveServer) -> None:
    """The colour mode and open panels were lost; the settings too where storage is blocked or full."""
    refuse = "{ throw new DOMException('', 'SecurityError'); }"
    blocked = f"Object.defineProperty(window, 'sessionStorage', {{ get() {refuse} }})"
    full = "Storage.prototype.setItem = () => { throw new DOMException('', 'QuotaExceededError'); }"
    for script in ("", blocked, full):
        with opened(browser, "about:blank") as page:
            page.add_init_script(script)
            page.goto(bundled_server.url)
            colour(page, "rank")
            page.click("#tab-growth")
            page.fill("#seed", "4087029807")
            page.click("#more")
            page.check("#underlines")
            page.fill("#num_samples", "1.5")
            page.locator("#temperature").fill("0.3")
            page.reload()
            expect(page.locator("#colours [value=sure]")).to_be_checked()
            expect(page.locator("#measure")).to_have_value("rank")
            expect(page.locator("#legend li").first).to_contain_text("≤ 1")
            expect(page.locator("#tab-growth")).to_have_attribute("aria-selected", "true")
            expect(page.locator("#underlines")).to_be_checked()
            expect(page.locator("#seed")).to_have_value("4087029807")
            expect(page.locator("#num_samples")).to_have_value("1.5")  # as typed, to be corrected
            expect(page.locator("#temperature-value")).to_have_text("0.3")
            expect(page.locator("#growth-slider")).to_be_enabled()


PLURAL = re.compile(r"\{(\w+)((?:\|[^|}]*)+)\}")


def all_texts(language: str) -> dict[str, object]:
    """Those that the page's scripts show."""
    found: dict[str, object] = TEXTS[language]["script"] | TEXTS[language]["panels"]
    return found


@pytest.mark.parametrize("language", ["en", "es"])
def test_every_count_goes_with_its_noun(browser: Browser, server: LiveServer, language: str) -> None:
    """1 characters, 1 layers: texts had one form. They have those that Intl.PluralRules chooses among."""
    texts = {key: text for key, text in all_texts(language).items() if isinstance(text, str)}
    forms = {"en": 2, "es": 3}[language]
    for key, text in texts.items():
        for _, choices in PLURAL.findall(text):
            assert choices.count("|") == forms, key
    counted = {key: PLURAL.findall(text)[0][0] for key, text in texts.items() if PLURAL.search(text)}
    assert len(counted) > 25
    words = (
        "characters|words|lines|steps|layers|heads"
        if language == "en"
        else "caracteres|palabras|líneas|pasos|capas"
    )
    for key, text in texts.items():  # no noun after a number without its other form
        assert not re.search(rf"\{{\w+\}} ({words})\b", text), key
    with opened(browser, f"{server.url}/?lang={language}") as page:
        said = page.evaluate(
            """async (counts) => {
                const { t } = await import("/static/ui/i18n.js");
                return counts.map((count) => t("said_written", { count }));
            }""",
            [0, 1, 2, 1000, 12_345, 1_000_000],
        )
    assert (
        said
        == {
            "en": [
                "0 characters were written.",
                "1 character was written.",
                "2 characters were written.",
                "1,000 characters were written.",
                "12,345 characters were written.",
                "1,000,000 characters were written.",
            ],
            "es": [
                "Se escribieron 0 caracteres.",
                "Se escribió 1 carácter.",
                "Se escribieron 2 caracteres.",
                "Se escribieron 1000 caracteres.",
                "Se escribieron 12.345 caracteres.",
                "Se escribieron 1.000.000 de caracteres.",
            ],
        }[language]
    )
