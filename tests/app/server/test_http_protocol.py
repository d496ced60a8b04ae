"""Whatever is requested or generated, a reader by the standard reads just that, and nothing of the server."""

import asyncio
import json
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api.responses import Answer
from app.api.resume import ResumeToken
from app.api.schemas import GenerateRequest
from app.main import create_app
from app.serving import request_handle as handles
from app.serving.model_card import ModelCard
from app.serving.request_handle import RequestHandle
from app.serving.work import WorkQueue
from app.settings import ServerSettings
from model.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from model.errors import SoliloquyError
from model.generation.generator import Generator, load_generator
from model.generation.sequence import Chunk, TextSequence, make_sequences
from model.sampling.sampler import Logprob, Sampling
from model.vocabulary import Vocabulary
from tests.conftest import LiveServer
from tests.leaks import check_answer
from tests.sse import Dispatched, EventStream, read_events
from tests.tiny import INT8, VOCABULARY, tiny_checkpoint

# line ends of all kinds, what begins a field or a comment, what JSON and HTML treat in a way of its own, what turns
# the direction of writing, what joins the character before it, what is no character, what is in two UTF-16 units
WILD = Vocabulary(
    "\n\r\0\ufeff\u2028\u2029\u0085\v\f\x1b\x7f\x1a :datienvry0123\"'\\<>&{}[],/%+=;\u200f\u202e\u0301\u200d"
    "\ufffd\ufffe\uffff\U0001f600\U0001f468\U0010ffffé日"
)
CARD = replace(ModelCard.of(tiny_checkpoint(), INT8), checkpoint="0123456789ab")
REPORTS = WorkQueue("report", threads=1, capacity=1, seconds=60)
FORGED = ["\n\n", "\r\r", "\n\nevent: done\ndata: {}\n\n", "\nid: 9\n", "\rretry: 1\r\r", "data: ", ": ", "\ufeff"]
texts = st.lists(
    st.sampled_from(FORGED) | st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(WILD.characters)),
    max_size=5,
).map("".join)
PARTS = (
    b"data",
    b"id",
    b"retry",
    b"event",
    b":",
    b" ",
    b"\r",
    b"\n",
    b"\r\n",
    b"x",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xf0",
)
lines = st.lists(st.sampled_from(PARTS) | st.binary(max_size=4), max_size=30)
FIELDS = (
    b"last-event-id", b"accept", b"accept-language", b"content-type", b"x-request-id", b"origin", b"authorization",
    b"x-forwarded-for", b"if-none-match", b"range", b"cookie", b"te", b"expect", b"upgrade", b"host",
)  # fmt: skip
VALUES = (
    b"000000000000:cpu-int8:00000000:7:1", b"text/event-stream", b"application/json;q=0", b"*/*", b"es;q=1e9",
    b"\xff", b"bytes=0-0", b"bytes=-1,9-", b"100-continue", b"websocket", b"Bearer \xf0\x9f",
    b"application/json; charset=\xff", b"application/json; charset=utf-16", b"a\r\nx-forged: 1", b"a\nx-forged: 1",
)  # fmt: skip
PATHS = (
    b"/", b"/generate", b"/info", b"/v1/models", b"/v1/models/x", b"/static/page.css", b"/metrics", b"/nowhere",
    b"/docs", b"/generate?prompt=%00", b"/generate?prompt=%ff&seed=%", b"/generate?x=%zz", b"/%00", b"/static/%00",
    b"/%ff%fe", b"/static/..%2f..%2fapp/main.py", b"/static/../app/main.py", b"//static//", b"/v1/models/%2e%2e%2f",
    b"*", b"/?lang=%00", b"/static/" + b"a" * 5000, b"/snapshots?prompt=%ed%a0%80", b"http://x/info", b"/info?\xff",
)  # fmt: skip


def test_the_reader_keeps_to_the_standard() -> None:
    """The standard's own examples, and the rules that they do not show."""

    def read(body: str) -> list[tuple[str, str, str]]:
        return [(one.type, one.data, one.last_event_id) for one in read_events(body.encode())]

    assert read("data: YHOO\ndata: +2\ndata: 10\n\n") == [("message", "YHOO\n+2\n10", "")]
    stream = ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n"
    datas = ["first event", "second event", " third event"]
    assert read(stream) == [("message", data, "1" if data == "first event" else "") for data in datas]
    assert read("data\n\ndata\ndata\n\ndata:") == [("message", "", ""), ("message", "\n", "")]
    assert read("event: add\r\ndata: 1\r\revent: remove\n\ndata: 2\r\n\r\n") == [
        ("add", "1", ""),
        ("message", "2", ""),
    ]
    assert read("\ufeffdata: 1\n\n\ufeffdata: 2\n\n") == [("message", "1", "")]
    assert read("id: 1\n\nid: 2\0\ndata: x\n\n") == [("message", "x", "1")]
    assert read("data: a\n\nid: 7\ndata: b") == [("message", "a", "")]
    source = EventStream()
    source.feed(b"retry: 12\nretry: 1x\nretry: \xd9\xa3\nretry:\nx: y\n:ping\n")
    assert (source.reconnection_time, source.fields[-1], source.comments) == (12, ("x", "y"), ["ping"])


