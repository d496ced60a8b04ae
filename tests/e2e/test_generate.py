"""What a client meets: a real uvicorn on loopback, asked as clients ask."""

import hashlib
import json
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from httpx_sse import ServerSentEvent, aconnect_sse, connect_sse

from app.job import Job
from model.checkpoint import read_checkpoint
from model.stream import Stream
from tests.conftest import LiveServer
from tests.tiny import VOCABULARY, tiny_generator

ASKED = {"prompt": "ROMEO:", "max_new_tokens": 120, "seed": 7, "num_samples": 2}


def expected(prompt: str, seed: int, length: int, sample: int = 0) -> str:
    """The text by the model alone."""
    stream = Stream(VOCABULARY, VOCABULARY.encode(prompt), seed=seed, sample=sample, max_new_tokens=length)
    return "".join(piece.text for piece in tiny_generator().write(stream))


def post(server: LiveServer, **asked: Any) -> list[ServerSentEvent]:
    with httpx.Client() as client, connect_sse(client, "POST", f"{server.url}/generate", json=asked) as source:
        assert source.response.headers["cache-control"] == "no-store"
        assert source.response.headers["x-accel-buffering"] == "no"
        return list(source.iter_sse())


def texts_of(events: list[ServerSentEvent], samples: int = 1) -> list[str]:
    """Each sample's text, with every `index` checked."""
    texts = ["" for _ in range(samples)]
    for event in events:
        if event.event == "text":
            data = event.json()
            assert data["index"] == len(texts[data["sample"]])
            texts[data["sample"]] += data["text"]
            seed, come = event.id.split(":")
            assert int(come.split(",")[data["sample"]]) == len(texts[data["sample"]])
            assert seed.isdigit()
    return texts


def test_a_stream_starts_writes_ends_and_is_done(server: LiveServer, folder: Path) -> None:
    events = post(server, **ASKED)
    names = [event.event for event in events]
    assert names[0] == "start"
    assert names[1] == "text"
    assert names[-1] == "done"
    assert set(names[1:-1]) == {"text", "end"}
    start = events[0].json()
    assert start["seed"] == 7
    assert start["checkpoint"] == read_checkpoint(folder).identity[:12]
    assert start["parameters"]["top_k"] == len(VOCABULARY)  # 200, clamped
    texts = texts_of(events, 2)
    assert texts == [expected("ROMEO:", 7, 120, sample) for sample in (0, 1)]
    assert texts[0] != texts[1]
    ends = [event.json() for event in events if event.event == "end"]
    assert ends == [{"sample": i, "finish_reason": "length"} for i in (0, 1)]
    done = events[-1].json()
    assert [one["sha256"] for one in done["samples"]] == [hashlib.sha256(t.encode()).hexdigest() for t in texts]
    assert [one["characters"] for one in done["samples"]] == [120, 120]
    assert done["timing"]["first_character_seconds"] <= done["timing"]["total_seconds"]


def test_one_json_object_has_the_same_text(server: LiveServer) -> None:
    streamed = texts_of(post(server, **ASKED), 2)
    by_field = httpx.post(f"{server.url}/generate", json=ASKED | {"stream": False})
    by_header = httpx.post(f"{server.url}/generate", json=ASKED, headers={"accept": "application/json"})
    for answer in (by_field, by_header):
        assert answer.status_code == 200
        body = answer.json()
        assert [sample["text"] for sample in body["samples"]] == streamed
        assert body.keys() == {"id", "checkpoint", "seed", "parameters", "samples", "timing"}
        assert body["seed"] == 7


def test_the_same_stream_by_url(server: LiveServer) -> None:
    with httpx.Client() as client, connect_sse(client, "GET", f"{server.url}/generate", params=ASKED) as source:
        assert texts_of(list(source.iter_sse()), 2) == texts_of(post(server, **ASKED), 2)


def test_a_seed_is_drawn_returned_and_gives_the_text_again(server: LiveServer) -> None:
    first = httpx.post(f"{server.url}/generate", json={"stream": False, "max_new_tokens": 40}).json()
    again = {"stream": False, "max_new_tokens": 40, "seed": first["seed"]}
    second = httpx.post(f"{server.url}/generate", json=again).json()
    assert first["samples"] == second["samples"]
    other = httpx.post(f"{server.url}/generate", json={"stream": False, "max_new_tokens": 40}).json()
    assert other["seed"] != first["seed"]


