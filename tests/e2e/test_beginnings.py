"""A model without line breaks begins with what it knows wherever no prompt is given; and names of any bytes."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser

from app.main import create_app
from app.settings import ServerSettings
from model.checkpoint import write_checkpoint
from model.cli import run
from model.sample import SampleSettings, sample
from model.verify import VerifySettings, verify
from model.vocabulary import Vocabulary
from tests.conftest import LiveServer
from tests.e2e.conftest import begin, opened, text_of, written
from tests.tiny import tiny_checkpoint


def folder_of(characters: str, folder: Path) -> Path:
    """A checkpoint, and one snapshot, whose vocabulary is these characters."""
    checkpoint = replace(tiny_checkpoint(vocab_size=len(characters)), vocabulary=Vocabulary(characters))
    for path in (folder, folder.with_name(f"{folder.name}-snapshots") / "000000"):
        path.mkdir(parents=True)
        write_checkpoint(path, checkpoint)
    return folder


def live(folder: Path) -> LiveServer:
    return LiveServer(create_app(ServerSettings(checkpoint=folder, device="cpu")))


@pytest.mark.parametrize(
    ("characters", "prompt"), [("ACGT", "A"), (" ,.abc", " "), ("。一二三", "。"), ("\n ab", "\n")]
)
def test_no_prompt_is_one_that_the_model_can_read(
    characters: str, prompt: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nobody gave a prompt, each route had a line break: a model of DNA, or of a text flattened to one line,
    answered its own examples with 422. The vocabulary has the rule now, and `/info` tells what it comes to.
    """
    folder = folder_of(characters, tmp_path / "dna")
    fields: dict[str, Any] = {"seed": 3, "max_new_tokens": 20, "stream": False}
    with live(folder) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        assert client.get("/info").json()["default_prompt"] == prompt
        answers = [
            client.post("/generate", json=fields | given) for given in ({}, {"prompt": ""}, {"prompt": prompt})
        ]
        answers.append(client.get("/generate", params=fields | {"stream": "false"}))
        assert [answer.status_code for answer in answers] == [200] * 4
        bodies = [answer.json() for answer in answers]
        assert len({body["samples"][0]["sha256"] for body in bodies}) == 1
        assert {body["parameters"]["prompt"] for body in bodies} == {prompt}
        assert {body["receipt"]["parameters"]["prompt"] for body in bodies} == {prompt}
        start = re.search(r"event: start\ndata: (.*)\n", client.post("/generate", json={"max_new_tokens": 5}).text)
        assert start is not None
        assert json.loads(start[1])["parameters"]["prompt"] == prompt
        completions = [
            client.post(
                "/v1/completions", json={"model": "dna", "seed": 3, "max_tokens": 20, "temperature": 0.8} | given
            )
            for given in ({}, {"prompt": ""}, {"prompt": None}, {"prompt": ["", prompt]})
        ]
        choices: list[str] = []
        for answer in completions:
            choices += [choice["text"] for choice in answer.json()["choices"]]
        assert choices == [bodies[0]["samples"][0]["text"]] * 5
        scores = [client.post("/score", json={"text": characters} | given) for given in ({}, {"prompt": prompt})]
        assert scores[0].status_code == 200
        assert scores[0].json() == scores[1].json()
        snapshots = client.get("/snapshots", params={"seed": 3, "max_new_tokens": 20}).json()["snapshots"]
        assert snapshots[0]["text"] == bodies[0]["samples"][0]["text"]
        described = client.get("/openapi.json").json()["components"]["schemas"]["GenerateRequest"]["properties"]
        assert "`default_prompt`" in described["prompt"]["description"]
    (tmp_path / "answer.json").write_text(answers[0].text, encoding="utf-8")
    assert run(VerifySettings, verify, [str(tmp_path / "answer.json"), f"--checkpoint={folder}"]) == 0
    arguments = [f"--out_dir={folder}", "--seed=3", "--num_samples=1", "--max_new_tokens=20", "--device=cpu"]
    capsys.readouterr()
    assert run(SampleSettings, sample, arguments) == 0
    assert f"seed 3\n{prompt}{bodies[0]['samples'][0]['text']}\n-----" in capsys.readouterr().out


def test_an_empty_page_is_written_on_and_looked_at(browser: Browser, tmp_path: Path) -> None:
    """The page sent a line break for an empty text, too: when a character was looked at."""
    with live(folder_of("ACGT", tmp_path / "dna")) as server:
        server.gate.open()
        with opened(browser, server.url) as page:
            begin(page, "", max_new_tokens="30")
            page.click("#write")
            written(page)
            assert re.fullmatch("[ACGT]{30}", text_of(page))
            with page.expect_response("**/score") as answered:
                page.locator(".document").focus()
                page.keyboard.press("Control+Home")
                page.keyboard.press("Alt+l")
            assert answered.value.status == 200


def test_the_page_suggests_the_form_that_the_model_knows(browser: Browser, tmp_path: Path) -> None:
    """As the server does: a letter and its marks are one, whichever form is typed."""
    cases = [
        ("n\u0303a", "\u00f1a\u00f1", "n\u0303an\u0303"),
        ("\u00f1a", "n\u0303a", "\u00f1a"),
        ("x a", "x\u0303a", "xa"),
    ]
    for number, (known, typed, expected) in enumerate(cases):
        folder = folder_of(known, tmp_path / f"{number}")
        with live(folder) as server, opened(browser, server.url) as page:
            begin(page, typed)
            page.click("#replace")
            assert text_of(page) == expected


@pytest.mark.parametrize(
    ("name", "shown"), [(b"espa\xf1ol", r"espa\xf1ol"), (b"a\nb", r"a\nb"), ("español ☃".encode(), "español ☃")]
)
def test_names_of_any_bytes_are_served(name: bytes, shown: str, tmp_path: Path) -> None:
    """A data set or a checkpoint whose name is not UTF-8 made `/`, `/info` and `/v1/models` answer 500: halves of
    surrogate pairs went into JSON. Records of before, which have them, are mended as they are read.
    """
    folder = folder_of("\n ab", tmp_path / os.fsdecode(name))
    record = {"dataset": {"name": os.fsdecode(name), "characters": 9}, "val_loss": 2.0}
    (folder / "training.json").write_text(json.dumps(record), encoding="utf-8")
    with live(folder) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        assert [client.get(path).status_code for path in ("/", "/info", "/metrics", "/v1/models")] == [200] * 4
        models = client.get("/v1/models").json()["data"]
        assert models[0]["id"] == shown
        for model in models:
            answer = client.post("/v1/completions", json={"model": model["id"], "max_tokens": 5})
            assert answer.status_code == 200
        assert client.post("/v1/completions", json={"model": "x"}).status_code == 404
        assert len(client.get("/snapshots").json()["snapshots"]) == 1