@given(parts=lines)
def test_the_reader_does_not_mind_where_a_stream_is_cut(parts: list[bytes]) -> None:
    one = EventStream()
    many = EventStream()
    body = b"".join(parts)
    whole = one.feed(body) + one.close()
    found: list[Dispatched] = []
    for i in range(len(body)):
        found += many.feed(body[i : i + 1])
    assert found + many.close() == whole
    assert (many.fields, many.comments, many.last_event_id) == (one.fields, one.comments, one.last_event_id)


def read_strictly(body: bytes) -> list[Dispatched]:
    """The events, of a stream that has no field and no line but those that we send."""
    assert body.isascii()
    assert b"\r" not in body
    assert b"\0" not in body
    stream = EventStream()
    found = stream.feed(body)
    assert stream.close() == []
    assert stream.comments == []
    assert stream.reconnection_time is None
    assert [value for name, value in stream.fields if name == "data"] == [one.data for one in found]
    assert sum(name == "event" for name, _ in stream.fields) == sum(one.type != "message" for one in found)
    assert sum(name == "id" for name, _ in stream.fields) == sum(one.type in ("text", "done") for one in found)
    assert {name for name, _ in stream.fields} <= {"event", "data", "id"}
    return found


async def write(request: GenerateRequest, chunks: Sequence[tuple[int, str]], error: str | None) -> bytes:
    """The body of a stream in which these texts of these samples come, one at a time, and then perhaps an error."""
    streams = [TextSequence(VOCABULARY, [0], sample=sample) for sample in range(request.num_samples)]
    handle = RequestHandle(streams, 1 << 20, lambda: None)
    likelihood = Logprob(0.5, 0.25, 2, 1.5, ((0, 0.5, 0.75), (9, 0.25, 0.0)))
    answer = Answer(
        handle, request, CARD, tiny_checkpoint(), ResumeToken.beginning(request, CARD), REPORTS
    ).events()
    body = b""
    for sample, text in chunks:
        handle.put(streams[sample], Chunk(text, (likelihood,) * len(text) if request.details else ()))
    if error is not None:
        handle.fail(SoliloquyError(error))
    else:
        for stream in streams:
            handle.put(stream, Chunk("", (), "stop"))
    async for event in answer:
        body += event.encode()
    return body


@settings(max_examples=100)
@given(
    prompt=texts,
    stop=texts,
    chunks=st.lists(st.tuples(st.integers(0, 1), texts), max_size=6),
    details=st.booleans(),
    error=st.none() | texts,
)
def test_any_text_comes_back_and_nothing_else(
    prompt: str, stop: str, chunks: list[tuple[int, str]], details: bool, error: str | None
) -> None:
    request = GenerateRequest(prompt=prompt or "\n", seed=7, num_samples=2, details=details)
    request = request.model_copy(update={"stop": [stop]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handles, "FRAME_SECONDS", 0)
        first, *middle, last = read_strictly(asyncio.run(write(request, chunks, error)))
    found = json.loads(first.data)
    assert (first.type, found["parameters"]["prompt"], found["parameters"]["stop"]) == (
        "start",
        prompt or "\n",
        [stop],
    )
    written = ["", ""]
    for event in middle:
        data = json.loads(event.data)
        if event.type == "text":
            written[data["sample"]] += data["text"]
            assert ResumeToken.parse(event.last_event_id).sent == tuple(map(len, written))
            if details:
                assert "".join(one["char"] for one in data["chars"]) == data["text"]
        else:
            assert (event.type, data["finish_reason"]) == ("end", "stop")
    assert written == ["".join(text for sample, text in chunks if sample == i) for i in (0, 1)]
    assert last.type == ("done" if error is None else "error")
    assert error is None or json.loads(last.data)["detail"] == error


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Checkpoint]:
    """A model of the wild characters, and where it is."""
    folder = tmp_path_factory.mktemp("wild") / "wild"
    folder.mkdir()
    write_checkpoint(folder, replace(tiny_checkpoint(vocab_size=len(WILD)), vocabulary=WILD))
    return folder, read_checkpoint(folder)


@pytest.fixture(scope="module")
def wild(checkpoint: tuple[Path, Checkpoint]) -> Iterator[tuple[LiveServer, httpx.Client, Generator]]:
    """A server of that model, a client, and the model by itself."""
    settings = ServerSettings(checkpoint=checkpoint[0], device="cpu", slots=4, queue_size=100)
    with pytest.MonkeyPatch.context() as patch, httpx.Client() as client:
        patch.setattr(handles, "FRAME_SECONDS", 0)
        with LiveServer(create_app(settings)) as live:
            yield live, client, load_generator(checkpoint[1], INT8, 4)