def test_frames_are_one_line_of_ascii(server: LiveServer) -> None:
    raw = httpx.post(f"{server.url}/generate", json={"prompt": "\n", "stop": ["\n"]}).content
    assert raw.isascii()
    for frame in raw.decode().strip().split("\n\n"):
        lines = frame.split("\n")
        assert sum(line.startswith("data: ") for line in lines) == 1
        json.loads(next(line for line in lines if line.startswith("data: ")).removeprefix("data: "))


def test_stop_strings_end_a_sample(server: LiveServer) -> None:
    whole = expected("ROMEO:", 7, 120)
    stop = whole[50:53]
    [sample] = httpx.post(
        f"{server.url}/generate", json=ASKED | {"num_samples": 1, "stop": [stop], "stream": False}
    ).json()["samples"]
    assert sample["finish_reason"] == "stop"
    assert sample["text"] == whole[: whole.index(stop)]


def test_details_tell_how_sure_the_model_was(server: LiveServer) -> None:
    events = post(server, prompt="R", max_new_tokens=30, seed=1, details=True)
    chars = [one for event in events if event.event == "text" for one in event.json()["chars"]]
    assert "".join(one["char"] for one in chars) == texts_of(events)[0]
    for one in chars:
        likeliest = one["alternatives"][0]
        assert 0 <= one["prob"] <= likeliest["prob"] <= 1
        assert one["entropy"] >= 0
        if one["rank"] == 1:
            assert likeliest == {"char": one["char"], "prob": one["prob"]}


def test_an_empty_prompt_is_a_line_break(server: LiveServer) -> None:
    assert texts_of(post(server, prompt="", seed=3, max_new_tokens=20)) == [expected("\n", 3, 20)]


def test_32_clients_stream_at_once_then_a_queue_then_503(server: LiveServer) -> None:
    """Held between steps: 32 write, 4 wait, the 37th is refused; then all 36 get exactly their text."""
    engine, gate = server.engine, server.gate
    gate.may_pass = lambda: bool(engine._waiting and engine.generator.free_slots)

    def submit(streams: Sequence[Stream]) -> Job:
        job = type(engine).submit(engine, streams)
        with gate.changed:
            gate.changed.notify_all()
        return job

    engine.submit = submit  # type: ignore[method-assign]
    gate.close()
    texts: dict[int, str] = {}

    async def one(client: httpx.AsyncClient, seed: int, admitted: anyio.Event) -> None:
        asked = {"prompt": "JULIET:", "seed": seed, "max_new_tokens": 200}
        async with aconnect_sse(client, "POST", f"{server.url}/generate", json=asked) as source:
            assert source.response.status_code == 200
            admitted.set()
            [texts[seed]] = texts_of([event async for event in source.aiter_sse()])

    async def all_of_them() -> httpx.Response:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(limits=limits, timeout=60) as client, anyio.create_task_group() as group:
            for seed in range(36):
                admitted = anyio.Event()
                group.start_soon(one, client, seed, admitted)
                await admitted.wait()
            refused = await client.post(f"{server.url}/generate", json={"prompt": "x"})
            gate.open()
        return refused

    refused = anyio.run(all_of_them)
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert refused.headers["content-type"] == "application/problem+json"
    assert texts == {seed: expected("JULIET:", seed, 200) for seed in range(36)}
    assert max(map(len, gate.decoded)) == 32


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_drops_frees_its_slot(server: LiveServer, stream: bool) -> None:
    jobs: list[Job] = []

    def submit(streams: Sequence[Stream]) -> Job:
        jobs.append(type(server.engine).submit(server.engine, streams))
        return jobs[-1]

    server.engine.submit = submit  # type: ignore[method-assign]
    asked = {"max_new_tokens": 100_000, "stream": stream}
    with httpx.Client() as client:
        if stream:
            with connect_sse(client, "POST", f"{server.url}/generate", json=asked) as source:
                assert next(source.iter_sse()).event == "start"
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(f"{server.url}/generate", json=asked, timeout=0.5)
    assert jobs[0].released.wait(10)
    assert len(jobs[0].streams[0].written) < 100_000
    assert server.engine.generator.free_slots == 32


def test_a_client_that_never_reads_is_dropped(impatient_server: LiveServer) -> None:
    """Its text first fills the buffers of both machines; then its slots are freed, and the server goes on."""
    jobs: list[Job] = []
    engine = impatient_server.engine

    def submit(streams: Sequence[Stream]) -> Job:
        jobs.append(type(engine).submit(engine, streams))
        return jobs[-1]

    engine.submit = submit  # type: ignore[method-assign]
    body = json.dumps({"max_new_tokens": 100_000, "details": True, "num_samples": 16}).encode()
    head = f"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    url = httpx.URL(impatient_server.url)
    with socket.create_connection((url.host, url.port or 0)) as client:
        client.sendall(f"{head}\r\n\r\n".encode() + body)
        assert client.recv(1)  # the answer has begun; nothing more is read
        assert jobs[0].released.wait(60)
    assert len(jobs[0].streams[0].written) < 100_000
    assert httpx.get(f"{impatient_server.url}/health/ready").status_code == 200


