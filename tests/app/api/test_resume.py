"""Cut anywhere and resumed, a text is the text of an undisturbed run; any other header is refused."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api.responses import Answer
from app.api.resume import ResumeToken, resume
from app.api.schemas import GenerateRequest
from app.serving import request_handle as handles
from app.serving.engine import Engine
from app.serving.model_card import ModelCard
from app.serving.work import WorkQueue
from model.errors import InputError
from tests.tiny import INT8, VOCABULARY, tiny_checkpoint, tiny_generator

CARD = replace(ModelCard.of(tiny_checkpoint(), INT8), checkpoint="0123456789ab", former="00ff00ff00ff")
REPORTS = WorkQueue("report", threads=1, capacity=1, seconds=60)
LENGTH = 60
REQUEST = GenerateRequest(
    prompt="ROMEO:", max_new_tokens=LENGTH, seed=7, num_samples=2, stop=["zq"], details=True, alternatives=2
)
Event = tuple[str, dict[str, Any], str | None]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """Its clients are sent what there is at once, and a small buffer makes that little."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handles, "FRAME_SECONDS", 0)
        engine = Engine(tiny_generator(), queue_size=8, buffer_characters=20)
        engine.start()
        yield engine
        engine.close()


async def answer(engine: Engine, request: GenerateRequest, header: str | None = None) -> list[Event]:
    """All events, each with its data and id."""
    resolved, token = resume(request, header, VOCABULARY, CARD)
    handle = engine.submit(resolved.sequences(VOCABULARY, token.sent))
    frames = Answer(handle, resolved, CARD, tiny_checkpoint(), token, REPORTS).events()
    return [(str(one.event), json.loads(str(one.data)), one.id) async for one in frames]


def merge(*parts: list[Event]) -> tuple[list[str], list[list[Any]]]:
    """Each sample's text and details; every `index` and id must say just how much came before."""
    texts: list[str] = ["", ""]
    chars: list[list[Any]] = [[], []]
    for name, data, event_id in chain(*parts):
        if name == "text":
            assert event_id is not None
            sample = data["sample"]
            assert data["index"] == len(texts[sample])
            texts[sample] += data["text"]
            chars[sample] += data["chars"]
            assert ResumeToken.parse(event_id).sent == tuple(map(len, texts))
    assert [[one["char"] for one in sample] for sample in chars] == [list(text) for text in texts]
    return texts, chars


def ends(part: list[Event]) -> list[tuple[str, int, str]]:
    return sorted((name, data["sample"], data["finish_reason"]) for name, data, _ in part if name == "end")


async def test_cut_after_any_event_and_resumed(engine: Engine) -> None:
    """Again after the first cut, too; with the seed left out, as a browser's EventSource repeats its request."""
    request = REQUEST.model_copy(update={"seed": None})
    whole = await answer(engine, REQUEST)
    texts, chars = merge(whole)
    assert [len(text) for text in texts] == [LENGTH, LENGTH]
    cuts = [i for i, event in enumerate(whole) if event[0] == "text"]
    assert len(cuts) > 4
    for cut in cuts:
        first = whole[: cut + 1]
        rest = await answer(engine, request, first[-1][2])
        assert merge(first, rest) == (texts, chars)
        assert rest[0][1]["seed"] == 7
        assert rest[0][1]["parameters"] == whole[0][1]["parameters"]
        assert ends(rest) == ends(whole)
        assert rest[-1][1]["samples"] == whole[-1][1]["samples"]
        assert rest[-1][1]["receipt"] == whole[-1][1]["receipt"]
        again = next((i for i, event in enumerate(rest) if event[0] == "text"), None)
        if again is not None:
            tail = await answer(engine, request, rest[again][2])
            assert merge(first, rest[: again + 1], tail) == (texts, chars)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**53 - 1),
    sent=st.tuples(st.integers(0, LENGTH), st.integers(0, LENGTH)),
    stop=st.sampled_from([[], ["e"], ["ab", "t "], ["A", "I", "n"]]),
)
def test_resumed_at_any_place(engine: Engine, seed: int, sent: tuple[int, int], stop: list[str]) -> None:
    """Also at a token that no event has named, and behind the end of a sample that a stop string ended."""
    request = REQUEST.model_copy(update={"seed": seed, "stop": stop})

    async def both() -> tuple[list[Event], list[Event]]:
        header = str(replace(ResumeToken.beginning(request.resolved(VOCABULARY), CARD), sent=sent))
        return await answer(engine, request), await answer(engine, request, header)

    whole, rest = asyncio.run(both())
    texts, chars = merge(whole)
    got: list[list[Any]] = [[], []]
    for name, data, _ in rest:
        if name == "text":
            sample = data["sample"]
            assert data["index"] == sent[sample] + len(got[sample])
            assert data["text"] == "".join(one["char"] for one in data["chars"])
            got[sample] += data["chars"]
    assert got == [sample[n:] for sample, n in zip(chars, sent, strict=True)]
    assert ends(rest) == ends(whole)
    assert rest[-1][1]["samples"] == whole[-1][1]["samples"]
    assert [one["characters"] for one in rest[-1][1]["samples"]] == [len(text) for text in texts]