def expected(generator: Generator, **request: Any) -> list[str]:
    """The texts by the model alone."""
    sequences = make_sequences(WILD, Sampling(temperature=1.0), num_samples=2, max_new_tokens=60, **request)
    return ["".join(chunk.text for chunk in generator.write(sequence)) for sequence in sequences]


@settings(max_examples=15)
@given(
    prompt=st.text(st.sampled_from(WILD.characters), min_size=1, max_size=40),
    stop=st.lists(st.text(st.sampled_from(WILD.characters), min_size=1, max_size=3), max_size=4),
    seed=st.integers(0, 2**53 - 1),
    details=st.booleans(),
)
def test_a_model_of_wild_characters_is_read_as_it_writes(
    wild: tuple[LiveServer, httpx.Client, Generator], prompt: str, stop: list[str], seed: int, details: bool
) -> None:
    """By every kind of request that there is, and resumed in the middle."""
    live, client, generator = wild
    whole = expected(generator, prompt=prompt, seed=seed, stop=stop)
    request: dict[str, Any] = {
        "prompt": prompt,
        "seed": seed,
        "stop": stop,
        "num_samples": 2,
        "max_new_tokens": 60,
        "temperature": 1,
        "details": details,
    }
    url = f"{live.url}/generate"
    first = read_strictly(client.post(url, json=request).content)
    assert written(first) == whole
    assert written(read_strictly(client.get(url, params=request).content)) == whole
    if cuts := [i for i, one in enumerate(first) if one.type == "text"]:
        cut = cuts[len(cuts) // 2]
        headers = {"Last-Event-ID": first[cut].last_event_id}
        rest = read_strictly(client.post(url, json=request, headers=headers).content)
        assert written(first[: cut + 1] + rest) == whole
    assert [one["text"] for one in client.post(url, json=request | {"stream": False}).json()["samples"]] == whole
    completion = {"model": "wild", "prompt": prompt, "n": 2, "max_tokens": 60, "temperature": 1}
    completion |= {"seed": seed, "stop": stop or None, "stream": True}
    *chunks, done = read_strictly(client.post(f"{live.url}/v1/completions", json=completion).content)
    assert (done.data, done.last_event_id, {one.type for one in chunks}) == ("[DONE]", "", {"message"})
    choices: list[dict[str, Any]] = []
    for chunk in chunks:
        choices += json.loads(chunk.data)["choices"]
    assert ["".join(one["text"] for one in choices if one["index"] == i) for i in (0, 1)] == whole


def written(found: list[Dispatched]) -> list[str]:
    """Both samples' texts."""
    parts = [json.loads(one.data) for one in found if one.type == "text"]
    return ["".join(part["text"] for part in parts if part["sample"] == i) for i in (0, 1)]


def test_the_card_and_the_page_hold_wild_characters(wild: tuple[LiveServer, httpx.Client, Generator]) -> None:
    live, client, _ = wild
    assert client.get(f"{live.url}/info").json()["vocabulary"] == "".join(WILD.characters)
    page = client.get(live.url).text
    [card] = re.findall(r'<script type="application/json" id="card">(.*?)</script>', page, re.DOTALL)
    assert json.loads(card)["vocabulary"] == "".join(WILD.characters)


@settings(max_examples=100)
@given(
    method=st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"PUT", b"BREW"]),
    path=st.sampled_from(PATHS),
    fields=st.dictionaries(
        st.sampled_from(FIELDS), st.binary(max_size=99) | st.sampled_from(VALUES), min_size=1, max_size=4
    ),
)
def test_any_request_is_answered_and_learns_nothing(
    wild: tuple[LiveServer, httpx.Client, Generator], method: bytes, path: bytes, fields: dict[bytes, bytes]
) -> None:
    """Also what is no HTTP: the server says so. No header of a request makes one of the answer."""
    live, _, _ = wild
    body = b'{"max_new_tokens": 2}' if method == b"POST" else b""
    head = b"".join(b"%s: %s\r\n" % one for one in ({b"host": b"x"} | fields).items())
    head += b"connection: close\r\ncontent-length: %d\r\n" % len(body)
    url = httpx.URL(live.url)
    answer = b""
    with socket.create_connection((url.host, url.port or 0), timeout=30) as client, suppress(ConnectionResetError):
        client.sendall(b"%s %s HTTP/1.1\r\n%s\r\n%s" % (method, path, head, body))
        while received := client.recv(65536):
            answer += received
    assert 200 <= int(answer.split(b" ", 2)[1]) < 500
    answered = answer.partition(b"\r\n\r\n")[0].lower()
    assert b"x-forged" not in answered
    check_answer(answer.decode("utf-8", "replace"), live.app.state.service.settings.checkpoint)