def test_the_model_card_and_the_health(server: LiveServer) -> None:
    card = httpx.get(f"{server.url}/info").json()
    assert card["block_size"] == 16
    assert card["vocabulary_size"] == len(card["vocabulary"]) == len(VOCABULARY)
    assert card["numerics"] == "cpu-fp32"
    assert card["val_loss"] == 4.0
    assert httpx.get(f"{server.url}/health/live").status_code == 200
    assert httpx.get(f"{server.url}/health/ready").status_code == 200
    server.engine.drain(60)
    assert httpx.get(f"{server.url}/health/ready").status_code == 503
    refused = httpx.post(f"{server.url}/generate", json={})
    assert refused.status_code == 503
    assert "retry-after" in refused.headers


def chunks() -> Iterator[bytes]:
    yield b'{"prompt": "'
    for _ in range(100):
        yield b"a" * 10_000
    yield b'"}'


@pytest.mark.parametrize(
    ("body", "status", "field", "words"),
    [
        ({"promt": "x"}, 422, "promt", "not a field of this request"),
        ({"temperature": "hot"}, 422, "temperature", "'hot'"),
        ({"temperature": -1}, 422, "temperature", "greater than or equal to 0, not -1"),
        ({"max_new_tokens": "12"}, 422, "max_new_tokens", "valid integer"),
        ({"max_new_tokens": True}, 422, "max_new_tokens", "valid integer"),
        ({"max_new_tokens": 0}, 422, "max_new_tokens", "not 0"),
        ({"top_k": 0}, 422, "top_k", "greater than or equal to 1, not 0"),
        ({"top_p": 1.5}, 422, "top_p", "not 1.5"),
        ({"seed": -1}, 422, "seed", "not -1"),
        ({"num_samples": 99}, 422, "num_samples", "not 99"),
        ({"stop": ["a"] * 5}, 422, "stop", "at most 4"),
        ({"stop": [""]}, 422, "stop.0", "at least 1"),
        ({"stop": ["日"]}, 422, "stop[0]", "never seen"),
        ({"prompt": None}, 422, "prompt", "valid string"),
        ({"prompt": "a" * 20_000}, 422, "prompt", "(20002 characters)"),
        ([1, 2], 422, "body", "one JSON object"),
        (b'{"prompt": ', 400, None, "not valid JSON"),
        (b'{"temperature": NaN}', 422, "temperature", "finite number"),
        (b'{"prompt": "' + b"a" * 1_000_000 + b'"}', 413, None, "shorter prompt"),
        (chunks, 413, None, "shorter prompt"),
    ],
)
def test_bad_input_is_refused_by_name(
    server: LiveServer, body: Any, status: int, field: str | None, words: str
) -> None:
    content = body() if callable(body) else body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = httpx.post(f"{server.url}/generate", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert words in problem["detail"]
    if field is not None:
        assert [one["field"] for one in problem["errors"]] == [field]
    assert "Traceback" not in answer.text
    assert ".py" not in answer.text
    assert server.engine.generator.free_slots == 32


def test_unknown_characters_are_each_named_with_a_replacement(server: LiveServer) -> None:
    answer = httpx.post(f"{server.url}/generate", json={"prompt": "日本 ma\u00f1ana"})
    assert answer.status_code == 422
    assert answer.json()["characters"] == [
        {"character": "日", "position": 0, "replacement": "?"},
        {"character": "本", "position": 1, "replacement": "?"},
        {"character": "ñ", "position": 5, "replacement": "n"},
    ]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/generate", 405)])
def test_other_refusals_are_problems_too(server: LiveServer, method: str, path: str, status: int) -> None:
    answer = httpx.request(method, f"{server.url}{path}")
    assert answer.status_code == status
    assert answer.json()["status"] == status


def test_a_url_is_checked_like_a_body(server: LiveServer) -> None:
    answer = httpx.get(f"{server.url}/generate", params={"temperature": "hot", "promt": "x"})
    assert answer.status_code == 422
    assert {one["field"] for one in answer.json()["errors"]} == {"temperature", "promt"}


def test_form_data_is_told_what_to_send(server: LiveServer) -> None:
    answer = httpx.post(f"{server.url}/generate", data={"prompt": "x"})
    assert answer.status_code == 422
    assert "content-type: application/json" in answer.json()["detail"]
