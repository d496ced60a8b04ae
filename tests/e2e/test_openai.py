"""`/v1`, asked by OpenAI's own Python client, as its users ask."""

import json
import math
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI, OpenAI
from openai.types import Completion, CompletionChoice

from app.main import create_app
from app.serving.request_handle import RequestHandle
from app.settings import ServerSettings
from model.generation.generator import Generator
from model.generation.sequence import TextSequence
from model.sampling.sampler import Sampling
from tests.conftest import PATIENCE, THREADS, LiveServer
from tests.tiny import VOCABULARY, tiny_generator

PLAIN = Sampling(temperature=1.0, top_k=None)
ASKED: dict[str, Any] = {"model": "tiny", "prompt": "ROMEO:", "seed": 7, "max_tokens": 120}


@cache
def generator() -> Generator:
    """The model alone."""
    return tiny_generator()


def alone(prompt: str, seed: int, length: int, sample: int = 0, sampling: Sampling = PLAIN) -> str:
    """The text by the model alone."""
    stream = TextSequence(VOCABULARY, VOCABULARY.encode(prompt), sampling, seed, sample, length)
    return "".join(chunk.text for chunk in generator().write(stream))


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LiveServer]:
    """One for all tests here: none changes it, but the one that takes it for its own."""
    with LiveServer(
        create_app(ServerSettings(checkpoint=folder, device="cpu", threads=THREADS, queue_size=4))
    ) as live:
        yield live


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[OpenAI]:
    """OpenAI's client as its documentation makes it."""
    with client_of(server) as client:
        yield client


def client_of(server: LiveServer) -> OpenAI:
    """Without patience, so that refusals show."""
    return OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0)


def raw(server: LiveServer, **fields: Any) -> list[str]:
    """The frames of a stream."""
    answer = httpx.post(f"{server.url}/v1/completions", json=ASKED | {"stream": True} | fields)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.content.isascii()
    assert answer.text.endswith("\n\n")
    return answer.text.rstrip("\n").split("\n\n")


def joined(chunks: Sequence[Completion], choices: int) -> list[dict[str, Any]]:
    """The choices of a stream, each as one that came whole."""
    lists = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    whole: list[dict[str, Any]] = [{"index": i, "text": "", "finish_reason": None} for i in range(choices)]
    for chunk in chunks:
        [choice] = chunk.choices
        merged = whole[choice.index]
        assert merged["finish_reason"] is None  # nothing comes after the end
        merged["text"] += choice.text
        merged["finish_reason"] = choice.finish_reason
        if choice.logprobs is None:
            merged["logprobs"] = None
        else:
            known = merged.setdefault("logprobs", {name: [] for name in lists})
            merged["logprobs"] = {name: known[name] + getattr(choice.logprobs, name) for name in lists}
    return whole


def test_models_are_listed_and_found(client: OpenAI, server: LiveServer) -> None:
    card = httpx.get(f"{server.url}/info").json()
    names = [model.id for model in client.models.list()]
    assert names == ["tiny", f"tiny-{card['checkpoint']}"]
    for name in names:
        model = client.models.retrieve(name)
        assert (model.id, model.object, model.owned_by) == (name, "model", "soliloquy")
        assert client.completions.create(model=name, prompt="a", max_tokens=1).model == names[1]
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("tiny-000000000000")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_completion_is_the_models_text(client: OpenAI) -> None:
    completion = client.completions.create(**ASKED, n=2)
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert [choice.text for choice in completion.choices] == [alone("ROMEO:", 7, 120, i) for i in (0, 1)]
    assert {choice.finish_reason for choice in completion.choices} == {"length"}
    assert (completion.object, completion.id[:5]) == ("text_completion", "cmpl-")
    assert completion.system_fingerprint == f"{completion.model.removeprefix('tiny-')}-cpu-int8"
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (6, 240)
    assert completion.usage.total_tokens == 246


def test_the_same_parameters_give_the_text_of_generate(client: OpenAI, server: LiveServer) -> None:
    stop = alone("ROMEO:", 3, 200, 1, Sampling(0.9, 12, 0.8, 0.4))[90:92]
    common = {"prompt": "ROMEO:", "temperature": 0.9, "top_p": 0.8, "seed": 3, "stop": [stop]}
    extra = {"top_k": 12, "min_p": 0.4}
    fields = common | extra | {"max_new_tokens": 200, "num_samples": 3, "stream": False}
    native = httpx.post(f"{server.url}/generate", json=fields).json()["samples"]
    ours = client.completions.create(model="tiny", max_tokens=200, n=3, extra_body=extra, **common).choices  # type: ignore[call-overload]
    assert [(one.text, one.finish_reason) for one in ours] == [
        (one["text"], one["finish_reason"]) for one in native
    ]
    assert ours[1].finish_reason == "stop"


