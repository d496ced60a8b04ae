"""The page that verifies: receipts and links, right ones and wrong ones, are written again on this device."""

import copy
import json
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, expect

from tests.conftest import LiveServer
from tests.e2e.conftest import begin, opened, written
from tests.e2e.test_page_people import check, check_light_and_dark

IDENTICAL = "Identical: every character matches."
REQUEST: dict[str, Any] = {
    "prompt": "What light",
    "seed": 11,
    "max_new_tokens": 80,
    "temperature": 0.9,
    "top_k": 20,
    "top_p": 0.95,
    "min_p": 0.01,
    "num_samples": 3,
    "stop": ["e", "zz"],
}


def verify(page: Page, given: Any) -> str:
    """What the page says of a receipt, or of a text in its field."""
    page.fill("#verify-input", given if isinstance(given, str) else json.dumps(given))
    page.click("[name=verify]")
    said = page.locator(".outcome:not(:empty), #verify-error:not(:empty)")
    expect(said).to_have_count(1)
    return said.inner_text()


def changed(answer: dict[str, Any], path: str, value: Any = None) -> dict[str, Any]:
    """An answer with another value of a field, named as the page names it, or without it."""
    result = copy.deepcopy(answer)
    *parts, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = result
    for part in parts:
        place = place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return result


def test_a_receipt_is_identical_or_it_is_said_where_it_differs(
    browser: Browser, server: LiveServer, tmp_path: Path
) -> None:
    answer = httpx.post(f"{server.url}/generate", json=REQUEST | {"stream": False}).json()
    receipt = answer["receipt"]
    samples = answer["samples"]
    assert "stop" in [sample["finish_reason"] for sample in samples]
    (tmp_path / "receipt.json").write_text(json.dumps(answer))
    with opened(browser, f"{server.url}/verify") as page:
        page.locator("[type=file]").set_input_files(tmp_path / "receipt.json")
        expect(page.locator(".outcome")).to_have_text(IDENTICAL)
        expect(page.locator(".outcome")).to_have_class("outcome same")
        expect(page.locator(".file")).to_have_text("receipt.json")
        page.evaluate(
            """(text) => {
                const data = new DataTransfer();
                data.items.add(new File([text], "dropped.json"));
                document.querySelector("header").dispatchEvent(
                    new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }),
                );
            }""",
            json.dumps(changed(answer, "receipt.seed")),
        )
        expect(page.locator("#verify-error")).to_have_text("The receipt is damaged: receipt.seed is missing.")
        assert verify(page, receipt) == IDENTICAL

        text = samples[1]["text"]
        wrong = changed(answer, "samples.1.text", text[:1] + "#" + text[2:])
        said = verify(page, wrong)
        there = json.dumps(wrong["samples"][1]["text"][1:25])
        assert said == f"Sample 2: Different from character 2 on: {there} there, {json.dumps(text[1:25])} here."
        check_light_and_dark(page, "different")
        said = verify(page, changed(answer, "receipt.samples.0.sha256", "0" * 64))
        assert said == "Sample 1: The text is the same, but the receipt has the SHA-256 of another one."
        said = verify(page, changed(receipt, "samples.2.sha256", "0" * 64))
        assert said.startswith("Sample 3: Another text.")
        assert verify(page, changed(receipt, "seed", 12)).startswith("Sample 1: Another text.")

        wrongs = {
            "checkpoint": ("", 'receipt.checkpoint is "", where there should be 64 digits from 0 to 9 and a to f'),
            "numerics": (7, "receipt.numerics is 7, where there should be a text"),
            "seed": (
                -1,
                "receipt.seed is -1, where there should be a whole number from 0 to 9,007,199,254,740,991",
            ),
            "samples": ([], "receipt.samples is [], where there should be a list of 3 samples"),
            "samples.1.index": (7, "receipt.samples.1.index is 7, where there should be 1"),
            "parameters": ("x", 'receipt.parameters is "x", where there should be an object'),
            "parameters.prompt": (
                ["x" * 99],
                'receipt.parameters.prompt is ["' + "x" * 38 + "…, where there should",
            ),
            "parameters.temperature": (
                "0.8",
                'receipt.parameters.temperature is "0.8", where there should be a num',
            ),
            "parameters.top_k": (
                0,
                "receipt.parameters.top_k is 0, where there should be a whole number from 1 on",
            ),
            "parameters.top_p": (
                1.5,
                "receipt.parameters.top_p is 1.5, where there should be a number from 0 to 1",
            ),
            "parameters.num_samples": (17, "receipt.parameters.num_samples is 17, where there should be a whole"),
            "parameters.stop": ("e", 'receipt.parameters.stop is "e", where there should be a list of texts'),
        }
        for field, (value, sentence) in wrongs.items():
            said = verify(page, changed(answer, f"receipt.{field}", value))
            assert said.startswith(f"The receipt is damaged: {sentence}"), said
        for field in ("seed", "parameters.stop", "samples.0.sha256"):
            said = verify(page, changed(receipt, field))
            assert said == f"The receipt is damaged: {field} is missing."
        said = verify(page, changed(receipt, "parameters.prompt", "Ñ"))
        assert said == 'The receipt is damaged: its prompt has "Ñ", which this model cannot read.'
        here = receipt["checkpoint"][:12]
        said = verify(page, changed(receipt, "checkpoint", "f" * 64))
        assert said.startswith(f"It was written by another model, ffffffffffff, and here is {here}: ")
        said = verify(page, changed(receipt, "numerics", "cuda-bf16"))
        assert said.startswith("It was written in the arithmetic cuda-bf16, and a browser has cpu-int8 only: ")
        assert verify(page, json.dumps(receipt)[:-9]).startswith("The receipt is damaged or not complete, so it ")
        assert verify(page, {"document": "x", "samples": []}).startswith("This file has the text but no receipt")
        assert verify(page, " \n").startswith("There is nothing to verify yet")
        assert verify(page, "What light").startswith("This is neither a receipt nor a link to a text")
        assert (
            verify(page, "https://example.com/#s=abc") == "The link is damaged or not complete: ask for it again."
        )
        check(page, "error")
        assert verify(page, answer) == IDENTICAL  # what was wrong before leaves nothing behind
        expect(page.locator("#verify-input")).not_to_have_attribute("aria-invalid", "true")