def header(**changes: Any) -> str:
    return str(replace(ResumeToken.beginning(REQUEST.resolved(VOCABULARY), CARD), **changes))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("7:3,4", "is not the id"),
        (header(seed="-1"), "is not the id"),
        (header(seed=2**53), "is not the id"),
        (header(seed="9" * 5000), "is not the id"),
        (header(sent=("1" * 400, 2)), "is not the id"),
        (header(sent=(-1, 2)), "is not the id"),
        (header(sent=("²", "٣")), "is not the id"),
        (header(sent=()), "is not the id"),
        (header() + "\n", "is not the id"),
        (header() + "\0", "is not the id"),
        ("ff" * 100_000, "is not the id"),
        (
            header(checkpoint="ba9876543210"),
            "is of a text by ba9876543210 on cpu-int8, but 0123456789ab on cpu-int8",
        ),
        (
            header(checkpoint="00ff00ff00ff"),
            "names this checkpoint by 00ff00ff00ff, its identity before one covered the vocabulary; it is 01234567",
        ),
        (header(numerics="cuda-bf16"), "is of a text by 0123456789ab on cuda-bf16, but 0123456789ab on cpu-int8"),
        (header(parameters="00000000"), "other parameters; ask with the same ones"),
        (header(seed=8), "seed 8, not 7"),
        (header(sent=(1, 2, 3)), "counts 3 samples, not num_samples 2"),
        (header(sent=(1,) * 200), "counts 200 samples, not num_samples 2"),
        (header(sent=(0, LENGTH + 1)), f"counts {LENGTH + 1} characters, but max_new_tokens is {LENGTH}"),
        (header(sent=(0, 10**17)), f"characters, but max_new_tokens is {LENGTH}"),
    ],
)
def test_what_is_no_place_in_this_text_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        resume(REQUEST, text, VOCABULARY, CARD)
    assert caught.value.field == "Last-Event-ID"
    assert words in caught.value.message
    assert caught.value.message.endswith("write the text again without it")


@given(text=st.text() | st.from_regex(r"\A[0-9a-f:,-]{0,80}\Z"))
def test_any_text_is_a_place_or_refused(text: str) -> None:
    with suppress(InputError):
        resolved, token = resume(REQUEST, text, VOCABULARY, CARD)
        assert (resolved.seed, len(token.sent)) == (7, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": "ROMEO"},
        {"max_new_tokens": LENGTH + 1},
        {"temperature": 0.81},
        {"top_k": 3},
        {"top_p": 0.5},
        {"min_p": 0.1},
        {"num_samples": 3},
        {"stop": ["zq", "x"]},
    ],
)
def test_each_parameter_that_determines_the_text_is_held_to(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="other parameters"):
        resume(REQUEST.model_copy(update=changes), header(), VOCABULARY, CARD)


@pytest.mark.parametrize("changes", [{"details": False}, {"alternatives": 0}, {"seed": None}, {"top_k": 1000}])
def test_what_does_not_change_the_text_may_change(changes: dict[str, Any]) -> None:
    resolved, token = resume(REQUEST.model_copy(update=changes), header(sent=(3, 4)), VOCABULARY, CARD)
    assert (resolved.seed, token.sent) == (7, (3, 4))


@pytest.mark.parametrize("absent", [None, ""])
def test_without_a_header_the_text_begins_at_its_beginning(absent: str | None) -> None:
    assert resume(REQUEST, absent, VOCABULARY, CARD)[1].sent == (0, 0)
