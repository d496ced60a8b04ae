"""Reports that a browser makes, in Node: the same numbers as the server's, for texts of all kinds."""

import json
import os
import random
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.browser_index import browser_index
from model.browser_weights import browser_weights
from model.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from tests.tiny import report_of, tiny_checkpoint, tiny_draft, tiny_index, tiny_play

SCRIPT = Path(__file__).parent / "node" / "report.mjs"
OTHER_TRAINING_TEXT = (
    "Die Straße führt weiter, und die STRASSE hat ein Ende; ὁ λόγος ΛΌΓΟΣ ᾄδει, résumé re\u0301sume\u0301.\n"
    "Ⅷ ½ ²x ŉ ﬁn İstanbul ǰ 日本語 \U00010428 \U00010400 नमस्ते «so» „anders“ “oder”\n"
) * 40


def tricky_texts() -> list[str]:
    """Texts in which something is special: for a count, an order, a position, or a regular expression."""
    play = tiny_play()
    loop = "again and again and " * 12
    return [
        "",
        "x",
        play[:400],
        play[37:160] + play[1000:1111] + "Zyx qwxz zyx",
        'ROMEO:\nhello\n\nNurse:\n  (what [light) \x1c\nx\x85y]\n \u3000\n“a” „b“ »c« "d\n\n"e',
        "Romeo:\r\nx\n\u2028Juliet:\nshe said\n\nSpeaker One:\nBut soft\nwhat light\nThrough yonder\nWindow",
        loop + "end" + loop[3:90],
        "\U0001f600 astral \U0001d504b (\U0001f600) what\u0301ligh\u0301t lig\u200dht \U00010428\U00010400",
        "w" * 50
        + " "
        + "w" * 51
        + " e"
        + "\u0301" * 31
        + " STRAßE straSSE Straẞe ΛΌΓΟΣ λόγος ŉx ﬁn re\u0301sume\u0301",
        "  \ufeff lead \n\n tail \ufeff",
        "it is the east and juliet is the sun" * 40,
    ]


def random_texts(seed: int, count: int) -> list[str]:
    """Pieces of a play that were cut and put together by chance, with other characters here and there."""
    chance = random.Random(seed)
    play = tiny_play()
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(chance.randint(1, 12)):
            start = chance.randrange(len(play))
            parts.append(play[start : start + chance.choice([1, 5, 30, 100])])
            parts.append(chance.choice(["", "", "\n", "\n\n", "é", "ROMEO:\n", "“", "Ω", "\U0001f600"]))
        texts.append("".join(parts))
    return texts


def reports_in_node(checkpoint: Checkpoint, folder: Path, texts: list[str]) -> list[dict[str, Any]]:
    """What the browser's code says of texts."""
    program = shutil.which("node")
    if "CI" not in os.environ and not program:
        pytest.skip("no Node on this machine")
    assert program
    (folder / "weights").write_bytes(browser_weights(checkpoint))
    (folder / "index").write_bytes(browser_index(checkpoint))
    command = [program, str(SCRIPT), str(folder / "weights"), str(folder / "index")]
    done = subprocess.run(
        command, check=True, input=json.dumps(texts), stdout=subprocess.PIPE, encoding="utf-8", timeout=120
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def compare(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """All fields are the same; values in sentences, which are not rounded, nearly."""
    sentences = expected.pop("sentences")
    for part, sentence in found.pop("sentences").items():
        assert sentence["key"] == sentences[part]["key"]
        assert sentence["values"] == pytest.approx(sentences[part]["values"], rel=1e-12)
    assert found == expected


@pytest.mark.parametrize("training_text", [None, OTHER_TRAINING_TEXT], ids=["play", "other"])
def test_a_report_is_the_servers(tmp_path: Path, training_text: str | None) -> None:
    index = tiny_index(training_text)
    tiny = replace(tiny_checkpoint(), training={"val_loss": 2.5}, draft=tiny_draft(), index=index)
    (tmp_path / "checkpoint").mkdir()
    write_checkpoint(tmp_path / "checkpoint", tiny)
    checkpoint = read_checkpoint(tmp_path / "checkpoint")
    texts = [*tricky_texts(), *random_texts(1, 30)]
    reports = reports_in_node(checkpoint, tmp_path, texts)
    for text, report in zip(texts, reports, strict=True):
        compare(report, json.loads(json.dumps(report_of(text, checkpoint).content())))