def test_links_are_verified_and_what_takes_long_can_be_stopped(page: Page) -> None:
    begin(page, "What light", seed="7", max_new_tokens="200")
    page.click("#write")
    written(page)
    page.click("#share-open")
    links = []
    for name in ("link", "short-link"):
        field = page.locator(f"[name={name}]")
        expect(field).not_to_have_value("")
        links.append(field.input_value())
    page.get_by_role("link", name="Verify a receipt or a link").click()
    expect(page.locator("h2")).to_have_text("Verify a text")
    for link in links:
        assert verify(page, link) == IDENTICAL
    long = {"prompt": "What light", "max_new_tokens": 10**9, "temperature": 1, "num_samples": 1, "stop": []}
    parameters = long | {"top_k": None, "top_p": None, "min_p": None}
    card = json.loads(page.locator("#card").text_content() or "")
    samples = [{"index": 0, "sha256": "0" * 64}]
    receipt = {"checkpoint": card["identity"], "numerics": "cpu-int8", "seed": 1, "parameters": parameters}
    page.fill("#verify-input", json.dumps(receipt | {"samples": samples}))
    page.click("[name=verify]")
    page.click("[name=stop]")
    expect(page.locator(".outcome")).to_have_text("Stopped; nothing was compared.")
    expect(page.locator("[name=verify]")).to_be_focused()
    with page.expect_navigation():
        page.click("nav a[hreflang=es]")
    expect(page.locator("[name=verify]")).to_have_text("Verificar")
    page.goto(links[1].replace("/#", "/verify?lang=es#"))  # a link may stand in this page's address, too
    expect(page.locator(".outcome")).to_have_text("Idéntico: coinciden todos los caracteres.")