def test_what_is_left_out_is_openais_default(client: OpenAI) -> None:
    """And the seed that was drawn gives the text again; null is the same as absent."""
    answer = client.completions.with_raw_response.create(model="tiny", prompt="JULIET:")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    completion = answer.parse()
    seed = (completion.model_extra or {})["seed"]
    assert completion.choices[0].text == alone("JULIET:", seed, 16)
    names = "best_of echo logit_bias logprobs max_tokens n stop stream_options suffix temperature top_p"
    nulls: dict[str, Any] = dict.fromkeys(names.split())
    again = client.completions.create(model="tiny", prompt=["JULIET:"], seed=seed, user="me", **nulls)
    assert again.choices[0].text == alone("JULIET:", seed, 16)
    assert client.completions.create(model="tiny", prompt="", seed=5).choices[0].text == alone("\n", 5, 16)


@pytest.mark.parametrize(
    "neutral",
    [
        *({"suffix": ""}, {"suffix": None}, {"stop": ""}, {"stop": []}, {"stop": [""]}, {"stop": None}),
        *({"stop": "<|endoftext|>"}, {"stop": ["日", "é\n", *"@#$%^&*()_+"]}, {"stop": ["\U0001f600"]}),
        *({"max_tokens": 120.0}, {"n": 1.0}, {"best_of": 1}, {"best_of": 1.0}, {"seed": 7.0}, {"seed": 7 + 2**53}),
        *({"presence_penalty": 0}, {"frequency_penalty": -0.0}, {"logit_bias": {}}, {"logit_bias": {"50256": 0}}),
        *({"echo": False}, {"logprobs": None}, {"stream": False}, {"stream_options": None}, {"stream_options": {}}),
        *({"stream_options": {"include_usage": False}}, {"user": "me"}, {"temperature": None}, {"temperature": 1}),
        *(
            {"top_p": 1},
            {"top_p": None},
            {"store": False},
            {"store": None},
            {"metadata": {"a": "b"}},
            {"metadata": None},
        ),
        *({"service_tier": "auto"}, {"safety_identifier": "x"}, {"prompt_cache_key": "x"}, {"top_k": -1.0}),
    ],
)
def test_what_changes_nothing_is_no_reason_to_refuse(server: LiveServer, neutral: dict[str, Any]) -> None:
    """Values that OpenAI takes were refused: an empty suffix, a stop string that the model cannot write, a fifth
    one, 12.0 for 12, seeds of all 64 bits. Where they change nothing, the text is the same as without.
    """
    answer = httpx.post(f"{server.url}/v1/completions", json=ASKED | neutral, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["text"] == alone("ROMEO:", 7, 120)


@pytest.mark.parametrize(
    ("seed", "used"),
    [(-1, 2**53 - 1), (-(2**63), 0), (2**63 - 1, 2**53 - 1), (2**53, 0), (2**53 - 1, 2**53 - 1), (-7, 2**53 - 7)],
)
def test_a_seed_of_64_bits_counts_modulo_2_to_the_53(client: OpenAI, seed: int, used: int) -> None:
    """OpenAI's is an int64, ours what JavaScript can count to; the answer tells the one that was used."""
    completion = client.completions.create(**ASKED | {"seed": seed})
    assert (completion.model_extra or {})["seed"] == used
    assert completion.choices[0].text == alone("ROMEO:", used, 120)


def test_top_p_of_0_leaves_the_likeliest_alone(client: OpenAI, server: LiveServer) -> None:
    greedy = alone("ROMEO:", 7, 120, sampling=Sampling(temperature=0, top_k=None))
    assert client.completions.create(**ASKED | {"top_p": 0}).choices[0].text == greedy
    fields = {"prompt": "ROMEO:", "seed": 7, "max_new_tokens": 120, "top_p": 0, "stream": False}
    answer = httpx.post(f"{server.url}/generate", json=fields).json()
    assert answer["samples"][0]["text"] == greedy
    assert answer["parameters"]["top_p"] == answer["receipt"]["parameters"]["top_p"] == 0


@pytest.mark.parametrize("count", [5, 20, 64])
def test_a_text_ends_before_the_first_of_many_stop_strings(client: OpenAI, count: int) -> None:
    text = alone("ROMEO:", 7, 120)
    stop = [f"{text[60:64]}{'#' * i}" for i in range(count - 1)] + ["日本"]
    completion = client.completions.create(**ASKED | {"stop": stop})
    assert completion.choices[0].text == text[: text.index(text[60:64])]
    assert completion.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/chat/completions", "/v1/embeddings", "/v1/responses", "/v1/moderations", "/v1/v1/completions"),
        *("/chat/completions", "/completions", "/models", "/v1/", "/v1", "/embeddings", "/v1/models/a/b"),
        *("/openai/deployments/tiny/chat/completions", "/v1/images/generations"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_what_is_not_there_is_answered_with_what_is(server: LiveServer, method: str, path: str) -> None:
    """A bare "Not Found" does not tell whoever has another base URL, or asks this model to chat, what to do."""
    answer = httpx.request(method, f"{server.url}{path}")
    if (method, path) == ("POST", "/v1/models/a/b"):
        assert answer.status_code == 405
        return
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"
    if method != "HEAD":
        error = answer.json()["error"]
        assert error["type"] == "invalid_request_error"
        words = "use 'tiny'" if "models/" in path else "POST /v1/completions writes text after a prompt"
        assert words in error["message"]


def test_a_model_by_the_former_identity_is_told_the_present_one(client: OpenAI, server: LiveServer) -> None:
    """See `test_checkpoint.py`: identities did not cover the vocabulary, and names have them."""
    card = server.app.state.service.current.card
    with pytest.raises(openai.NotFoundError, match=f"its identity before .*; use 'tiny-{card.checkpoint}'"):
        client.completions.create(**ASKED | {"model": f"tiny-{card.former}"})
    assert "former" not in httpx.get(f"{server.url}/info").json()


@settings(max_examples=30)
@given(
    prompts=st.lists(st.text(VOCABULARY.characters, min_size=1, max_size=40), min_size=1, max_size=3),
    n=st.integers(1, 3),
    seed=st.integers(0, 2**53 - 1),
    length=st.integers(1, 60),
    stop=st.lists(st.text("abeiou", min_size=1, max_size=2), max_size=2),
    echo=st.booleans(),
    logprobs=st.sampled_from([None, 0, 2]),
)
def test_a_stream_is_what_comes_whole(
    client: OpenAI,
    prompts: list[str],
    n: int,
    seed: int,
    length: int,
    stop: list[str],
    echo: bool,
    logprobs: int | None,
) -> None:
    fields = {"prompt": prompts, "n": n, "seed": seed, "max_tokens": length, "stop": stop, "echo": echo}
    whole = client.completions.create(model="tiny", logprobs=logprobs, **fields)  # type: ignore[call-overload]
    chunks = list(client.completions.create(model="tiny", logprobs=logprobs, stream=True, **fields))  # type: ignore[call-overload]
    assert joined(chunks, len(prompts) * n) == [choice.model_dump() for choice in whole.choices]
    assert {chunk.model for chunk in chunks} == {whole.model}
    for choice in whole.choices:
        prompt = prompts[choice.index // n]
        text = alone(prompt, seed, length, choice.index % n)
        ends = [text.index(one) for one in stop if one in text]
        text = text[: min(ends, default=None)]
        assert choice.text == (prompt if echo else "") + text
        assert choice.finish_reason == ("stop" if ends else "length")


def test_logprobs_are_the_details_of_generate(client: OpenAI, server: LiveServer) -> None:
    details = {"prompt": "ROMEO:", "temperature": 1, "seed": 7, "max_new_tokens": 120, "details": True}
    answer = httpx.post(f"{server.url}/generate", json=details | {"alternatives": 3, "stream": False}).json()
    [choice] = client.completions.create(**ASKED, logprobs=3).choices
    check_logprobs(choice, answer["samples"][0]["chars"], 6)
    assert choice.logprobs
    assert {len(top) for top in choice.logprobs.top_logprobs or ()} == {3, 4}


@pytest.mark.parametrize("length", [0, 5])
def test_an_echoed_prompt_has_the_logprobs_of_score(client: OpenAI, server: LiveServer, length: int) -> None:
    def score(prompt: str, text: str) -> list[dict[str, Any]]:
        fields = {"prompt": prompt, "text": text, "temperature": 1, "alternatives": 2}
        chars: list[dict[str, Any]] = httpx.post(f"{server.url}/score", json=fields).json()["chars"]
        return chars

    prompt = "what light through yonder window breaks"
    fields: dict[str, Any] = {"prompt": [prompt, "a"], "echo": True, "logprobs": 2, "max_tokens": length, "n": 2}
    completion = client.completions.create(model="tiny", **fields)
    choices = completion.choices
    for choice in choices[:2]:
        assert choice.text.startswith(prompt)
        text = choice.text.removeprefix(prompt)
        written = score(prompt, text) if length else []
        check_logprobs(choice, [None, *score(prompt[0], prompt[1:]), *written], 0)
    assert [len(choice.text) for choice in choices[2:]] == [1 + length] * 2
    assert {choice.finish_reason for choice in choices} == {"length"}
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (len(prompt) + 1, 4 * length)


def check_logprobs(choice: CompletionChoice, chars: list[dict[str, Any] | None], offset: int) -> None:
    """They say what the details `chars` say; None is a character that nothing was said about."""
    content = choice.logprobs
    assert content is not None
    assert content.tokens == list(choice.text)
    assert content.text_offset == list(range(offset, offset + len(chars)))
    logprobs = content.token_logprobs or []
    tops = content.top_logprobs or []
    for character, logprob, top, one in zip(choice.text, logprobs, tops, chars, strict=True):
        if one is None:
            assert logprob is None
            assert top is None
            continue
        assert logprob == pytest.approx(math.log(one["prob"]), abs=1e-4)
        others = {other["char"]: math.log(other["prob"]) for other in one["alternatives"]}
        assert top == pytest.approx(others | {character: logprob}, abs=1e-4)
        assert list(top)[: len(others)] == list(others)


def test_frames_have_neither_ids_nor_names(server: LiveServer) -> None:
    *frames, last = raw(server, n=2, stream_options={"include_usage": True})
    assert last == "data: [DONE]"
    assert all(frame.startswith("data: {") and "\n" not in frame for frame in frames)
    *chunks, usage = (json.loads(frame.removeprefix("data: ")) for frame in frames)
    assert {chunk["usage"] for chunk in chunks} == {None}
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 6, "completion_tokens": 240, "total_tokens": 246}
    assert sum(chunk["choices"][0]["finish_reason"] == "length" for chunk in chunks) == 2
    assert all("usage" not in json.loads(frame.removeprefix("data: ")) for frame in raw(server)[:-1])


def test_the_first_character_comes_at_once(client: OpenAI, server: LiveServer) -> None:
    """Held between steps: the client has the first one while no other is written."""
    server.gate.close()
    stream = client.completions.create(**ASKED | {"prompt": "a"}, stream=True)
    server.gate.step()
    first = next(stream)
    server.gate.open()
    assert (first.choices[0].text, first.choices[0].finish_reason) == (alone("a", 7, 1), None)
    assert first.choices[0].text + "".join(chunk.choices[0].text for chunk in stream) == alone("a", 7, 120)


def test_text_is_gathered_for_25_milliseconds(client: OpenAI) -> None:
    """However long it takes, there are no more chunks than that; else there would be one for each step."""
    begun = time.monotonic()
    chunks = list(client.completions.create(**ASKED | {"max_tokens": 5000}, stream=True))
    assert len(chunks) <= (time.monotonic() - begun) / 0.025 + 2


def test_many_at_once_by_the_async_client(server: LiveServer) -> None:
    texts: dict[int, str] = {}

    async def one(client: AsyncOpenAI, seed: int) -> None:
        async with await client.completions.create(**ASKED | {"seed": seed}, stream=True) as stream:
            texts[seed] = "".join([chunk.choices[0].text async for chunk in stream])

    async def all_of_them() -> Completion:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
            async with anyio.create_task_group() as group:
                for seed in range(20):
                    group.start_soon(one, client, seed)
            completion: Completion = await client.completions.create(**ASKED)
        return completion

    assert anyio.run(all_of_them).choices[0].text == alone("ROMEO:", 7, 120)
    assert texts == {seed: alone("ROMEO:", seed, 120) for seed in range(20)}


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_slots(
    client: OpenAI, server: LiveServer, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    handles: list[RequestHandle] = []

    def submit(sequences: Sequence[TextSequence]) -> RequestHandle:
        handles.append(type(server.engine).submit(server.engine, sequences))
        return handles[-1]

    monkeypatch.setattr(server.engine, "submit", submit)
    fields = ASKED | {"max_tokens": 100_000, "n": 3}
    if stream:
        with client.completions.create(**fields, stream=True) as chunks:
            next(chunks)
    else:
        while not handles:  # a busy server may not have read the request when its client gives up
            with pytest.raises(openai.APITimeoutError):
                client.completions.create(**fields, timeout=0.5)
    assert handles[0].released.wait(PATIENCE)
    assert max(len(one.written) for one in handles[0].sequences) < 100_000
    assert server.engine.generator.free_slots == 32
