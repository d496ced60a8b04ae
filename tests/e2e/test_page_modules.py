"""The page's modules against the Python that they mirror, run in the browser."""

import math
import unicodedata
from typing import Any

import numpy as np
from playwright.sync_api import Page

from model.sampling.noise import gumbel_noise
from model.sampling.sampler import Sampling, draw, softmax
from tests.tiny import VOCABULARY


def test_gumbel_noise_is_the_servers(page: Page) -> None:
    places = [(1337, 0, 0), (0, 3, 17), (2**53 - 1, 15, 99_999), (2**32, 1, 5), (2**32 - 1, 0, 1)]
    for seed, sample, position in places:
        here = page.evaluate(
            "async (place) => [...(await import('/static/engine/noise.js')).gumbelNoise(...place, 65)]",
            [seed, sample, position],
        )
        assert here == gumbel_noise(seed, sample, position, 1, 65)[0].tolist()


def test_the_same_settings_reshape_and_choose_alike(page: Page) -> None:
    random = np.random.default_rng(0)
    for case in range(60):
        logits = (4 * random.standard_normal((1, 65))).astype(np.float32)
        noise = gumbel_noise(case, 0, 0, 1, 65)
        temperature, top_k, top_p, min_p = (
            options[random.integers(len(options))]
            for options in ([0.0, 0.1, 0.8, 1.0, 2.0], [None, 1, 5, 65], [None, 0.3, 0.95], [None, 0.1])
        )
        settings: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
        sampling = Sampling(**settings)
        raw = softmax(logits[0]).tolist()
        chosen = page.evaluate(
            """async ([raw, settings, noise]) => {
                const { draw } = await import("/static/inspector/sampling.js");
                return draw(raw, settings, noise);
            }""",
            [raw, settings, noise[0].tolist()],
        )
        assert [chosen] == draw(logits, [sampling], noise if temperature else np.zeros_like(noise))
        if temperature:
            final = page.evaluate(
                """async ([raw, settings]) => {
                    const { applySettings } = await import("/static/inspector/sampling.js");
                    return applySettings(raw, settings).final;
                }""",
                [raw, settings],
            )
            assert math.isclose(sum(final), 1, rel_tol=1e-9)


def test_the_page_replaces_characters_as_the_server_does(page: Page) -> None:
    characters = [chr(i) for i in range(1, 0x3000) if unicodedata.category(chr(i)) not in ("Cs", "Cn")]
    characters = [c for c in characters if c not in VOCABULARY.characters] + list("😀日ﬁ①ℌ")
    here = page.evaluate(
        """async (characters) => {
            const { UnknownCharacters } = await import("/static/editor/unknown_characters.js");
            const unknown = new UnknownCharacters(JSON.parse(document.getElementById("card").textContent));
            return characters.map((c) => unknown.replacement(c));
        }""",
        characters,
    )
    there = [VOCABULARY.replacement(c) for c in characters]
    assert [(c, a, b) for c, a, b in zip(characters, here, there, strict=True) if a != b] == []


def test_events_are_parsed_however_the_network_cuts_them(page: Page) -> None:
    """Chunks are cut at every place; the events must come out the same (a chunk is not an event)."""
    same = page.evaluate(
        """async () => {
            const { EventParser } = await import("/static/api/sse.js");
            const raw = ": hello\\r\\n\\r\\nevent: text\\ndata: {\\"a\\": 1}\\nid: 7\\n\\n" +
                "data: x\\ndata:y\\n\\nid: 8\\n\\n";
            const parse = (parts) => {
                const parser = new EventParser();
                return JSON.stringify(parts.flatMap((part) => [...parser.push(part)]));
            };
            const whole = parse([raw]);
            const cuts = [...raw].map((_, i) => parse([raw.slice(0, i), raw.slice(i)]));
            cuts.push(parse([...raw]));
            return { whole, same: cuts.every((one) => one === whole) };
        }"""
    )
    assert same["whole"] == (
        '[{"event":"text","data":"{\\"a\\": 1}","id":"7"},{"event":"message","data":"x\\ny","id":"7"}]'
    )
    assert same["same"]


def test_lines_are_redrawn_as_if_drawn_anew(page: Page) -> None:
    """Random edits: drawn bit by bit as drawn at once, and every place leads back to its cell.

    Lines stand in blocks, which the browser paints once: none is empty, and none grows without a bound.
    """
    wrong = page.evaluate(
        """async () => {
            const { LineView } = await import("/static/editor/line_view.js");
            const { TextDocument, typed } = await import("/static/editor/document.js");
            const run = {};
            let state = 1;
            const random = (n) => (state = (Math.imul(state, 48271) >>> 0) % 2147483647) % n;
            const root = document.body.appendChild(document.createElement("div"));
            const other = document.body.appendChild(document.createElement("div"));
            const doc = new TextDocument(typed("A:\\nb"));
            const look = (cell) => (cell.run ? "written" : "typed");
            const lines = new LineView(root, doc, look);
            const wrong = [];
            for (let i = 0; i < 400; i++) {
                const start = random(3) ? random(doc.length + 1) : doc.length;
                const end = Math.min(doc.length, start + (random(3) ? 0 : random(6)));
                const text = ["x", "\\n", "", "AB:\\n\\ncd", "\\n\\n", "😀y"][random(6)];
                const cells = typed(text).map((cell) => (i % 2 ? { ...cell, run } : cell));
                const splices = random(8);
                if (splices && cells.length) doc.windowSize = random(doc.length + 1);
                if (splices) doc.splice(start, end, cells);
                else if (random(2)) doc.undo();
                else doc.redo();
                if (random(3) === 0 && doc.length) lines.setCursor(random(doc.length));
                else lines.setCursor(-1);
                if (lines.domText() !== doc.text) wrong.push([i, lines.domText(), doc.text]);
                lines.setCursor(-1);
                const anew = new TextDocument(doc.cells.slice());
                anew.windowSize = doc.windowSize;
                new LineView(other, anew, look);
                const index = random(doc.length + 1);
                if (lines.indexOf(...lines.domPosition(index)) !== index) wrong.push([i, "place", index, doc.text]);
                const classes = (line) => [...line.classList].sort().join(" ");
                const kinds = (element) => [...element.querySelectorAll(".line")].map(classes).join();
                const lengths = [...root.children].map((block) => block.matches(".block") && block.children.length);
                if (!lengths.every((length) => length >= 1 && length <= 64)) wrong.push([i, "blocks", lengths]);
                for (const [k, block] of [...root.children].entries()) { // a caret may stand between lines, too
                    const [line] = block.children;
                    const places = [lines.indexOf(root, k), lines.indexOf(block, 0), lines.indexOf(line, 0)];
                    if (new Set(places).size > 1) wrong.push([i, "between", places]);
                }
                if (lines.indexOf(root, root.children.length) !== doc.length) wrong.push([i, "end", doc.text]);
                if (kinds(root) !== kinds(other)) wrong.push([i, kinds(root), kinds(other), doc.text]);
            }
            root.remove();
            other.remove();
            return wrong.slice(0, 3);
        }"""
    )
    assert wrong == []
